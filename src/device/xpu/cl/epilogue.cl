/* What follows products whose results are f32 in scratch. */
#include "common.h"

/* What follows a matrix product whose result is f32 in scratch, sums [rows][cols]:
   y = activation(sum * row_scale + bias); y *= multiply; y *= gate; y += residual; absent operands are NULL. Row r
   of dst (multiply, residual) lies at r / block * block_stride + r % block * stride. */
#define EPILOGUE(type)                                                                         \
    kernel void epilogue_##type(global type *dst, global const float *sums,                    \
                                global const float *row_scale, global const float *bias,       \
                                global const type *multiply, global const float *gate,         \
                                global const type *residual, int activation, long rows,        \
                                long cols, long gate_stride, long block, long block_stride,    \
                                long stride)                                                   \
    {                                                                                          \
        long c = get_global_id(0), r = get_global_id(1);                                       \
        if (c >= cols || r >= rows) {                                                          \
            return;                                                                            \
        }                                                                                      \
        long at = r / block * block_stride + r % block * stride + c;                           \
        float y = sums[r * cols + c];                                                          \
        y = row_scale != 0 ? y * row_scale[r] : y;                                             \
        y = bias != 0 ? y + bias[c] : y;                                                       \
        y = activate(y, activation);                                                           \
        y = multiply != 0 ? y * LOAD_##type(multiply[at]) : y;                                 \
        y = gate != 0 ? y * gate[r * gate_stride + c] : y;                                     \
        y = residual != 0 ? y + LOAD_##type(residual[at]) : y;                                 \
        dst[at] = STORE_##type(y);                                                             \
    }

EPILOGUE(f32)
EPILOGUE(bf16)
