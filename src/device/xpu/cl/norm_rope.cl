/* Norm and rotary embedding of queries and keys; kernels/norm.h says what is computed. */
#include "common.h"

/* RMS norm of a row, or of each head, then the rotation of neighbouring pairs; in place. */
#define NORM_ROPE(type)                                                                        \
    ONE_ROW_PER_SUB_GROUP kernel void norm_rope_##type(                                        \
        global type *data, global const float *weight, global const float *cosines,            \
        global const float *sines, int heads, int head_dim, int per_head, int rows,            \
        long stride, float eps, global const float *whole_squares, long whole_cols)            \
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
            bool own = weight != 0 && whole_squares == 0;                                      \
            for (int c = lane; own && c < cols; c += LANES) {                                  \
                float v = LOAD_##type(x[c]);                                                   \
                squares += v * v;                                                              \
            }                                                                                  \
            if (own) {                                                                         \
                factor = 1.0f / sqrt(sub_group_reduce_add(squares) / (float)cols + eps);       \
            } else if (weight != 0) {                                                          \
                factor = 1.0f / sqrt(whole_squares[r] / (float)whole_cols + eps);              \
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

/* The sum of the squares of a row's elements that are here. */
#define ROW_SQUARES(type)                                                                      \
    ONE_ROW_PER_SUB_GROUP kernel void row_squares_##type(                                      \
        global float *dst, global const type *data, int cols, int rows, long stride)           \
    {                                                                                          \
        int r = row_of_sub_group();                                                            \
        if (r >= rows) {                                                                       \
            return;                                                                            \
        }                                                                                      \
        int lane = get_sub_group_local_id();                                                   \
        float squares = 0;                                                                     \
        for (int c = lane; c < cols; c += LANES) {                                             \
            float v = LOAD_##type(data[r * stride + c]);                                       \
            squares += v * v;                                                                  \
        }                                                                                      \
        squares = sub_group_reduce_add(squares);                                               \
        if (lane == 0) {                                                                       \
            dst[r] = squares;                                                                  \
        }                                                                                      \
    }

NORM_ROPE(f32)
NORM_ROPE(bf16)
ROW_SQUARES(f32)
ROW_SQUARES(bf16)
