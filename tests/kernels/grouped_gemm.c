/* The kernel of grouped_gemm.h, by its definition in gemm.h. */
#include "kernels/grouped_gemm.h"

#include "tensor/convert.h"

enum { MR = 7, NR = 12, KG = 4 };

static int64_t padded(int64_t k)
{
    return (k + KG - 1) / KG * KG;
}

static void tile(float *c, int64_t ldc, const void *a, const void *b, int64_t k,
                 bool accumulate)
{
    const uint16_t *pa = a, *pb = b;
    for (int m = 0; m < MR; m++) {
        for (int n = 0; n < NR; n++) {
            float sum = accumulate ? c[m * ldc + n] : 0.0f;
            for (int64_t i = 0; i < padded(k); i++) {
                int64_t group = i / KG;
                sum += dk_f32_from_bf16(pa[(group * MR + m) * KG + i % KG]) *
                       dk_f32_from_bf16(pb[(group * NR + n) * KG + i % KG]);
            }
            c[m * ldc + n] = sum;
        }
    }
}

/* Element i of line n of a panel of `width` lines; NULL reads as zero. */
static void put(uint16_t *panel, int width, int n, int64_t i, const void *src, dk_dtype type)
{
    float value = 0.0f;
    if (src != NULL) {
        dk_convert_to_f32(&value, src, type, 1);
    }
    panel[(i / KG * width + n) * KG + i % KG] = dk_bf16_from_f32(value);
}

static void pack_rows(void *panel, const void *const *src_rows, dk_dtype src_type, int rows,
                      int64_t k)
{
    size_t bytes = dk_dtype_bytes(src_type);
    for (int m = 0; m < MR; m++) {
        const char *row = m < rows ? src_rows[m] : NULL;
        for (int64_t i = 0; i < padded(k); i++) {
            const void *at = row != NULL && i < k ? row + (size_t)i * bytes : NULL;
            put(panel, MR, m, i, at, src_type);
        }
    }
}

static void pack_weight(void *panel, const void *w, dk_dtype w_type, int64_t ld, int cols,
                        int64_t k)
{
    size_t bytes = dk_dtype_bytes(w_type);
    for (int n = 0; n < NR; n++) {
        for (int64_t i = 0; i < padded(k); i++) {
            const char *at =
                n < cols && i < k ? (const char *)w + (size_t)(n * ld + i) * bytes : NULL;
            put(panel, NR, n, i, at, w_type);
        }
    }
}

static void pack_matrix(void *panel, const void *src, dk_dtype src_type, int64_t ld, int cols,
                        int64_t k)
{
    size_t bytes = dk_dtype_bytes(src_type);
    for (int n = 0; n < NR; n++) {
        for (int64_t i = 0; i < padded(k); i++) {
            const char *at =
                n < cols && i < k ? (const char *)src + (size_t)(i * ld + n) * bytes : NULL;
            put(panel, NR, n, i, at, src_type);
        }
    }
}

dk_gemm_kernel grouped_gemm(void)
{
    return (dk_gemm_kernel){.name = "grouped-bf16-7x12",
                            .type = DK_BF16,
                            .mr = MR,
                            .nr = NR,
                            .kg = KG,
                            .tile = tile,
                            .pack_rows = pack_rows,
                            .pack_weight = pack_weight,
                            .pack_matrix = pack_matrix};
}
