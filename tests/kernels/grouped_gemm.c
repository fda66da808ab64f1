/* The kernels of grouped_gemm.h, by their definition in gemm.h. */
#include "kernels/grouped_gemm.h"

#include <string.h>

#include "tensor/convert.h"

enum { MR = 7, NR = 12, KG = 4 };

static int64_t padded(int64_t k)
{
    return (k + KG - 1) / KG * KG;
}

static void tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                 bool accumulate)
{
    for (int m = 0; m < MR; m++) {
        for (int n = 0; n < NR; n++) {
            float sum = accumulate ? c[m * ldc + n] : 0.0f;
            const uint16_t *pb = b;
            for (int part = 0; part < a->parts; part++, pb += padded(a->k) * NR) {
                int64_t first = row + m + (a->offset != NULL ? a->offset[part] : 0);
                for (int64_t i = 0; i < padded(a->k); i++) {
                    const uint16_t *pa =
                        (const uint16_t *)a->data + (i / KG * a->ld + first) * KG;
                    sum += dk_f32_from_bf16(pa[i % KG]) *
                           dk_f32_from_bf16(pb[(i / KG * NR + n) * KG + i % KG]);
                }
            }
            c[m * ldc + n] = sum;
        }
    }
}

/* Element i of line n of an operand of `ld` lines; NULL reads as zero. */
static void put(uint16_t *operand, int64_t ld, int n, int64_t i, const void *src, dk_dtype type)
{
    float value = 0.0f;
    if (src != NULL) {
        dk_convert_to_f32(&value, src, type, 1);
    }
    operand[(i / KG * ld + n) * KG + i % KG] = dk_bf16_from_f32(value);
}

static void pack_rows(void *dst, int64_t ld, const void *const *src_rows, dk_dtype src_type,
                      int count, int64_t k)
{
    size_t bytes = dk_dtype_bytes(src_type);
    for (int m = 0; m < count; m++) {
        const char *row = src_rows[m];
        for (int64_t i = 0; i < padded(k); i++) {
            const void *at = row != NULL && i < k ? row + (size_t)i * bytes : NULL;
            put(dst, ld, m, i, at, src_type);
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
                            .a_group = KG,
                            .b_group = KG,
                            .b_unit = KG,
                            .packs_once = true,
                            .slice = 40,
                            .tile = tile,
                            .pack_rows = pack_rows,
                            .pack_weight = pack_weight,
                            .pack_matrix = pack_matrix};
}

/* --- int8 --------------------------------------------------------------------------------- */

enum { EXCESS = 128, HEADER = 64 }; /* NR numbers, padded */

static void int8_tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                      bool accumulate)
{
    int32_t *out = (int32_t *)(void *)c;
    for (int m = 0; m < MR; m++) {
        for (int n = 0; n < NR; n++) {
            int64_t sum = accumulate ? out[m * ldc + n] : 0;
            const int8_t *pb = b;
            for (int part = 0; part < a->parts; part++, pb += padded(a->k) * NR) {
                int64_t first = row + m + (a->offset != NULL ? a->offset[part] : 0);
                sum += ((const int32_t *)(const void *)pb)[n];
                pb += HEADER;
                for (int64_t i = 0; i < padded(a->k); i++) {
                    const uint8_t *pa =
                        (const uint8_t *)a->data + (i / KG * a->ld + first) * KG;
                    sum += pa[i % KG] * pb[(i / KG * NR + n) * KG + i % KG];
                }
            }
            out[m * ldc + n] = (int32_t)sum;
        }
    }
}

static void int8_pack_rows(void *dst, int64_t ld, const void *const *src_rows,
                           dk_dtype src_type, int count, int64_t k)
{
    uint8_t *out = dst;
    (void)src_type;
    for (int m = 0; m < count; m++) {
        const int8_t *row = src_rows[m];
        for (int64_t i = 0; i < padded(k); i++) {
            int value = row != NULL && i < k ? row[i] : 0;
            out[(i / KG * ld + m) * KG + i % KG] = (uint8_t)(value + EXCESS);
        }
    }
}

static void int8_pack_weight(void *panel, const void *w, dk_dtype w_type, int64_t ld, int cols,
                             int64_t k)
{
    int32_t *header = panel;
    int8_t *out = (int8_t *)panel + HEADER;
    (void)w_type;
    memset(panel, 0, (size_t)(HEADER + padded(k) * NR));
    for (int n = 0; n < cols; n++) {
        const int8_t *row = (const int8_t *)w + n * ld;
        for (int64_t i = 0; i < k; i++) {
            out[(i / KG * NR + n) * KG + i % KG] = row[i];
            /* Modulo 2^32, as instructions count: the sum comes back into range. */
            header[n] = (int32_t)((uint32_t)header[n] - (uint32_t)(EXCESS * row[i]));
        }
    }
}

dk_gemm_kernel grouped_int8_gemm(void)
{
    return (dk_gemm_kernel){.name = "grouped-int8-7x12",
                            .type = DK_I8,
                            .mr = MR,
                            .nr = NR,
                            .a_group = KG,
                            .b_group = KG,
                            .b_unit = KG,
                            .slice = 40,
                            .a_excess = EXCESS,
                            .b_header = HEADER,
                            .tile = int8_tile,
                            .pack_rows = int8_pack_rows,
                            .pack_weight = int8_pack_weight};
}
