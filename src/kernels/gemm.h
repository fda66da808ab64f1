/* The matrix-multiply micro-kernel that linear layers, convolutions and attention share.
   One kernel computes a tile  C[mr][nr] (+)= A · B  from packed panels:
     A panel: [ceil(k / kg)][mr][kg],  B panel: [ceil(k / kg)][nr][kg],
   elements of `type` (f32, or bf16 with kg = 2), zero-padded in k, rows and columns; C is f32.
   Sums run over k in order, in f32. Source: Goto and van de Geijn, "Anatomy of High-Performance
   Matrix Multiplication" (2008). */
#ifndef DK_KERNELS_GEMM_H
#define DK_KERNELS_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* c: mr rows of nr columns, ldc elements apart. accumulate: add to what c holds. k > 0. */
typedef void dk_gemm_tile_fn(float *c, int64_t ldc, const void *a, const void *b, int64_t k,
                             bool accumulate);

/* Packs `rows` <= mr rows of k elements each (src type F32 or BF16) into one A panel.
   src_rows[r] points at the first element; NULL reads as a row of zeros. */
typedef void dk_gemm_pack_rows_fn(void *panel, const void *const *src_rows, dk_dtype src_type,
                                  int rows, int64_t k);

/* Packs `cols` <= nr rows of W (W is [cols][k], each row ld elements after the last; any float
   type) into one B panel: column n of B is row n of W. */
typedef void dk_gemm_pack_weight_fn(void *panel, const void *w, dk_dtype w_type, int64_t ld,
                                    int cols, int64_t k);

/* Packs a [k][cols] matrix (rows ld elements apart, F32 or BF16) into one B panel: B as it
   lies. Attention packs V with it. */
typedef void dk_gemm_pack_matrix_fn(void *panel, const void *src, dk_dtype src_type, int64_t ld,
                                    int cols, int64_t k);

typedef struct dk_gemm_kernel {
    const char *name; /* "avx2-f32-6x16" */
    dk_dtype type;    /* of the panels */
    int mr, nr, kg;
    dk_gemm_tile_fn *tile;
    dk_gemm_pack_rows_fn *pack_rows;
    dk_gemm_pack_weight_fn *pack_weight;
    dk_gemm_pack_matrix_fn *pack_matrix;
} dk_gemm_kernel;

typedef struct dk_gemm_kernels {
    dk_gemm_kernel f32; /* exact: used by --dtype f32 */
    dk_gemm_kernel
        bf16; /* for bf16 runs: bf16 panels where the CPU multiplies them, else f32 */
} dk_gemm_kernels;

void dk_gemm_kernels_init(dk_gemm_kernels *kernels, unsigned cpu_flags);

/* Bytes of a panel: A with mr rows (or B with nr columns) over k. */
static inline int64_t dk_gemm_panel_bytes(const dk_gemm_kernel *kernel, int width, int64_t k)
{
    int64_t groups = (k + kernel->kg - 1) / kernel->kg;
    return groups * kernel->kg * width * (int64_t)dk_dtype_bytes(kernel->type);
}

#endif
