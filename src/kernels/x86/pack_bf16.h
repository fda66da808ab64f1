/* Packing of bf16 B panels: pairs of neighbours in k lie together, [ceil(k / 2)][32][2], as
   both vdpbf16ps and tdpbf16ps take them. Rows of pairs from ceil(k / 2) up to `pairs` are
   zeros. Included only by files compiled for AVX512_BF16. */
#ifndef DK_KERNELS_X86_PACK_BF16_H
#define DK_KERNELS_X86_PACK_BF16_H

#include <string.h>

#include "kernels/x86/transpose_avx512.h"

enum { DK_PACK_NR = 32, DK_PACK_LANES = 16 };

/* Sixteen pairs of a row from element k on, as bf16. */
static inline __m512i dk_load_pairs(const void *row, dk_dtype type, int64_t k, int64_t count)
{
    if (row != NULL && type == DK_BF16) {
        __mmask32 mask = count >= 2 * DK_PACK_LANES ? 0xffffffffu : (1u << count) - 1;
        return _mm512_maskz_loadu_epi16(mask, (const uint16_t *)row + k);
    }
    __m512 low = dk_load_row_f32(row, type, k, count);
    __m512 high = dk_load_row_f32(row, type, k + DK_PACK_LANES, count - DK_PACK_LANES);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static inline void dk_pack_weight_bf16(void *panel, const void *w, dk_dtype w_type, int64_t ld,
                                       int cols, int64_t k, int64_t pairs)
{
    uint32_t *out = panel;
    size_t row_bytes = (size_t)ld * dk_dtype_bytes(w_type);
    for (int64_t i = 0; i < k; i += 2 * DK_PACK_LANES) {
        for (int half = 0; half < DK_PACK_NR; half += DK_PACK_LANES) {
            __m512i r[DK_PACK_LANES];
            for (int n = 0; n < DK_PACK_LANES; n++) {
                const char *row = (const char *)w + (size_t)(half + n) * row_bytes;
                r[n] = dk_load_pairs(half + n < cols ? row : NULL, w_type, i, k - i);
            }
            dk_transpose_16x16(r);
            for (int j = 0; j < DK_PACK_LANES && i / 2 + j < pairs; j++) {
                _mm512_storeu_si512(out + (i / 2 + j) * DK_PACK_NR + half, r[j]);
            }
        }
    }
}

/* Sixteen columns of one row as bf16 in the low halves of 32-bit units. */
static inline __m512i dk_load_columns(const void *row, dk_dtype type, int64_t n, int64_t count)
{
    __m512 values = dk_load_row_f32(row, type, n, count);
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(values));
}

static inline void dk_pack_matrix_bf16(void *panel, const void *src, dk_dtype src_type,
                                       int64_t ld, int cols, int64_t k, int64_t pairs)
{
    uint32_t *out = panel;
    size_t row_bytes = (size_t)ld * dk_dtype_bytes(src_type);
    for (int64_t i = 0; i < 2 * pairs; i += 2) {
        const char *even = i < k ? (const char *)src + (size_t)i * row_bytes : NULL;
        const char *odd = i + 1 < k ? (const char *)src + (size_t)(i + 1) * row_bytes : NULL;
        for (int n = 0; n < DK_PACK_NR; n += DK_PACK_LANES) {
            __m512i low = dk_load_columns(even, src_type, n, cols - n);
            __m512i high = dk_load_columns(odd, src_type, n, cols - n);
            _mm512_storeu_si512(out + i / 2 * DK_PACK_NR + n,
                                _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
}

#endif
