/* Queries and keys as whole numbers, for attention's scores: kernels/attention.h says what SAGE
   computes, kernels/quantize.h how rows are quantised. */
#include "common.h"

#define SIDE 16

/* dst[col] = the mean of a column of src [rows][cols]; work-groups of SIDE x SIDE: columns, and
   rows that are summed side by side. */
#define MEAN(type)                                                                             \
    __attribute__((reqd_work_group_size(SIDE, SIDE, 1))) kernel void sage_mean_##type(         \
        global float *dst, global const type *src, long rows, int cols, long stride)           \
    {                                                                                          \
        local float sums[SIDE][SIDE];                                                          \
        int x = get_local_id(0), y = get_local_id(1), col = get_group_id(0) * SIDE + x;        \
        float sum = 0;                                                                         \
        for (long r = y; r < rows && col < cols; r += SIDE) {                                  \
            sum += LOAD_##type(src[r * stride + col]);                                         \
        }                                                                                      \
        sums[y][x] = sum;                                                                      \
        barrier(CLK_LOCAL_MEM_FENCE);                                                          \
        if (y == 0 && col < cols) {                                                            \
            for (int i = 1; i < SIDE; i++) {                                                   \
                sum += sums[i][x];                                                             \
            }                                                                                  \
            dst[col] = sum / (float)rows;                                                      \
        }                                                                                      \
    }

MEAN(f32)
MEAN(bf16)

#define LEAST 0x1p-100f /* DK_QUANTIZE_LEAST */

#define i8            char
#define STORE_i8(x)   convert_char_sat_rte(x)

/* Rows of heads of src [count][heads * dim], a sub-group each: whole numbers in [-127, 127] and
   their scales [heads][count], after taking the mean [heads * dim] off where `centred`. lost, or
   0: what that takes from every score of a query, [heads][count]. An infinity or a NaN makes the
   scale a NaN. */
#define ROWS(to, type)                                                                         \
    ONE_ROW_PER_SUB_GROUP kernel void sage_rows_##to##_##type(                                 \
        global to *dst, global float *scales, global float *lost, global const type *src,      \
        global const float *mean, int centred, float scale, int count, int heads, int dim,     \
        long stride)                                                                           \
    {                                                                                          \
        int row = row_of_sub_group(), lane = get_sub_group_local_id();                         \
        if (row >= count * heads) {                                                            \
            return;                                                                            \
        }                                                                                      \
        int r = row / heads, h = row % heads;                                                  \
        global const type *x = src + r * stride + (long)h * dim;                               \
        global const float *m = mean + (long)h * dim;                                          \
        global to *y = dst + (long)row * dim;                                                  \
        float most = 0, dot = 0, odd = 0;                                                      \
        for (int c = lane; c < dim; c += LANES) {                                              \
            float v = LOAD_##type(x[c]);                                                       \
            dot += v * m[c];                                                                   \
            v = centred ? v - m[c] : v;                                                        \
            most = fmax(most, fabs(v));                                                        \
            odd += v - v; /* 0, or a NaN */                                                    \
        }                                                                                      \
        most = sub_group_reduce_max(most);                                                     \
        dot = sub_group_reduce_add(dot);                                                       \
        odd = sub_group_reduce_add(odd);                                                       \
        bool nothing = most < LEAST || isnan(odd);                                             \
        float factor = nothing ? 0.0f : 127.0f / most;                                         \
        for (int c = lane; c < dim; c += LANES) {                                              \
            float v = LOAD_##type(x[c]);                                                       \
            v = centred ? v - m[c] : v;                                                        \
            y[c] = STORE_##to(nothing ? 0.0f : rint(v * factor));                              \
        }                                                                                      \
        if (lane == 0) {                                                                       \
            scales[(long)h * count + r] = nothing ? odd : most / 127.0f;                       \
        }                                                                                      \
        if (lane == 0 && lost != 0) {                                                          \
            lost[(long)h * count + r] = dot * scale;                                           \
        }                                                                                      \
    }

ROWS(i8, f32)
ROWS(i8, bf16)
ROWS(f32, f32)
ROWS(f32, bf16)
ROWS(bf16, f32)
ROWS(bf16, bf16)
