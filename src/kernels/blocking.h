/* Arithmetic of cutting work into blocks. */
#ifndef DK_KERNELS_BLOCKING_H
#define DK_KERNELS_BLOCKING_H

#include <stddef.h>
#include <stdint.h>

static inline int64_t dk_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t dk_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* The size of equal blocks of at most `most`, a multiple of `unit`. */
static inline int64_t dk_block_size(int64_t total, int64_t most, int64_t unit)
{
    int64_t blocks = dk_ceil_div(total, most);
    return dk_ceil_div(dk_ceil_div(total, blocks), unit) * unit;
}

/* Work cut into tasks: blocks while there are many, halves of the last and quarters of the very
   last, a half and two quarters for each thread, so that threads end close together, however
   fast each is, and few tasks are small. */
typedef struct dk_cut {
    int whole, half; /* tasks that are a block and half a block, which come first */
    int tasks;       /* the rest are quarters of a block */
} dk_cut;

/* threads: 0 for whole blocks only. */
static inline dk_cut dk_cut_blocks(int blocks, int threads)
{
    int half = (int)dk_smaller(threads, blocks / 2);
    return (dk_cut){.whole = blocks - half, .half = half, .tasks = blocks + 2 * half};
}

/* The units of a block that are a task's, none where a block has fewer than four. */
typedef struct dk_cut_task {
    int block;
    int64_t begin, end;
} dk_cut_task;

static inline dk_cut_task dk_cut_task_at(const dk_cut *cut, int task, int64_t units)
{
    enum { QUARTERS = 4 };
    int halves = task - cut->whole, quarters = halves - cut->half;
    int first = QUARTERS * task, count = QUARTERS;
    if (quarters >= 0) {
        first = QUARTERS * cut->whole + 2 * cut->half + quarters;
        count = 1;
    } else if (halves >= 0) {
        first = QUARTERS * cut->whole + 2 * halves;
        count = 2;
    }
    int64_t part = first % QUARTERS;
    return (dk_cut_task){.block = first / QUARTERS,
                         .begin = part * units / QUARTERS,
                         .end = (part + count) * units / QUARTERS};
}

/* Whole cache lines. */
static inline size_t dk_whole_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

#endif
