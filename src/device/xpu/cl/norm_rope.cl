/* Norm and rotary embedding of queries and keys; kernels/norm.h says what is computed. */
#include "common.h"

/* Pairs of bf16 are 32 bits where they lie so: lanes then read and write one piece. */
#define PAIR_f32(at)              vload2(0, at)
#define PAIR_bf16(at)             (even ? pair_of(*(global const uint *)(at)) : loose_pair(at))
#define KEEP_PAIR_f32(value, at)  vstore2(value, 0, at)
#define KEEP_PAIR_bf16(value, at)                                                              \
    if (even) {                                                                                \
        *(global uint *)(at) = bits_of(value);                                                 \
    } else {                                                                                   \
        (at)[0] = bf16_from_f32(value.x);                                                      \
        (at)[1] = bf16_from_f32(value.y);                                                      \
    }

static inline float2 pair_of(uint bits)
{
    return (float2)(as_float(bits << 16), as_float(bits & 0xffff0000));
}

static inline float2 loose_pair(global const bf16 *at)
{
    return (float2)(f32_from_bf16(at[0]), f32_from_bf16(at[1]));
}

static inline uint bits_of(float2 pair)
{
    return (uint)bf16_from_f32(pair.x) | (uint)bf16_from_f32(pair.y) << 16;
}

/* RMS norm of a row, or of each head, then the rotation of neighbouring pairs; in place. Nothing
   is rotated when head_dim is odd. even: every row begins at an even element of whole words. */
#define NORM_ROPE(type)                                                                        \
    ONE_ROW_PER_SUB_GROUP kernel void norm_rope_##type(                                        \
        global type *data, global const float *weight, global const float *cosines,            \
        global const float *sines, int heads, int head_dim, int per_head, int rows,            \
        int even, long stride, float eps, global const float *whole_squares, long whole_cols)  \
    {                                                                                          \
        int r = row_of_sub_group();                                                            \
        if (r >= rows) {                                                                       \
            return;                                                                            \
        }                                                                                      \
        int lane = get_sub_group_local_id(), pairs = head_dim / 2;                             \
        (void)even; /* of f32 */                                                               \
        int parts = per_head ? heads : 1, cols = heads * head_dim / parts;                     \
        global const float *cos_row = cosines + (long)r * pairs;                               \
        global const float *sin_row = sines + (long)r * pairs;                                 \
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
            if (cosines == 0) {                                                                \
                for (int c = lane; weight != 0 && c < cols; c += LANES) {                      \
                    x[c] = STORE_##type(LOAD_##type(x[c]) * factor * weight[c]);               \
                }                                                                              \
                continue;                                                                      \
            }                                                                                  \
            for (int head = 0; head < cols; head += head_dim) {                                \
                for (int p = lane; p < pairs; p += LANES) {                                    \
                    int c = head + 2 * p;                                                      \
                    float2 v = PAIR_##type(x + c);                                             \
                    if (weight != 0) {                                                         \
                        v = v * factor * vload2(0, weight + c);                                \
                    }                                                                          \
                    float2 turned = (float2)(v.x * cos_row[p] - v.y * sin_row[p],              \
                                             v.y * cos_row[p] + v.x * sin_row[p]);             \
                    KEEP_PAIR_##type(turned, x + c);                                           \
                }                                                                              \
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
