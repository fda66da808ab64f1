/* Decoding in plain C, and the table of stored types. */
#include "kernels/decode.h"

#include "kernels/x86/decode_x86.h"
#include "tensor/convert.h"

static void decode_elements(float *dst, const void *row, dk_dtype type, int64_t k0,
                            int64_t count)
{
    dk_convert_to_f32(dst, (const char *)row + (size_t)k0 * dk_dtype_bytes(type), type, count);
}

static void decode_f16_c(float *dst, const void *row, int64_t k0, int64_t count)
{
    decode_elements(dst, row, DK_F16, k0, count);
}

static void decode_f64_c(float *dst, const void *row, int64_t k0, int64_t count)
{
    decode_elements(dst, row, DK_F64, k0, count);
}

static void decode_f8_e4m3_c(float *dst, const void *row, int64_t k0, int64_t count)
{
    decode_elements(dst, row, DK_F8_E4M3, k0, count);
}

static void decode_f8_e5m2_c(float *dst, const void *row, int64_t k0, int64_t count)
{
    decode_elements(dst, row, DK_F8_E5M2, k0, count);
}

void dk_decode_kernels_init(dk_decode_kernels *kernels, unsigned cpu_flags)
{
    *kernels = (dk_decode_kernels){.of = {
                                       [DK_F32] = {1, 4, NULL},
                                       [DK_BF16] = {1, 2, NULL},
                                       [DK_F16] = {1, 2, decode_f16_c},
                                       [DK_F64] = {1, 8, decode_f64_c},
                                       [DK_F8_E4M3] = {1, 1, decode_f8_e4m3_c},
                                       [DK_F8_E5M2] = {1, 1, decode_f8_e5m2_c},
                                   }};
    dk_decode_kernels_init_x86(kernels, cpu_flags);
}
