/* 8 x 8 transpose of 32-bit units, held as floats, and stores of a part: what the AVX2 kernels
   pack with. Included only by files compiled for AVX2. */
#ifndef DK_KERNELS_X86_TRANSPOSE_AVX2_H
#define DK_KERNELS_X86_TRANSPOSE_AVX2_H

#include "kernels/x86/vec_avx2.h"

static inline void dk_transpose_8x8(__m256 r[8])
{
    __m256 t[8], s[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        s[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        s[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        s[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        s[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x31);
    }
}

/* The first n units of a vector, all of them from 8 on. */
static inline void dk_store_some(float *dst, __m256 value, int n)
{
    if (n >= 8) {
        _mm256_storeu_ps(dst, value);
        return;
    }
    __m128 part = _mm256_castps256_ps128(value);
    if (n & 4) {
        _mm_storeu_ps(dst, part);
        part = _mm256_extractf128_ps(value, 1);
        dst += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)(void *)dst, part);
        part = _mm_movehl_ps(part, part);
        dst += 2;
    }
    if (n & 1) {
        _mm_store_ss(dst, part);
    }
}

/* The same for whole numbers. */
static inline void ivec_transpose(ivec r[8])
{
    __m256 rows[8];
    for (int i = 0; i < 8; i++) {
        rows[i] = _mm256_castsi256_ps(r[i]);
    }
    dk_transpose_8x8(rows);
    for (int i = 0; i < 8; i++) {
        r[i] = _mm256_castps_si256(rows[i]);
    }
}
static inline void ivec_store_some(void *dst, ivec value, int n)
{
    dk_store_some(dst, _mm256_castsi256_ps(value), n);
}

#endif
