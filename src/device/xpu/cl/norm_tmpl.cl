/* Normalisation of rows, a sub-group each; kernels/norm.h says what is computed. */
#include "common.h"

enum { LAYER, RMS, L2 }; /* dk_norm_kind */

/* What a row is multiplied by, from the sum of its squares. */
static inline float factor_of(int kind, float squares, int cols, float eps)
{
    if (kind == L2) {
        return sqrt((float)cols) / fmax(sqrt(squares), eps);
    }
    return 1.0f / sqrt(squares / (float)cols + eps);
}

/* The row's end: one loop for each activation, since a choice inside of it would have its lanes
   compute them all. */
#define NORM_END(to, from, finish)                                                             \
    for (int c = lane; c < cols; c += LANES) {                                                 \
        float v = (LOAD_##from(x[c]) - mean) * factor;                                         \
        v = weight != 0 ? v * weight[c] : v;                                                   \
        v = bias != 0 ? v + bias[c] : v;                                                       \
        v = scale != 0 ? v * (1.0f + scale[m + c]) : v;                                        \
        v = shift != 0 ? v + shift[m + c] : v;                                                 \
        y[c] = STORE_##to(finish(v));                                                          \
    }

#define NORM(to, from)                                                                         \
    ONE_ROW_PER_SUB_GROUP kernel void norm_##to##_##from(                                      \
        global to *dst, global const from *src, global const float *weight,                    \
        global const float *bias, global const float *scale, global const float *shift,        \
        int kind, int activation, int rows, int cols, long modulation_stride, float eps)       \
    {                                                                                          \
        int r = row_of_sub_group(), lane = get_sub_group_local_id();                           \
        if (r >= rows) {                                                                       \
            return;                                                                            \
        }                                                                                      \
        global const from *x = src + (long)r * cols;                                           \
        global to *y = dst + (long)r * cols;                                                   \
        float mean = 0, squares = 0;                                                           \
        if (kind == LAYER) {                                                                   \
            for (int c = lane; c < cols; c += LANES) {                                         \
                mean += LOAD_##from(x[c]);                                                     \
            }                                                                                  \
            mean = sub_group_reduce_add(mean) / (float)cols;                                   \
        }                                                                                      \
        for (int c = lane; c < cols; c += LANES) {                                             \
            float v = LOAD_##from(x[c]) - mean;                                                \
            squares += v * v;                                                                  \
        }                                                                                      \
        float factor = factor_of(kind, sub_group_reduce_add(squares), cols, eps);              \
        long m = r * modulation_stride;                                                        \
        if (activation == SILU) {                                                              \
            NORM_END(to, from, silu)                                                           \
        } else if (activation == GELU_TANH) {                                                  \
            NORM_END(to, from, gelu_tanh)                                                      \
        } else {                                                                               \
            NORM_END(to, from, )                                                               \
        }                                                                                      \
    }
