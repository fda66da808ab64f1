/* Conversion between element types, all round to nearest even. */
#ifndef DK_TENSOR_CONVERT_H
#define DK_TENSOR_CONVERT_H

#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

static inline float dk_f32_from_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static inline uint16_t dk_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((bits >> 16) | 0x40u); /* quiet NaN */
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float dk_f32_from_f16(uint16_t value);
uint16_t dk_f16_from_f32(float value);
float dk_f32_from_f8_e4m3(uint8_t value); /* OCP E4M3FN: no infinities */
float dk_f32_from_f8_e5m2(uint8_t value);

/* count elements of any float type to f32, and f32 to every one but F64. No overlap; src of the
   first may lie at any address. */
void dk_convert_to_f32(float *dst, const void *src, dk_dtype src_dtype, int64_t count);
void dk_convert_from_f32(void *dst, dk_dtype dst_dtype, const float *src, int64_t count);

#endif
