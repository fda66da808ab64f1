/* bf16 micro-kernel of 14 rows by 32 columns on vdpbf16ps: a 32-bit unit is a pair of
   neighbours in k, so panels are packed as the f32 ones are, by pairs. */
#include <string.h>

#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/pack_bf16.h"

enum { MR = 14, NR = 32, LANES = 16, PAIR = 2 };

#define TILE_REPEAT             DK_REPEAT_14
#define TILE_STEP               PAIR
#define TILE_PRODUCT(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))
#include "kernels/x86/gemm_tile_tmpl.h"

#include "kernels/x86/direct_group.h"

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

/* The pair of bf16 at p in all units; of the last element of an odd row, with zero behind it.
 */
static inline __m512i pair_of(const char *p)
{
    int pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
}
static inline __m512i last_of(const char *p)
{
    uint16_t last;
    memcpy(&last, p, sizeof last);
    return _mm512_set1_epi32((int)last);
}

/* The group from row n on; wide: both vectors. */
static inline __attribute__((always_inline)) void direct_group(float *c, const dk_gemm_rows *w,
                                                               int n, const uint32_t *x,
                                                               bool wide, bool accumulate)
{
    DK_REPEAT_6(DK_DIRECT_START)
#define MULTIPLY(m, load)                                                                      \
    do {                                                                                       \
        __m512i pair = load(w##m);                                                             \
        low##m = TILE_PRODUCT(low##m, pair, x0);                                               \
        high##m = wide ? TILE_PRODUCT(high##m, pair, x1) : high##m;                            \
        w##m += PAIR * sizeof(uint16_t);                                                       \
    } while (0);
#define WHOLE(m) MULTIPLY(m, pair_of)
#define LAST(m)  MULTIPLY(m, last_of)
    for (int64_t i = 0; i + 1 < w->k; i += PAIR, x += NR) {
        __m512i x0 = _mm512_loadu_si512(x), x1 = _mm512_loadu_si512(x + LANES);
        DK_REPEAT_6(WHOLE)
    }
    if (w->k % PAIR != 0) {
        __m512i x0 = _mm512_loadu_si512(x), x1 = _mm512_loadu_si512(x + LANES);
        DK_REPEAT_6(LAST)
    }
#undef WHOLE
#undef LAST
#undef MULTIPLY
    DK_REPEAT_6(DK_DIRECT_FINISH)
}

static void direct(float *c, const dk_gemm_rows *w, const void *panel, int cols,
                   bool accumulate)
{
    for (int n = 0; n < w->count; n += DK_DIRECT_GROUP) {
        if (cols > LANES) {
            direct_group(c, w, n, panel, true, accumulate);
        } else {
            direct_group(c, w, n, panel, false, accumulate);
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
    .b_unit = PAIR,
    .slice = 512,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
    .pack_matrix = pack_matrix,
    .direct = direct,
    .direct_most = 32,
};
