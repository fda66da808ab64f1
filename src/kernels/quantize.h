/* Rows of floats as int8 with a scale for each row, and int32 sums of products back to floats.
   Symmetric quantisation, as in Dettmers et al., "LLM.int8()" (2022), without their outliers.
 */
#ifndef DK_KERNELS_QUANTIZE_H
#define DK_KERNELS_QUANTIZE_H

#include <stdint.h>

#include "tensor/dtype.h"

/* dst[r][c] = round(src[r][c] * 127 / top), scales[r] = top / 127, top = max_c |src[r][c]|; in
   f32, rounded to the nearest, halves to even: a value is close to scale * dst, and dst in
   [-127, 127]. A row whose top is below DK_QUANTIZE_LEAST becomes zeros of scale 0. In a row
   with an infinity or a NaN all is lost: it becomes zeros of scale NaN, so that the NaN reaches
   what is computed from it. The result is the same for every instruction set. */
typedef struct dk_quantize_args {
    int64_t cols;
    const void *src; /* [rows][cols], F32 or BF16 */
    dk_dtype src_type;
    int64_t src_stride; /* elements from row to row */
    int8_t *dst;        /* [rows][cols] */
    int64_t dst_stride;
    float *scales; /* [rows] */
} dk_quantize_args;

#define DK_QUANTIZE_LEAST 0x1p-100f

typedef void dk_quantize_rows_fn(const dk_quantize_args *args, int64_t row0, int64_t row1);

/* In place: tile[m][n], an int32, becomes the float tile[m][n] * row_scale[m] * col_scale[n].
   tile: rows of `cols` elements, ld elements apart. */
typedef void dk_rescale_fn(float *tile, int64_t ld, int rows, int cols, const float *row_scale,
                           const float *col_scale);

typedef struct dk_quantize_kernels {
    dk_quantize_rows_fn *quantize_rows;
    dk_rescale_fn *rescale;
} dk_quantize_kernels;

void dk_quantize_kernels_init(dk_quantize_kernels *kernels, unsigned cpu_flags);

#endif
