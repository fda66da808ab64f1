/* Quantisation in plain C. */
#include "kernels/quantize.h"

#include <math.h>
#include <stdbool.h>

#include "kernels/x86/quantize_x86.h"
#include "tensor/convert.h"

static float load(const void *base, dk_dtype type, int64_t i)
{
    return type == DK_F32 ? ((const float *)base)[i]
                          : dk_f32_from_bf16(((const uint16_t *)base)[i]);
}

static void quantize_rows_c(const dk_quantize_args *args, int64_t row0, int64_t row1)
{
    for (int64_t row = row0; row < row1; row++) {
        int64_t start = row * args->src_stride;
        int8_t *dst = args->dst + row * args->dst_stride;
        float top = 0.0f, lost = 0.0f; /* lost: NaN after a NaN or an infinity */
        for (int64_t i = 0; i < args->cols; i++) {
            float x = load(args->src, args->src_type, start + i);
            top = fabsf(x) > top ? fabsf(x) : top;
            lost += x * 0.0f;
        }
        bool zero = isnan(lost) || top < DK_QUANTIZE_LEAST;
        float factor = zero ? 0.0f : 127.0f / top;
        args->scales[row] = isnan(lost) ? NAN : zero ? 0.0f : top / 127.0f;
        for (int64_t i = 0; i < args->cols; i++) {
            float x = zero ? 0.0f : load(args->src, args->src_type, start + i);
            dst[i] = (int8_t)rintf(x * factor);
        }
    }
}

static void rescale_c(float *tile, int64_t ld, int rows, int cols, const float *row_scale,
                      const float *col_scale)
{
    for (int m = 0; m < rows; m++) {
        for (int n = 0; n < cols; n++) {
            int32_t sum;
            memcpy(&sum, &tile[m * ld + n], sizeof sum);
            tile[m * ld + n] = (float)sum * row_scale[m] * col_scale[n];
        }
    }
}

void dk_quantize_kernels_init(dk_quantize_kernels *kernels, unsigned cpu_flags)
{
    kernels->quantize_rows = quantize_rows_c;
    kernels->rescale = rescale_c;
    dk_quantize_kernels_init_x86(kernels, cpu_flags);
}
