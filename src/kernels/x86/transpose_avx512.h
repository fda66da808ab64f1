/* 16 x 16 transpose of 32-bit units, and the loads that both AVX-512 kernels pack with.
   Included only by files compiled for AVX-512. */
#ifndef DK_KERNELS_X86_TRANSPOSE_AVX512_H
#define DK_KERNELS_X86_TRANSPOSE_AVX512_H

#include "kernels/x86/vec_avx512.h"

static inline void dk_transpose_16x16(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4 q + j] holds column j + 4 l of rows 4 q to 4 q + 3 in its 128-bit lane l. */
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88);
        t[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        t[j + 8] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
        r[j + 4] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0x88);
        r[j + 12] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0xdd);
    }
}

/* The vocabulary of gemm_int8_tmpl.h. */
static inline void ivec_transpose(ivec r[16])
{
    dk_transpose_16x16(r);
}
static inline void ivec_store_some(void *dst, ivec value, int n) /* the first n <= 16 lanes */
{
    _mm512_mask_storeu_epi32(dst, (__mmask16)((1u << n) - 1), value);
}

/* Sixteen elements of a row of F32 or BF16 as f32; zeros behind `count` and for NULL. */
static inline __m512 dk_load_row_f32(const void *row, dk_dtype type, int64_t k, int64_t count)
{
    if (row == NULL || count <= 0) {
        return _mm512_setzero_ps();
    }
    __mmask16 mask = (__mmask16)(count >= 16 ? 0xffffu : (1u << count) - 1u);
    if (type == DK_F32) {
        return _mm512_maskz_loadu_ps(mask, (const float *)row + k);
    }
    __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + k);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

#endif
