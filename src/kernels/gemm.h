/* The matrix-multiply micro-kernel that linear layers, convolutions and attention share.
   One kernel computes a tile  C[mr][nr] (+)= A · B  from packed operands:
     A: [ceil(k / a_group)][ld][a_group],  B: [ceil(k / b_unit)][nr][b_unit],
   elements of `type`, A zero-padded to a multiple of a_group in k, B to one of b_group; C is
   f32. A tile may sum over several parts, which read
   the same A from different rows: the taps of a convolution are such parts.
   Sums run over parts and k in order, in f32. Source: Goto and van de Geijn, "Anatomy of
   High-Performance Matrix Multiplication" (2008).

   The int8 kernels multiply whole numbers in [-127, 127]. Their C holds int32 in place of f32,
   and is exact while a sum stays below 2^31: parts * k <= DK_GEMM_INT8_DEPTH. Where an
   instruction takes A without a sign, A is stored with `a_excess` added, and each B panel
   starts with a header of nr int32 that takes it back: -a_excess times the sum of each column.
 */
#ifndef DK_KERNELS_GEMM_H
#define DK_KERNELS_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* The A operand of tiles: element i of row m in part p lies at
   data[((i / a_group) * ld + offset[p] + m) * a_group + i % a_group]. */
typedef struct dk_gemm_a {
    const void *data;
    int64_t ld;            /* rows from group to group */
    int64_t k;             /* depth of one part, > 0 */
    int parts;             /* >= 1 */
    const int64_t *offset; /* [parts]; NULL: one part at 0 */
} dk_gemm_a;

/* The tile of rows [row, row + mr) of A. c: mr rows of nr columns, ldc elements apart; b: the
   parts' B panels one behind the other. accumulate: add to what c holds. */
typedef void dk_gemm_tile_fn(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row,
                             const void *b, bool accumulate);

enum { DK_GEMM_PACK_ROWS = 16 };

/* Packs `count` <= DK_GEMM_PACK_ROWS rows of k elements each (F32 or BF16; int8 kernels: I8)
   into A; dst points at the first row's first group. src_rows[r] points at the first element;
   NULL reads as a row of zeros. */
typedef void dk_gemm_pack_rows_fn(void *dst, int64_t ld, const void *const *src_rows,
                                  dk_dtype src_type, int count, int64_t k);

/* Packs `cols` <= nr rows of W (W is [cols][k], each row ld elements after the last; F32 or
   BF16, int8 kernels: I8) into one B panel: column n of B is row n of W. */
typedef void dk_gemm_pack_weight_fn(void *panel, const void *w, dk_dtype w_type, int64_t ld,
                                    int cols, int64_t k);

/* Packs a [k][cols] matrix (rows ld elements apart, F32 or BF16) into one B panel: B as it
   lies. Attention packs V with it. */
typedef void dk_gemm_pack_matrix_fn(void *panel, const void *src, dk_dtype src_type, int64_t ld,
                                    int cols, int64_t k);

/* Rows of W as they lie in memory, F32 or BF16. */
typedef struct dk_gemm_rows {
    const void *data;
    dk_dtype type;
    int64_t row_bytes; /* from row to row */
    int count;         /* 1 to DK_GEMM_DIRECT_ROWS */
    int64_t k;
} dk_gemm_rows;

enum { DK_GEMM_DIRECT_ROWS = 48 };

/* C[count][nr] (+)= W · B with one B panel over k, for layers of so few rows that packing W
   would cost more than the multiplies: the layer's rows are packed as B, W is read where it
   lies. Of each row of C the first `cols` elements are wanted. c has room for
   DK_GEMM_DIRECT_ROWS rows, whatever the count; with `accumulate` all of it is defined. A
   kernel of BF16 panels takes BF16 rows only. */
typedef void dk_gemm_direct_fn(float *c, const dk_gemm_rows *w, const void *panel, int cols,
                               bool accumulate);

/* Around the tiles of one task on the thread that runs it: state that a kernel keeps in the
   processor. */
typedef void dk_gemm_state_fn(void);

/* 127 * 127 * DK_GEMM_INT8_DEPTH < 2^31. */
enum { DK_GEMM_INT8_DEPTH = 133000 };

typedef struct dk_gemm_kernel {
    const char *name;                     /* "avx2-f32-6x16" */
    dk_dtype type;                        /* of the panels */
    int mr, nr, a_group, b_group, b_unit; /* b_unit divides b_group */
    int slice;       /* elements of k whose B panel stays in the first-level cache; in groups */
    int a_excess;    /* int8: added to every element of A, 0 or 128 */
    bool packs_once; /* packing W costs as much as many rows' products: linear layers do it once
                        for all blocks of rows */
    int b_header;    /* bytes before the elements of a B panel, a multiple of 64 */
    dk_gemm_state_fn *begin, *end; /* NULL where there is none */
    dk_gemm_tile_fn *tile;
    dk_gemm_pack_rows_fn *pack_rows;
    dk_gemm_pack_weight_fn *pack_weight;
    dk_gemm_pack_matrix_fn *pack_matrix; /* int8: NULL */
    dk_gemm_direct_fn *direct;           /* NULL where there is none */
    int direct_most; /* rows of a layer up to which it beats packing W: measured */
} dk_gemm_kernel;

typedef struct dk_gemm_kernels {
    dk_gemm_kernel f32; /* exact: used by --dtype f32 */
    dk_gemm_kernel
        bf16; /* for bf16 runs: bf16 panels where the CPU multiplies them, else f32 */
    dk_gemm_kernel int8; /* whole numbers, exact */
} dk_gemm_kernels;

void dk_gemm_kernels_init(dk_gemm_kernels *kernels, unsigned cpu_flags);

static inline int64_t dk_gemm_round_up(int64_t value, int64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static inline void dk_gemm_begin(const dk_gemm_kernel *kernel)
{
    if (kernel->begin != NULL) {
        kernel->begin();
    }
}

static inline void dk_gemm_end(const dk_gemm_kernel *kernel)
{
    if (kernel->end != NULL) {
        kernel->end();
    }
}

/* Bytes of `rows` rows of A over k. */
static inline int64_t dk_gemm_a_bytes(const dk_gemm_kernel *kernel, int64_t rows, int64_t k)
{
    return dk_gemm_round_up(k, kernel->a_group) * rows * (int64_t)dk_dtype_bytes(kernel->type);
}

/* Bytes of one B panel over k, its header included. */
static inline int64_t dk_gemm_b_bytes(const dk_gemm_kernel *kernel, int64_t k)
{
    return kernel->b_header + dk_gemm_round_up(k, kernel->b_group) * kernel->nr *
                                  (int64_t)dk_dtype_bytes(kernel->type);
}

#endif
