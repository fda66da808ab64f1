/* Decoding of stored weights. */
#include "kernels/x86/vec_avx512.h"

static inline vec load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* Half a float16's mantissa shorter: the upper byte of one. */
static inline vec load_f8_e5m2(const uint8_t *p)
{
    __m256i codes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm512_cvtph_ps(_mm256_slli_epi16(codes, 8));
}

static inline vec load_f8_e4m3(const uint8_t *p)
{
    __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m512i magnitude = _mm512_and_si512(codes, _mm512_set1_epi32(0x7f));
    __m512i sign = _mm512_slli_epi32(_mm512_xor_si512(codes, magnitude), 24);
    __mmask16 nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x7f));
    vec n = _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_slli_epi32(magnitude, 20), _mm512_set1_epi32(120 << 23)));
    vec value = vec_min(n, vec_fma(vec_set(2.0f), n, vec_set(-0x1p-6f)));
    __m512i bits = _mm512_or_si512(_mm512_castps_si512(value), sign);
    return _mm512_castsi512_ps(_mm512_mask_set1_epi32(bits, nan, 0x7fc00000));
}

#define DECODE_F16     dk_decode_f16_avx512
#define DECODE_F8_E4M3 dk_decode_f8_e4m3_avx512
#define DECODE_F8_E5M2 dk_decode_f8_e5m2_avx512
#include "kernels/x86/decode_tmpl.h"
