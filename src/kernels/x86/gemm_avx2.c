/* f32 micro-kernel of 6 rows by 16 columns: 12 accumulators, two B vectors, one broadcast. */
#include <string.h>

#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/transpose_avx2.h"

enum { MR = 6, NR = 16, LANES = 8 };

#define TILE_REPEAT             DK_REPEAT_6
#define TILE_STEP               1
#define TILE_PRODUCT(sum, a, b) vec_fma(a, b, sum)
#include "kernels/x86/gemm_tile_tmpl.h"

#include "kernels/x86/gemm_direct_tmpl.h"

/* Eight elements of a row of F32 or BF16, from element k on; zeros behind `count`. */
static inline __m256 load_row(const void *row, dk_dtype type, int64_t k, int64_t count)
{
    if (row == NULL) {
        return _mm256_setzero_ps();
    }
    if (count >= LANES && type == DK_F32) {
        return _mm256_loadu_ps((const float *)row + k);
    }
    if (count >= LANES && type == DK_BF16) {
        return vec_load_bf16((const uint16_t *)row + k);
    }
    float values[LANES] = {0};
    const char *at = (const char *)row + (size_t)k * dk_dtype_bytes(type);
    dk_convert_to_f32(values, at, type, count < LANES ? count : LANES);
    return _mm256_loadu_ps(values);
}

static void pack_rows(void *dst, int64_t ld, const void *const *src_rows, dk_dtype src_type,
                      int count, int64_t k)
{
    for (int m0 = 0; m0 < count; m0 += LANES) {
        float *out = (float *)dst + m0;
        int rows = count - m0 < LANES ? count - m0 : LANES;
        for (int64_t i = 0; i < k; i += LANES) {
            __m256 r[LANES];
            for (int m = 0; m < LANES; m++) {
                r[m] = load_row(m < rows ? src_rows[m0 + m] : NULL, src_type, i, k - i);
            }
            dk_transpose_8x8(r);
            for (int j = 0; j < LANES && i + j < k; j++) {
                dk_store_some(out + (i + j) * ld, r[j], rows);
            }
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
            __m256 r[LANES];
            for (int n = 0; n < LANES; n++) {
                const char *row = (const char *)w + (size_t)(half + n) * row_bytes;
                r[n] = load_row(half + n < cols ? row : NULL, w_type, i, k - i);
            }
            dk_transpose_8x8(r);
            for (int j = 0; j < LANES && i + j < k; j++) {
                _mm256_storeu_ps(out + (i + j) * NR + half, r[j]);
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
            __m256 value =
                n < cols ? load_row(row, src_type, n, cols - n) : _mm256_setzero_ps();
            _mm256_storeu_ps(out + i * NR + n, value);
        }
    }
}

const dk_gemm_kernel dk_gemm_f32_avx2 = {
    .name = "avx2-f32-6x16",
    .type = DK_F32,
    .mr = MR,
    .nr = NR,
    .a_group = 1,
    .b_group = 1,
    .b_unit = 1,
    .slice = 384,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
    .pack_matrix = pack_matrix,
    .direct = direct,
    .direct_most = 32,
};
