/* Conversion between element types. Formats: IEEE 754 binary16, bfloat16, OCP 8-bit floating
   point (E4M3FN, E5M2). */
#include "tensor/convert.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>

float dk_f32_from_f16(uint16_t value)
{
    int exponent = (value >> 10) & 0x1f;
    int mantissa = value & 0x3ff;
    float magnitude;
    if (exponent == 0x1f) {
        magnitude = mantissa != 0 ? NAN : INFINITY;
    } else if (exponent == 0) {
        magnitude = ldexpf((float)mantissa, -24);
    } else {
        magnitude = ldexpf((float)(mantissa | 0x400), exponent - 25);
    }
    return (value & 0x8000) != 0 ? -magnitude : magnitude;
}

uint16_t dk_f16_from_f32(float value)
{
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    float magnitude = fabsf(value);
    if (isnan(value)) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (magnitude >= 65520.0f) {
        return (uint16_t)(sign | 0x7c00);
    }
    if (magnitude < 6.103515625e-5f) { /* subnormal: units of 2^-24, rounded to even */
        return (uint16_t)(sign | (uint16_t)nearbyintf(ldexpf(magnitude, 24)));
    }
    int exponent;
    float fraction = frexpf(magnitude, &exponent); /* [0.5, 1) */
    int units = (int)nearbyintf(ldexpf(fraction, 11));
    if (units == 2048) {
        units = 1024;
        exponent++;
    }
    return (uint16_t)(sign | ((exponent + 14) << 10) | (units & 0x3ff));
}

float dk_f32_from_f8_e4m3(uint8_t value)
{
    int exponent = (value >> 3) & 0xf, mantissa = value & 7;
    float magnitude;
    if (exponent == 0xf && mantissa == 7) {
        magnitude = NAN;
    } else if (exponent == 0) {
        magnitude = ldexpf((float)mantissa, -9);
    } else {
        magnitude = ldexpf((float)(mantissa | 8), exponent - 10);
    }
    return (value & 0x80) != 0 ? -magnitude : magnitude;
}

float dk_f32_from_f8_e5m2(uint8_t value)
{
    return dk_f32_from_f16((uint16_t)(value << 8));
}

/* A float of one byte: codes grow with magnitude, so a carry out of the mantissa lands in the
   exponent. Above `largest` comes `over`. */
static uint8_t f8_from_f32(float value, int mantissa_bits, int bias, int largest, int over)
{
    int sign = signbit(value) ? 0x80 : 0, exponent;
    if (isnan(value)) {
        return (uint8_t)(sign | 0x7f);
    }
    if (isinf(value)) {
        return (uint8_t)(sign | over);
    }
    frexpf(value, &exponent); /* value = [0.5, 1) * 2^exponent */
    exponent = value == 0 || exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;
    int units = (int)fminf(nearbyintf(ldexpf(fabsf(value), mantissa_bits - exponent)), 256.0f);
    int code = ((exponent + bias - 1) << mantissa_bits) + units;
    return (uint8_t)(sign | (code > largest ? over : code));
}

/* As PyTorch: what is too large becomes NaN in E4M3FN, infinity in E5M2. */
static uint8_t f8_e4m3_from_f32(float value)
{
    return f8_from_f32(value, 3, 7, 0x7e, 0x7f);
}

static uint8_t f8_e5m2_from_f32(float value)
{
    return f8_from_f32(value, 2, 15, 0x7b, 0x7c);
}

/* A file's data may lie at odd addresses. */
static uint16_t load_u16(const void *src, int64_t i)
{
    uint16_t value;
    memcpy(&value, (const char *)src + (size_t)i * sizeof value, sizeof value);
    return value;
}

void dk_convert_to_f32(float *dst, const void *src, dk_dtype src_dtype, int64_t count)
{
    switch (src_dtype) {
    case DK_F32:
        memcpy(dst, src, (size_t)count * sizeof *dst);
        break;
    case DK_BF16:
        for (int64_t i = 0; i < count; i++) {
            dst[i] = dk_f32_from_bf16(load_u16(src, i));
        }
        break;
    case DK_F16:
        for (int64_t i = 0; i < count; i++) {
            dst[i] = dk_f32_from_f16(load_u16(src, i));
        }
        break;
    case DK_F64:
        for (int64_t i = 0; i < count; i++) {
            double value;
            memcpy(&value, (const char *)src + (size_t)i * sizeof value, sizeof value);
            dst[i] = (float)value;
        }
        break;
    case DK_F8_E4M3:
        for (int64_t i = 0; i < count; i++) {
            dst[i] = dk_f32_from_f8_e4m3(((const uint8_t *)src)[i]);
        }
        break;
    case DK_F8_E5M2:
        for (int64_t i = 0; i < count; i++) {
            dst[i] = dk_f32_from_f8_e5m2(((const uint8_t *)src)[i]);
        }
        break;
    default:
        assert(false && "not a float type");
    }
}

void dk_convert_from_f32(void *dst, dk_dtype dst_dtype, const float *src, int64_t count)
{
    switch (dst_dtype) {
    case DK_F32:
        memcpy(dst, src, (size_t)count * sizeof *src);
        break;
    case DK_BF16:
        for (int64_t i = 0; i < count; i++) {
            ((uint16_t *)dst)[i] = dk_bf16_from_f32(src[i]);
        }
        break;
    case DK_F16:
        for (int64_t i = 0; i < count; i++) {
            ((uint16_t *)dst)[i] = dk_f16_from_f32(src[i]);
        }
        break;
    case DK_F8_E4M3:
        for (int64_t i = 0; i < count; i++) {
            ((uint8_t *)dst)[i] = f8_e4m3_from_f32(src[i]);
        }
        break;
    case DK_F8_E5M2:
        for (int64_t i = 0; i < count; i++) {
            ((uint8_t *)dst)[i] = f8_e5m2_from_f32(src[i]);
        }
        break;
    default:
        assert(false && "not a type that f32 is converted to");
    }
}
