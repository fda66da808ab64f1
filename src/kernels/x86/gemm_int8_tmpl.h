/* Packing of int8 operands in units of 32 bits, which are UNIT neighbours in k: two as int16,
   or four as int8. Over an integer vocabulary with transposes (transpose_avx2.h,
   transpose_avx512.h), included before. The includer defines NR and LANES, the macros UNIT,
   B_GROUP (a multiple of UNIT), EXCESS (a_excess) and, where that is not 0,
   TILE_PRODUCT(sum, a, b); and

       static inline ivec load_units(const int8_t *row, int64_t count);

   which gives LANES units of a row, zeros behind `count` >= 1 elements. */
#include <assert.h>

#include "kernels/gemm.h"

static inline ivec load_line(const void *row, int64_t k, int64_t count)
{
    return row != NULL && count > 0 ? load_units((const int8_t *)row + k, count) : ivec_set(0);
}

static inline void pack_rows(void *dst, int64_t ld, const void *const *src_rows,
                             dk_dtype src_type, int count, int64_t k)
{
    const ivec excess = ivec_set((int32_t)(EXCESS * 0x01010101u)); /* x ^ 0x80 is x + 128 */
    assert(src_type == DK_I8);
    (void)src_type;
    for (int m0 = 0; m0 < count; m0 += LANES) {
        int32_t *out = (int32_t *)dst + m0;
        int rows = count - m0 < LANES ? count - m0 : LANES;
        for (int64_t i = 0; i < k; i += UNIT * LANES) {
            ivec r[LANES];
            for (int m = 0; m < LANES; m++) {
                const void *row = m < rows ? src_rows[m0 + m] : NULL;
                r[m] = ivec_xor(load_line(row, i, k - i), excess);
            }
            ivec_transpose(r);
            for (int j = 0; j < LANES && i + UNIT * j < k; j++) {
                ivec_store_some(out + (i / UNIT + j) * ld, r[j], rows);
            }
        }
    }
}

#if EXCESS
/* What the excess of A adds to the columns of a panel of `units` rows of units, negated. */
static inline void write_header(int32_t *panel, int64_t units)
{
    const ivec excess = ivec_set((int32_t)(EXCESS * 0x01010101u));
    for (int half = 0; half < NR; half += LANES) {
        ivec sum = ivec_set(0);
        for (int64_t i = 0; i < units; i++) {
            sum = TILE_PRODUCT(sum, excess, ivec_load(panel + NR + i * NR + half));
        }
        ivec_store(panel + half, ivec_sub(ivec_set(0), sum));
    }
}
#endif

static inline void pack_weight(void *panel, const void *w, dk_dtype w_type, int64_t ld,
                               int cols, int64_t k)
{
    int32_t *out = (int32_t *)panel + (EXCESS ? NR : 0);
    int64_t units = dk_gemm_round_up(k, B_GROUP) / UNIT;
    assert(w_type == DK_I8);
    (void)w_type;
    for (int64_t i = 0; i < units; i += LANES) {
        for (int half = 0; half < NR; half += LANES) {
            ivec r[LANES];
            for (int n = 0; n < LANES; n++) {
                const int8_t *row = (const int8_t *)w + (half + n) * ld;
                r[n] = load_line(half + n < cols ? row : NULL, UNIT * i, k - UNIT * i);
            }
            ivec_transpose(r);
            for (int j = 0; j < LANES && i + j < units; j++) {
                ivec_store(out + (i + j) * NR + half, r[j]);
            }
        }
    }
#if EXCESS
    write_header(panel, units);
#endif
}
