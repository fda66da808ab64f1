/* Decoding over a vector vocabulary. The includer gives load_f16, load_f8_e4m3 and
   load_f8_e5m2, which decode VEC elements at an address, and defines DECODE_F16, DECODE_F8_E4M3
   and DECODE_F8_E5M2 as the names of the functions.

   E4M3 in two operations of f32, without denormals on the way, which some CPUs take a hundred
   cycles for: the code's bits become n, a normal number with the exponent e - 7, where exponent
   0 has the leading 1 that its value lacks. Then the value is min(n, 2 n - 2^-6): for e = 0 the
   second is n doubled without that 1; for e > 0, n >= 2^-6 and the second is not below n. Only
   codes s.1111.111 are NaN. */
#include <string.h>

#include "kernels/x86/decode_x86.h"

/* The last count < VEC elements, whose neighbours must not be touched. */
#define DECODE_REST(dst, src, count, unit, load)                                               \
    do {                                                                                       \
        unit rest_[VEC] = {0};                                                                 \
        float values_[VEC];                                                                    \
        memcpy(rest_, src, (size_t)(count) * sizeof(unit));                                    \
        vec_store(values_, load(rest_));                                                       \
        memcpy(dst, values_, (size_t)(count) * sizeof(float));                                 \
    } while (0)

void DECODE_F16(float *dst, const void *row, int64_t k0, int64_t count)
{
    const uint16_t *src = (const uint16_t *)row + k0;
    int64_t i = 0;
    for (; i + VEC <= count; i += VEC) {
        vec_store(dst + i, load_f16(src + i));
    }
    if (i < count) {
        DECODE_REST(dst + i, src + i, count - i, uint16_t, load_f16);
    }
}

void DECODE_F8_E4M3(float *dst, const void *row, int64_t k0, int64_t count)
{
    const uint8_t *src = (const uint8_t *)row + k0;
    int64_t i = 0;
    for (; i + VEC <= count; i += VEC) {
        vec_store(dst + i, load_f8_e4m3(src + i));
    }
    if (i < count) {
        DECODE_REST(dst + i, src + i, count - i, uint8_t, load_f8_e4m3);
    }
}

void DECODE_F8_E5M2(float *dst, const void *row, int64_t k0, int64_t count)
{
    const uint8_t *src = (const uint8_t *)row + k0;
    int64_t i = 0;
    for (; i + VEC <= count; i += VEC) {
        vec_store(dst + i, load_f8_e5m2(src + i));
    }
    if (i < count) {
        DECODE_REST(dst + i, src + i, count - i, uint8_t, load_f8_e5m2);
    }
}
