/* f32 micro-kernel of 14 rows by 32 columns: 28 accumulators, two B vectors, broadcasts from
   memory. */
#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/transpose_avx512.h"
#include "kernels/x86/unroll.h"

enum { MR = 14, NR = 32, LANES = 16 };

static void tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                 bool accumulate)
{
    const float *pb = b;
#define ZERO(m) __m512 low##m = _mm512_setzero_ps(), high##m = _mm512_setzero_ps();
    DK_REPEAT_14(ZERO)
#undef ZERO
    for (int part = 0; part < a->parts; part++) {
        const float *pa = (const float *)a->data + row + (a->offset ? a->offset[part] : 0);
        for (int64_t i = 0; i < a->k; i += 1, pa += a->ld, pb += NR) {
            __m512 b0 = _mm512_loadu_ps(pb), b1 = _mm512_loadu_ps(pb + LANES);
#define MULTIPLY(m)                                                                            \
    do {                                                                                       \
        __m512 value = _mm512_set1_ps(pa[m]);                                                  \
        low##m = _mm512_fmadd_ps(value, b0, low##m);                                           \
        high##m = _mm512_fmadd_ps(value, b1, high##m);                                         \
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
};
