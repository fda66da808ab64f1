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
            for (int c = lane; c < cols; c += LANES) {                                        \
                mean += LOAD_##from(x[c]);                                                     \
            }                                                                                  \
            mean = sub_group_reduce_add(mean) / (float)cols;                                   \
        }                                                                                      \
        for (int c = lane; c < cols; c += LANES) {                                            \
            float v = LOAD_##from(x[c]) - mean;                                                \
            squares += v * v;                                                                  \
        }                                                                                      \
        float factor = factor_of(kind, sub_group_reduce_add(squares), cols, eps);              \
        long m = r * modulation_stride;                                                        \
        for (int c = lane; c < cols; c += LANES) {                                            \
            float v = (LOAD_##from(x[c]) - mean) * factor;                                     \
            v = weight != 0 ? v * weight[c] : v;                                               \
            v = bias != 0 ? v + bias[c] : v;                                                   \
            v = scale != 0 ? v * (1.0f + scale[m + c]) : v;                                    \
            v = shift != 0 ? v + shift[m + c] : v;                                             \
            y[c] = STORE_##to(activate(v, activation));                                        \
        }                                                                                      \
    }

/* RMS norm of a row, or of each head, then the rotation of neighbouring pairs; in place. */
#define NORM_ROPE(type)                                                                        \
    ONE_ROW_PER_SUB_GROUP kernel void norm_rope_##type(                                        \
        global type *data, global const float *weight, global const float *cosines,            \
        global const float *sines, int heads, int head_dim, int per_head, int rows,            \
        long stride, float eps)                                                                \
    {                                                                                          \
        int r = row_of_sub_group();                                                            \
        if (r >= rows) {                                                                       \
            return;                                                                            \
        }                                                                                      \
        int lane = get_sub_group_local_id(), pairs = head_dim / 2;                             \
        int parts = per_head ? heads : 1, cols = heads * head_dim / parts;                     \
        for (int part = 0; part < parts; part++) {                                             \
            global type *x = data + r * stride + part * cols;                                  \
            float squares = 0, factor = 1;                                                     \
            for (int c = lane; weight != 0 && c < cols; c += LANES) {                          \
                float v = LOAD_##type(x[c]);                                                   \
                squares += v * v;                                                              \
            }                                                                                  \
            if (weight != 0) {                                                                 \
                factor = 1.0f / sqrt(sub_group_reduce_add(squares) / (float)cols + eps);       \
            }                                                                                  \
            for (int p = lane; p < cols / 2; p += LANES) {                                     \
                float a = LOAD_##type(x[2 * p]), b = LOAD_##type(x[2 * p + 1]);                \
                if (weight != 0) {                                                             \
                    a = a * factor * weight[2 * p];                                            \
                    b = b * factor * weight[2 * p + 1];                                        \
                }                                                                              \
                float u = a, v = b;                                                            \
                if (cosines != 0) {                                                            \
                    float c = cosines[r * pairs + p % pairs];                                  \
                    float s = sines[r * pairs + p % pairs];                                    \
                    u = a * c - b * s;                                                         \
                    v = b * c + a * s;                                                         \
                }                                                                              \
                x[2 * p] = STORE_##type(u);                                                    \
                x[2 * p + 1] = STORE_##type(v);                                                \
            }                                                                                  \
            if (cols % 2 != 0 && weight != 0 && lane == 0) { /* nothing is rotated then */     \
                x[cols - 1] =                                                                  \
                    STORE_##type(LOAD_##type(x[cols - 1]) * factor * weight[cols - 1]);        \
            }                                                                                  \
        }                                                                                      \
    }

/* Whole numbers in [-127, 127] and the scale of each row: value = number * scale. */
#define QUANTIZE_ROWS(type)                                                                    \
    ONE_ROW_PER_SUB_GROUP kernel void quantize_rows_##type(                                    \
        global char *dst, global float *scales, global const type *src, int rows, int cols,    \
        long stride)                                                                           \
    {                                                                                          \
        int r = row_of_sub_group(), lane = get_sub_group_local_id();                           \
        if (r >= rows) {                                                                       \
            return;                                                                            \
        }                                                                                      \
        global const type *x = src + (long)r * stride;                                         \
        global char *y = dst + (long)r * cols;                                                 \
        float most = 0;                                                                        \
        for (int c = lane; c < cols; c += LANES) {                                             \
            most = fmax(most, fabs(LOAD_##type(x[c])));                                        \
        }                                                                                      \
        most = sub_group_reduce_max(most);                                                     \
        float scale = most > 0 ? most / 127.0f : 1.0f;                                         \
        for (int c = lane; c < cols; c += LANES) {                                             \
            y[c] = convert_char_sat_rte(LOAD_##type(x[c]) / scale);                            \
        }                                                                                      \
        if (lane == 0) {                                                                       \
            scales[r] = scale;                                                                 \
        }                                                                                      \
    }

NORM(f32, f32)
NORM(f32, bf16)
NORM(bf16, f32)
NORM(bf16, bf16)

NORM_ROPE(f32)
NORM_ROPE(bf16)

QUANTIZE_ROWS(f32)
QUANTIZE_ROWS(bf16)
