/* Eight floats in AVX2 + FMA + F16C: the vocabulary of the *_tmpl.h files, which vec_avx512.h
   gives for sixteen. Included only by files compiled for that instruction set. */
#ifndef DK_KERNELS_X86_VEC_AVX2_H
#define DK_KERNELS_X86_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "kernels/linear.h"
#include "tensor/convert.h"

enum { VEC = 8 };
typedef __m256 vec;

static inline vec vec_set(float x)
{
    return _mm256_set1_ps(x);
}
static inline vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vec_store(float *p, vec x)
{
    _mm256_storeu_ps(p, x);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
/* 1 / a */
static inline vec vec_reciprocal(vec a)
{
    return _mm256_div_ps(_mm256_set1_ps(1.0f), a);
}
static inline vec vec_max(vec a, vec b) /* b when either is NaN */
{
    return _mm256_max_ps(a, b);
}
static inline vec vec_min(vec a, vec b) /* b when either is NaN */
{
    return _mm256_min_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) /* a b + c */
{
    return _mm256_fmadd_ps(a, b, c);
}

/* Sums and maxima over the lanes, in a fixed order. */
static inline float vec_sum(vec x)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
static inline float vec_top(vec x)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}

static inline vec vec_load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* The first or the second of two bf16 numbers at p, in all lanes. */
static inline vec vec_set_bf16_even(const void *p)
{
    int pair;
    memcpy(&pair, p, sizeof pair);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_set1_epi32(pair), 16));
}
static inline vec vec_set_bf16_odd(const void *p)
{
    int pair;
    memcpy(&pair, p, sizeof pair);
    __m256i upper = _mm256_set1_epi32(-65536);
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_set1_epi32(pair), upper));
}

/* Round to nearest even; a NaN stays one. */
static inline void vec_store_bf16(uint16_t *p, vec x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    rounded = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    __m256i packed = _mm256_packus_epi32(rounded, rounded);
    packed = _mm256_permute4x64_epi64(packed, 0x08);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(packed));
}

/* p[0], p[0], p[1], p[1], …: VEC / 2 values, each twice. */
static inline vec vec_load_twice(const float *p)
{
    __m128 values = _mm_loadu_ps(p);
    return _mm256_set_m128(_mm_unpackhi_ps(values, values), _mm_unpacklo_ps(values, values));
}

/* (x0, x1, …) -> (x1, x0, …), and (x0, x1, …) -> (-x0, x1, …): the parts of a rotation. */
static inline vec vec_swap_pairs(vec x)
{
    return _mm256_permute_ps(x, 0xb1);
}
static inline vec vec_alternate(vec x)
{
    return _mm256_xor_ps(x, _mm256_setr_ps(-0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f, 0));
}

/* 2^n for whole n in [-127, 128]; -127 gives 0, 128 infinity. */
static inline vec vec_exp2_int(vec n)
{
    __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
/* x 2^n for whole n in [-127, 127]; VEC_LEAST_EXP2 gives 0. */
#define VEC_LEAST_EXP2 (-127.0f)
static inline vec vec_scale2(vec x, vec n)
{
    return _mm256_mul_ps(x, vec_exp2_int(n));
}
static inline vec vec_round(vec x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Eight whole numbers of 32 bits. */
typedef __m256i ivec;

static inline ivec ivec_set(int32_t x)
{
    return _mm256_set1_epi32(x);
}
static inline ivec ivec_load(const void *p)
{
    return _mm256_loadu_si256(p);
}
static inline void ivec_store(void *p, ivec x)
{
    _mm256_storeu_si256(p, x);
}
static inline ivec ivec_add(ivec a, ivec b)
{
    return _mm256_add_epi32(a, b);
}
static inline ivec ivec_sub(ivec a, ivec b)
{
    return _mm256_sub_epi32(a, b);
}
static inline ivec ivec_xor(ivec a, ivec b)
{
    return _mm256_xor_si256(a, b);
}

/* To the nearest whole number, halves to even, and back. */
static inline ivec ivec_round(vec x)
{
    return _mm256_cvtps_epi32(x);
}
static inline vec vec_from_ivec(ivec x)
{
    return _mm256_cvtepi32_ps(x);
}

/* The first n lanes as int8, which hold them. */
static inline void ivec_store_int8(int8_t *p, ivec x, int n)
{
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i bytes = _mm_packs_epi16(words, words);
    if (n >= VEC) {
        _mm_storel_epi64((__m128i *)(void *)p, bytes);
        return;
    }
    int8_t values[16];
    _mm_storeu_si128((__m128i *)(void *)values, bytes);
    memcpy(p, values, (size_t)n);
}

#endif
