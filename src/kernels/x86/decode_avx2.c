/* Decoding of stored weights. */
#include "kernels/x86/vec_avx2.h"

static inline vec load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* Half a float16's mantissa shorter: the upper byte of one. */
static inline vec load_f8_e5m2(const uint8_t *p)
{
    __m128i codes = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)p));
    return _mm256_cvtph_ps(_mm_slli_epi16(codes, 8));
}

static inline vec load_f8_e4m3(const uint8_t *p)
{
    __m256i codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi32(0x7f));
    __m256i sign = _mm256_slli_epi32(_mm256_xor_si256(codes, magnitude), 24);
    __m256i nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7f));
    vec n = _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_slli_epi32(magnitude, 20), _mm256_set1_epi32(120 << 23)));
    vec value = vec_min(n, vec_fma(vec_set(2.0f), n, vec_set(-0x1p-6f)));
    return _mm256_or_ps(value, _mm256_castsi256_ps(_mm256_or_si256(sign, nan)));
}

#define DECODE_F16     dk_decode_f16_avx2
#define DECODE_F8_E4M3 dk_decode_f8_e4m3_avx2
#define DECODE_F8_E5M2 dk_decode_f8_e5m2_avx2
#include "kernels/x86/decode_tmpl.h"
