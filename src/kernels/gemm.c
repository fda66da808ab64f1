/* The plain-C matrix-multiply kernel, and the choice of kernel for a CPU. */
#include "kernels/gemm.h"

#include <assert.h>
#include <string.h>

#include "kernels/x86/gemm_x86.h"
#include "tensor/convert.h"

enum { REF_MR = 4, REF_NR = 8 };

static void tile_c(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                   bool accumulate)
{
    const float *pb = b;
    float sum[REF_MR][REF_NR] = {0};
    for (int part = 0; part < a->parts; part++) {
        const float *pa = (const float *)a->data + row + (a->offset ? a->offset[part] : 0);
        for (int64_t i = 0; i < a->k; i++, pa += a->ld, pb += REF_NR) {
            for (int m = 0; m < REF_MR; m++) {
                for (int n = 0; n < REF_NR; n++) {
                    sum[m][n] += pa[m] * pb[n];
                }
            }
        }
    }
    for (int m = 0; m < REF_MR; m++) {
        for (int n = 0; n < REF_NR; n++) {
            float *out = &c[m * ldc + n];
            *out = accumulate ? *out + sum[m][n] : sum[m][n];
        }
    }
}

/* Element i of a row of F32 or BF16. */
static float element(const void *row, dk_dtype type, int64_t i)
{
    return type == DK_F32 ? ((const float *)row)[i]
                          : dk_f32_from_bf16(((const uint16_t *)row)[i]);
}

static void pack_rows_c(void *dst, int64_t ld, const void *const *src_rows, dk_dtype src_type,
                        int count, int64_t k)
{
    float *out = dst;
    for (int m = 0; m < count; m++) {
        for (int64_t i = 0; i < k; i++) {
            out[i * ld + m] = src_rows[m] != NULL ? element(src_rows[m], src_type, i) : 0.0f;
        }
    }
}

static void pack_weight_c(void *panel, const void *w, dk_dtype w_type, int64_t ld, int cols,
                          int64_t k)
{
    float *out = panel;
    for (int n = 0; n < REF_NR; n++) {
        const void *row = (const char *)w + (size_t)(n * ld) * dk_dtype_bytes(w_type);
        for (int64_t i = 0; i < k; i++) {
            out[i * REF_NR + n] = n < cols ? element(row, w_type, i) : 0.0f;
        }
    }
}

static void pack_matrix_c(void *panel, const void *src, dk_dtype src_type, int64_t ld, int cols,
                          int64_t k)
{
    float *out = panel;
    for (int64_t i = 0; i < k; i++) {
        const void *row = (const char *)src + (size_t)(i * ld) * dk_dtype_bytes(src_type);
        for (int n = 0; n < REF_NR; n++) {
            out[i * REF_NR + n] = n < cols ? element(row, src_type, n) : 0.0f;
        }
    }
}

static void direct_c(float *c, const dk_gemm_rows *w, const void *panel, int cols,
                     bool accumulate)
{
    for (int n = 0; n < w->count; n++, c += REF_NR) {
        const char *row = (const char *)w->data + n * w->row_bytes;
        const float *x = panel;
        float sum[REF_NR] = {0};
        for (int64_t i = 0; i < w->k; i++, x += REF_NR) {
            float value = element(row, w->type, i);
            for (int m = 0; m < REF_NR; m++) {
                sum[m] += value * x[m];
            }
        }
        for (int m = 0; m < cols; m++) {
            c[m] = accumulate ? c[m] + sum[m] : sum[m];
        }
    }
}

/* --- int8: the same tile over whole numbers ------------------------------------------------
 */

static void int8_tile_c(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                        bool accumulate)
{
    const int8_t *pb = b;
    int32_t sum[REF_MR][REF_NR] = {0}, *out = (int32_t *)(void *)c;
    for (int part = 0; part < a->parts; part++) {
        const int8_t *pa = (const int8_t *)a->data + row + (a->offset ? a->offset[part] : 0);
        for (int64_t i = 0; i < a->k; i++, pa += a->ld, pb += REF_NR) {
            for (int m = 0; m < REF_MR; m++) {
                for (int n = 0; n < REF_NR; n++) {
                    sum[m][n] += pa[m] * pb[n];
                }
            }
        }
    }
    for (int m = 0; m < REF_MR; m++) {
        for (int n = 0; n < REF_NR; n++) {
            out[m * ldc + n] = sum[m][n] + (accumulate ? out[m * ldc + n] : 0);
        }
    }
}

static void int8_pack_rows_c(void *dst, int64_t ld, const void *const *src_rows,
                             dk_dtype src_type, int count, int64_t k)
{
    int8_t *out = dst;
    assert(src_type == DK_I8);
    (void)src_type;
    for (int m = 0; m < count; m++) {
        const int8_t *row = src_rows[m];
        for (int64_t i = 0; i < k; i++) {
            out[i * ld + m] = row != NULL ? row[i] : 0;
        }
    }
}

static void int8_pack_weight_c(void *panel, const void *w, dk_dtype w_type, int64_t ld,
                               int cols, int64_t k)
{
    int8_t *out = panel;
    assert(w_type == DK_I8);
    (void)w_type;
    for (int n = 0; n < REF_NR; n++) {
        const int8_t *row = (const int8_t *)w + n * ld;
        for (int64_t i = 0; i < k; i++) {
            out[i * REF_NR + n] = n < cols ? row[i] : 0;
        }
    }
}

void dk_gemm_kernels_init(dk_gemm_kernels *kernels, unsigned cpu_flags)
{
    kernels->f32 = (dk_gemm_kernel){
        .name = "c-f32-4x8",
        .type = DK_F32,
        .mr = REF_MR,
        .nr = REF_NR,
        .a_group = 1,
        .b_group = 1,
        .b_unit = 1,
        .slice = 256,
        .tile = tile_c,
        .pack_rows = pack_rows_c,
        .pack_weight = pack_weight_c,
        .pack_matrix = pack_matrix_c,
        .direct = direct_c,
        .direct_most = 32,
    };
    kernels->bf16 = kernels->f32;
    kernels->int8 = (dk_gemm_kernel){
        .name = "c-int8-4x8",
        .type = DK_I8,
        .mr = REF_MR,
        .nr = REF_NR,
        .a_group = 1,
        .b_group = 1,
        .b_unit = 1,
        .slice = 1024,
        .tile = int8_tile_c,
        .pack_rows = int8_pack_rows_c,
        .pack_weight = int8_pack_weight_c,
    };
    dk_gemm_kernels_init_x86(kernels, cpu_flags);
}
