/* Sixteen floats in AVX-512 (F, BW, DQ, VL): the vocabulary of the *_tmpl.h files; see
   vec_avx2.h. */
#ifndef DK_KERNELS_X86_VEC_AVX512_H
#define DK_KERNELS_X86_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "kernels/linear.h"
#include "tensor/convert.h"

enum { VEC = 16 };
typedef __m512 vec;

static inline vec vec_set(float x)
{
    return _mm512_set1_ps(x);
}
static inline vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vec_store(float *p, vec x)
{
    _mm512_storeu_ps(p, x);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
/* 1 / a for a in [1, 2^126]: an estimate of 14 bits and one step of Newton's, relative error
   2e-7; the division takes sixteen cycles. */
static inline vec vec_reciprocal(vec a)
{
    vec r = _mm512_rcp14_ps(a);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0f)), r, r);
}
static inline vec vec_max(vec a, vec b) /* b when either is NaN */
{
    return _mm512_max_ps(a, b);
}
static inline vec vec_min(vec a, vec b) /* b when either is NaN */
{
    return _mm512_min_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) /* a b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}

/* Sums and maxima over the lanes, in a fixed order. */
static inline float vec_sum(vec x)
{
    return _mm512_reduce_add_ps(x);
}
static inline float vec_top(vec x)
{
    return _mm512_reduce_max_ps(x);
}

static inline vec vec_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* The first or the second of two bf16 numbers at p, in all lanes. */
static inline vec vec_set_bf16_even(const void *p)
{
    int pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_set1_epi32(pair), 16));
}
static inline vec vec_set_bf16_odd(const void *p)
{
    int pair;
    memcpy(&pair, p, sizeof pair);
    __m512i upper = _mm512_set1_epi32(-65536);
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_set1_epi32(pair), upper));
}

/* Round to nearest even; a NaN stays one. The instruction takes denormal numbers as zero. */
static inline void vec_store_bf16(uint16_t *p, vec x)
{
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh(x));
#else
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
#endif
}

#ifdef __AVX512BF16__
/* 32 values one behind the other. */
static inline void vec_store_two_bf16(void *p, vec low, vec high)
{
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
#endif

/* p[0], p[0], p[1], p[1], …: VEC / 2 values, each twice. */
static inline vec vec_load_twice(const float *p)
{
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}

/* (x0, x1, …) -> (x1, x0, …), and (x0, x1, …) -> (-x0, x1, …): the parts of a rotation. */
static inline vec vec_swap_pairs(vec x)
{
    return _mm512_permute_ps(x, 0xb1);
}
static inline vec vec_alternate(vec x)
{
    return _mm512_mask_sub_ps(x, 0x5555, _mm512_setzero_ps(), x);
}

/* x 2^n for whole n; VEC_LEAST_EXP2 gives 0, being below the denormals. */
#define VEC_LEAST_EXP2 (-160.0f)
static inline vec vec_scale2(vec x, vec n)
{
    return _mm512_scalef_ps(x, n);
}
static inline vec vec_round(vec x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Sixteen whole numbers of 32 bits. */
typedef __m512i ivec;

static inline ivec ivec_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}
static inline ivec ivec_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
static inline void ivec_store(void *p, ivec x)
{
    _mm512_storeu_si512(p, x);
}
static inline ivec ivec_add(ivec a, ivec b)
{
    return _mm512_add_epi32(a, b);
}
static inline ivec ivec_sub(ivec a, ivec b)
{
    return _mm512_sub_epi32(a, b);
}
static inline ivec ivec_xor(ivec a, ivec b)
{
    return _mm512_xor_si512(a, b);
}

/* To the nearest whole number, halves to even, and back. */
static inline ivec ivec_round(vec x)
{
    return _mm512_cvtps_epi32(x);
}
static inline vec vec_from_ivec(ivec x)
{
    return _mm512_cvtepi32_ps(x);
}

/* The first n lanes as int8, which hold them. */
static inline void ivec_store_int8(int8_t *p, ivec x, int n)
{
    __mmask16 mask = (__mmask16)((1u << (n < VEC ? n : VEC)) - 1u);
    _mm512_mask_cvtepi32_storeu_epi8(p, mask, x);
}

#endif
