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

/* Whole cache lines. */
static inline size_t dk_whole_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

#endif
