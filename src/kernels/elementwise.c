/* Element-wise work in plain C. */
#include "kernels/elementwise.h"

#include <math.h>

#include "kernels/x86/elementwise_x86.h"
#include "tensor/convert.h"

static float activate(float x, dk_activation activation)
{
    switch (activation) {
    case DK_ACT_SILU:
        return x / (1.0f + expf(-x));
    case DK_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    default:
        return x;
    }
}

static void map_c(void *dst, dk_dtype dst_type, const void *src, dk_dtype src_type,
                  dk_activation activation, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float x = src_type == DK_F32 ? ((const float *)src)[i]
                                     : dk_f32_from_bf16(((const uint16_t *)src)[i]);
        float y = activate(x, activation);
        if (dst_type == DK_F32) {
            ((float *)dst)[i] = y;
        } else {
            ((uint16_t *)dst)[i] = dk_bf16_from_f32(y);
        }
    }
}

static void combine_c(float *dst, const float *const *src, const float *coef, int terms,
                      int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float sum = coef[0] * src[0][i];
        for (int t = 1; t < terms; t++) {
            sum += coef[t] * src[t][i];
        }
        dst[i] = sum;
    }
}

void dk_elementwise_kernels_init(dk_elementwise_kernels *kernels, unsigned cpu_flags)
{
    kernels->map = map_c;
    kernels->combine = combine_c;
    dk_elementwise_kernels_init_x86(kernels, cpu_flags);
}
