/* bf16 micro-kernel of 14 rows by 32 columns on vdpbf16ps: a 32-bit unit is a pair of
   neighbours in k, so panels are packed as the f32 ones are, by pairs. */
#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/pack_bf16.h"
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

static void pack_rows(void *dst, int64_t ld, const void *const *src_rows, dk_dtype src_type,
                      int count, int64_t k)
{
    uint32_t *out = dst;
    __mmask16 mask = (__mmask16)((1u << count) - 1);
    for (int64_t i = 0; i < k; i += PAIR * LANES) {
        __m512i r[LANES];
        for (int m = 0; m < LANES; m++) {
            r[m] = dk_load_pairs(m < count ? src_rows[m] : NULL, src_type, i, k - i);
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
    dk_pack_weight_bf16(panel, w, w_type, ld, cols, k, (k + 1) / PAIR);
}

static void pack_matrix(void *panel, const void *src, dk_dtype src_type, int64_t ld, int cols,
                        int64_t k)
{
    dk_pack_matrix_bf16(panel, src, src_type, ld, cols, k, (k + 1) / PAIR);
}

const dk_gemm_kernel dk_gemm_bf16_avx512bf16 = {
    .name = "avx512bf16-bf16-14x32",
    .type = DK_BF16,
    .mr = MR,
    .nr = NR,
    .a_group = PAIR,
    .b_group = PAIR,
    .b_unit = PAIR,
    .slice = 512,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
    .pack_matrix = pack_matrix,
};
