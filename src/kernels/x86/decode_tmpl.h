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

/* name: decodes elements that are stored as `unit` each. The last ones, fewer than VEC, whose
   neighbours must not be touched, pass through a small array. */
#define DECODE(name, unit, load)                                                               \
    void name(float *dst, const void *row, int64_t k0, int64_t count)                          \
    {                                                                                          \
        const unit *src = (const unit *)row + k0;                                              \
        unit rest[VEC] = {0};                                                                  \
        float values[VEC];                                                                     \
        for (; count >= VEC; count -= VEC, src += VEC, dst += VEC) {                           \
            vec_store(dst, load(src));                                                         \
        }                                                                                      \
        memcpy(rest, src, (size_t)count * sizeof *src);                                        \
        vec_store(values, load(rest));                                                         \
        memcpy(dst, values, (size_t)count * sizeof *dst);                                      \
    }

DECODE(DECODE_F16, uint16_t, load_f16)
DECODE(DECODE_F8_E4M3, uint8_t, load_f8_e4m3)
DECODE(DECODE_F8_E5M2, uint8_t, load_f8_e5m2)
