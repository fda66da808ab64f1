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
static inline vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
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

/* Round to nearest even; a NaN stays one. */
static inline void vec_store_bf16(uint16_t *p, vec x)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
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

/* 2^n for whole n in [-127, 128]; -127 gives 0, 128 infinity. */
static inline vec vec_exp2_int(vec n)
{
    __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
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

#endif
