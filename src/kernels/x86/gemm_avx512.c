/* f32 micro-kernel of 14 rows by 32 columns: 28 accumulators, two B vectors, broadcasts from
   memory. */
#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/transpose_avx512.h"

enum { MR = 14, NR = 32, LANES = 16 };

#define TILE_REPEAT             DK_REPEAT_14
#define TILE_STEP               1
#define TILE_PRODUCT(sum, a, b) vec_fma(a, b, sum)
#include "kernels/x86/gemm_tile_tmpl.h"

#include "kernels/x86/gemm_direct_tmpl.h"

static void pack_rows(void *dst, int64_t ld, const void *const *src_rows, dk_dtype src_type,
                      int count, int64_t k)
{
    float *out = dst;
    __mmask16 mask = (__mmask16)((1u << count) - 1);
    for (int64_t i = 0; i < k; i += LANES) {
        __m512i r[LANES];
        for (int m = 0; m < LANES; m++) {
            r[m] = _mm512_castps_si512(
                dk_load_row_f32(m < count ? src_rows[m] : NULL, src_type, i, k - i));
        }
        dk_transpose_16x16(r);
        for (int j = 0; j < LANES && i + j < k; j++) {
            _mm512_mask_storeu_epi32(out + (i + j) * ld, mask, r[j]);
        }
    }
}

static void pack_weight(void *panel, const void *w, dk_dtype w_type, int64_t ld, int cols,
                        int64_t k)
{
    float *out = panel;
    size_t row_bytes = (size_t)ld * dk_dtype_bytes(w_type);
    for (int64_t i = 0; i < k; i += LANES) {
        for (int half = 0; half < NR; half += LANES) {
            __m512i r[LANES];
            for (int n = 0; n < LANES; n++) {
                const char *row = (const char *)w + (size_t)(half + n) * row_bytes;
                r[n] = _mm512_castps_si512(
                    dk_load_row_f32(half + n < cols ? row : NULL, w_type, i, k - i));
            }
            dk_transpose_16x16(r);
            for (int j = 0; j < LANES && i + j < k; j++) {
                _mm512_storeu_si512(out + (i + j) * NR + half, r[j]);
            }
        }
    }
}

static void pack_matrix(void *panel, const void *src, dk_dtype src_type, int64_t ld, int cols,
                        int64_t k)
{
    float *out = panel;
    size_t row_bytes = (size_t)ld * dk_dtype_bytes(src_type);
    for (int64_t i = 0; i < k; i++) {
        const char *row = (const char *)src + (size_t)i * row_bytes;
        for (int n = 0; n < NR; n += LANES) {
            _mm512_storeu_ps(out + i * NR + n, dk_load_row_f32(row, src_type, n, cols - n));
        }
    }
}

const dk_gemm_kernel dk_gemm_f32_avx512 = {
    .name = "avx512-f32-14x32",
    .type = DK_F32,
    .mr = MR,
    .nr = NR,
    .a_group = 1,
    .b_group = 1,
    .b_unit = 1,
    .slice = 256,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
    .pack_matrix = pack_matrix,
    .direct = direct,
    .direct_most = 32,
};
