/* Rows as whole numbers. */
#include "common.h"

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

QUANTIZE_ROWS(f32)
QUANTIZE_ROWS(bf16)
