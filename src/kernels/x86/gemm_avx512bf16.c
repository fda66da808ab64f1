/* bf16 micro-kernel of 14 rows by 32 columns on vdpbf16ps: a 32-bit unit is a pair of
   neighbours in k, so panels are packed as the f32 ones are, by pairs. */
#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/transpose_avx512.h"
#include "kernels/x86/unroll.h"

enum { MR = 14, NR = 32, LANES = 16, PAIR = 2 };

static void tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                 bool accumulate)
{
    const float *pb = b; /* units of two bf16 */
#define ZERO(m) __m512 low##m = _mm512_setzero_ps(), high##m = _mm512_setzero_ps();
    DK_REPEAT_14(ZERO)
#undef ZERO
    for (int part = 0; part < a->parts; part++) {
        const float *pa = (const float *)a->data + row + (a->offset ? a->offset[part] : 0);
        for (int64_t i = 0; i < a->k; i += PAIR, pa += a->ld, pb += NR) {
            __m512bh b0 = (__m512bh)_mm512_loadu_ps(pb),
                     b1 = (__m512bh)_mm512_loadu_ps(pb + LANES);
#define MULTIPLY(m)                                                                            \
    do {                                                                                       \
        __m512bh value = (__m512bh)_mm512_set1_ps(pa[m]);                                      \
        low##m = _mm512_dpbf16_ps(low##m, value, b0);                                          \
        high##m = _mm512_dpbf16_ps(high##m, value, b1);                                        \
    } while (0);
            DK_REPEAT_14(MULTIPLY)
#undef MULTIPLY
        }
    }
#define STORE(m)                                                                               \
    if (accumulate) {                                                                          \
        low##m = _mm512_add_ps(low##m, _mm512_loadu_ps(c + (m)*ldc));                          \
        high##m = _mm512_add_ps(high##m, _mm512_loadu_ps(c + (m)*ldc + LANES));                \
    }                                                                                          \
    _mm512_storeu_ps(c + (m)*ldc, low##m);                                                     \
    _mm512_storeu_ps(c + (m)*ldc + LANES, high##m);
    DK_REPEAT_14(STORE)
#undef STORE
}

/* Sixteen pairs of a row from element k on, as bf16. */
static inline __m512i load_pairs(const void *row, dk_dtype type, int64_t k, int64_t count)
{
    if (row != NULL && type == DK_BF16) {
        __mmask32 mask = count >= PAIR * LANES ? 0xffffffffu : (1u << count) - 1;
        return _mm512_maskz_loadu_epi16(mask, (const uint16_t *)row + k);
    }
    __m512 low = dk_load_row_f32(row, type, k, count);
    __m512 high = dk_load_row_f32(row, type, k + LANES, count - LANES);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static void pack_rows(void *dst, int64_t ld, const void *const *src_rows, dk_dtype src_type,
                      int count, int64_t k)
{
    uint32_t *out = dst;
    __mmask16 mask = (__mmask16)((1u << count) - 1);
    for (int64_t i = 0; i < k; i += PAIR * LANES) {
        __m512i r[LANES];
        for (int m = 0; m < LANES; m++) {
            r[m] = load_pairs(m < count ? src_rows[m] : NULL, src_type, i, k - i);
        }
        dk_transpose_16x16(r);
        for (int j = 0; j < LANES && i + PAIR * j < k; j++) {
            _mm512_mask_storeu_epi32(out + (i / PAIR + j) * ld, mask, r[j]);
        }
    }
}

static void pack_weight(void *panel, const void *w, dk_dtype w_type, int64_t ld, int cols,
                        int64_t k)
{
    uint32_t *out = panel;
    size_t row_bytes = (size_t)ld * dk_dtype_bytes(w_type);
    for (int64_t i = 0; i < k; i += PAIR * LANES) {
        for (int half = 0; half < NR; half += LANES) {
            __m512i r[LANES];
            for (int n = 0; n < LANES; n++) {
                const char *row = (const char *)w + (size_t)(half + n) * row_bytes;
                r[n] = load_pairs(half + n < cols ? row : NULL, w_type, i, k - i);
            }
            dk_transpose_16x16(r);
            for (int j = 0; j < LANES && i + PAIR * j < k; j++) {
                _mm512_storeu_si512(out + (i / PAIR + j) * NR + half, r[j]);
            }
        }
    }
}

/* Sixteen columns of one row as bf16 in the low halves of 32-bit units. */
static inline __m512i load_columns(const void *row, dk_dtype type, int64_t n, int64_t count)
{
    __m512 values = dk_load_row_f32(row, type, n, count);
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(values));
}

static void pack_matrix(void *panel, const void *src, dk_dtype src_type, int64_t ld, int cols,
                        int64_t k)
{
    uint32_t *out = panel;
    size_t row_bytes = (size_t)ld * dk_dtype_bytes(src_type);
    for (int64_t i = 0; i < k; i += PAIR) {
        const char *even = (const char *)src + (size_t)i * row_bytes;
        const char *odd = i + 1 < k ? even + row_bytes : NULL;
        for (int n = 0; n < NR; n += LANES) {
            __m512i low = load_columns(even, src_type, n, cols - n);
            __m512i high = load_columns(odd, src_type, n, cols - n);
            _mm512_storeu_si512(out + i / PAIR * NR + n,
                                _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
}

const dk_gemm_kernel dk_gemm_bf16_avx512bf16 = {
    .name = "avx512bf16-bf16-14x32",
    .type = DK_BF16,
    .mr = MR,
    .nr = NR,
    .a_group = PAIR,
    .b_group = PAIR,
    .slice = 512,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
    .pack_matrix = pack_matrix,
};
