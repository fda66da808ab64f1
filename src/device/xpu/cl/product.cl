/* A matrix product of our own: what stands in for a product of oneDNN's that gave wrong numbers,
   or is not to be trusted. Plain f32 sums; slow, and the same on every device. */
#include "common.h"

#define TILE 16

/* sums[rows][cols] = src[rows][depth] W^T + bias, W [cols][depth]; work-groups of TILE x TILE. */
#define PRODUCT(src_type, weight_type)                                                         \
    __attribute__((reqd_work_group_size(TILE, TILE, 1))) kernel void                           \
    product_##src_type##_##weight_type(                                                        \
        global float *sums, global const src_type *src, global const weight_type *weight,      \
        global const float *bias, int rows, int cols, int depth, long stride)                  \
    {                                                                                          \
        local float a[TILE][TILE + 1], b[TILE][TILE + 1];                                      \
        int x = get_local_id(0), y = get_local_id(1);                                          \
        int col = get_group_id(0) * TILE + x, row = get_group_id(1) * TILE + y;                \
        int other = get_group_id(0) * TILE + y;                                                \
        float sum = 0;                                                                         \
        for (int k = 0; k < depth; k += TILE) {                                                \
            bool inside = k + x < depth;                                                       \
            a[y][x] = inside && row < rows ? LOAD_##src_type(src[row * stride + k + x]) : 0;   \
            b[y][x] = inside && other < cols                                                   \
                          ? LOAD_##weight_type(weight[(long)other * depth + k + x])            \
                          : 0;                                                                 \
            barrier(CLK_LOCAL_MEM_FENCE);                                                      \
            for (int i = 0; i < TILE; i++) {                                                   \
                sum += a[y][i] * b[x][i];                                                      \
            }                                                                                  \
            barrier(CLK_LOCAL_MEM_FENCE);                                                      \
        }                                                                                      \
        if (row < rows && col < cols) {                                                        \
            sums[(long)row * cols + col] = bias != 0 ? sum + bias[col] : sum;                  \
        }                                                                                      \
    }

/* A convolution: sums[frames][height][width][out] of a contiguous channels-last clip, W [out][in]
   [kt][kh][kw]; a work-item each. Dimensions: out, pixels, frames. */
#define CONVOLVE(src_type, weight_type)                                                        \
    kernel void convolve_##src_type##_##weight_type(                                           \
        global float *sums, global const src_type *src, global const weight_type *weight,      \
        global const float *bias, int in, int out, int in_height, int in_width, int height,    \
        int width, int kt, int kh, int kw, int stride_t, int stride, int top, int left)        \
    {                                                                                          \
        int o = get_global_id(0), pixel = get_global_id(1), t = get_global_id(2);              \
        if (o >= out || pixel >= height * width) {                                             \
            return;                                                                            \
        }                                                                                      \
        int y0 = pixel / width * stride - top, x0 = pixel % width * stride - left;             \
        float sum = bias != 0 ? bias[o] : 0;                                                   \
        for (int tap = 0; tap < kt * kh * kw; tap++) {                                         \
            int y = y0 + tap / kw % kh, x = x0 + tap % kw;                                     \
            long frame = t * stride_t + tap / (kh * kw);                                       \
            if (y < 0 || y >= in_height || x < 0 || x >= in_width) {                           \
                continue;                                                                      \
            }                                                                                  \
            global const src_type *p = src + ((frame * in_height + y) * in_width + x) * in;    \
            global const weight_type *w = weight + (long)o * in * kt * kh * kw + tap;          \
            for (int c = 0; c < in; c++) {                                                     \
                sum += LOAD_##src_type(p[c]) * LOAD_##weight_type(w[c * kt * kh * kw]);        \
            }                                                                                  \
        }                                                                                      \
        sums[((long)t * height * width + pixel) * out + o] = sum;                              \
    }

PRODUCT(f32, f32)
PRODUCT(f32, bf16)
PRODUCT(bf16, f32)
PRODUCT(bf16, bf16)

CONVOLVE(f32, f32)
CONVOLVE(f32, bf16)
CONVOLVE(bf16, f32)
CONVOLVE(bf16, bf16)
