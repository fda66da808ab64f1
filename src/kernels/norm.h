/* Normalisation over rows, with the modulation and activation that follow it, in one pass. */
#ifndef DK_KERNELS_NORM_H
#define DK_KERNELS_NORM_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/linear.h"
#include "tensor/dtype.h"

typedef enum dk_norm_kind {
    DK_NORM_LAYER, /* (x - mean) / sqrt(variance + eps), biased variance */
    DK_NORM_RMS,   /* x / sqrt(mean(x^2) + eps) */
    DK_NORM_L2,    /* x / max(sqrt(sum(x^2)), eps) * sqrt(cols): the Wan VAE's RMS norm */
} dk_norm_kind;

/* y = norm(src); y = y * weight + bias; y = y * (1 + scale) + shift; dst = act(y).
   Absent operands are NULL. Sums in f32 (LAYER: mean first, then the squared differences). */
typedef struct dk_norm_args {
    dk_norm_kind kind;
    dk_activation activation;
    int64_t rows, cols;
    const void *src; /* [rows][cols], F32 or BF16; may be dst when the types are equal */
    dk_dtype src_type;
    void *dst;
    dk_dtype dst_type;
    const float *weight, *bias; /* [cols] */
    const float *scale, *shift; /* row r at r * modulation_stride (0: one for all) */
    int64_t modulation_stride;
    float eps;
} dk_norm_args;

/* The factor that a row is multiplied by, from the sum of the squares of its (centred) values.
 */
static inline float dk_norm_factor(const dk_norm_args *args, float squares)
{
    float n = (float)args->cols;
    if (args->kind == DK_NORM_L2) {
        float length = sqrtf(squares);
        return sqrtf(n) / (length > args->eps ? length : args->eps);
    }
    return 1.0f / sqrtf(squares / n + args->eps);
}

typedef void dk_norm_fn(const dk_norm_args *args, int64_t row0, int64_t row1);

/* q and k after their projection: RMS norm over the whole row (or per head), then rotary
   position embedding of adjacent pairs (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin).
   In place; row r uses tables cos/sin [rows][head_dim / 2]; NULL tables: norm only. */
typedef struct dk_norm_rope_args {
    int64_t rows;
    int heads, head_dim;
    bool per_head; /* norm over each head instead of the whole row */
    void *data;    /* [rows][heads * head_dim], F32 or BF16 */
    dk_dtype type;
    int64_t stride;      /* elements from row to row */
    const float *weight; /* [heads * head_dim] ([head_dim] when per_head); NULL: no norm */
    float eps;
    const float *cos, *sin;
    /* Where these heads are a part of rows whose others are elsewhere: the sum of the squares
       of each whole row of whole_cols elements, [rows]. NULL: rows are whole. Not with
       per_head. */
    const float *squares;
    int64_t whole_cols;
} dk_norm_rope_args;

typedef void dk_norm_rope_fn(const dk_norm_rope_args *args, int64_t row0, int64_t row1);

/* squares[r] = the sum of the squares of row r of args->data, for such parts of rows. */
typedef void dk_row_squares_fn(const dk_norm_rope_args *args, float *squares, int64_t row0,
                               int64_t row1);

/* The factor of row r, whose own elements' squares have the sum given, where rows are normed as
   a whole. */
static inline float dk_norm_rope_factor(const dk_norm_rope_args *args, int64_t row, float own)
{
    float cols = (float)((int64_t)args->heads * args->head_dim);
    return args->squares != NULL
               ? 1.0f / sqrtf(args->squares[row] / (float)args->whole_cols + args->eps)
               : 1.0f / sqrtf(own / cols + args->eps);
}

typedef struct dk_norm_kernels {
    dk_norm_fn *norm;
    dk_norm_rope_fn *norm_rope;
    dk_row_squares_fn *row_squares;
} dk_norm_kernels;

void dk_norm_kernels_init(dk_norm_kernels *kernels, unsigned cpu_flags);

#endif
