/* Quantisation by the definition in quantize.h, whose f32 arithmetic fixes every bit. */
#include <math.h>
#include <string.h>

#include "kernels/kernelcheck.h"
#include "kernels/quantize.h"

static void tables(const kc *k, dk_quantize_kernels *now, dk_quantize_kernels *before)
{
    dk_quantize_kernels_init(now, k->flags);
    dk_quantize_kernels_init(before, k->below);
}

static bool rows_is_new(const kc *k)
{
    dk_quantize_kernels now, before;
    tables(k, &now, &before);
    return k->lowest || now.quantize_rows != before.quantize_rows;
}

static bool rescale_is_new(const kc *k)
{
    dk_quantize_kernels now, before;
    tables(k, &now, &before);
    return k->lowest || now.rescale != before.rescale;
}

enum { ROWS = 9 };

static void put(void *base, dk_dtype type, int64_t i, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (type == DK_F32) {
        ((float *)base)[i] = x;
    } else {
        ((uint16_t *)base)[i] = (uint16_t)(bits >> 16); /* the numbers below are exact */
    }
}

/* Rows that are a case of their own: zeros, too small, just large enough, halfway between two
   steps, the largest numbers, and what cannot be quantised. */
static void plant(void *src, dk_dtype type, int64_t stride, int64_t cols)
{
    for (int64_t i = 0; i < cols; i++) {
        put(src, type, 0 * stride + i, i % 2 ? 0.0f : -0.0f);
        put(src, type, 1 * stride + i, i == 0 ? 0x1p-101f : -0x1p-110f);
        put(src, type, 2 * stride + i, i == 0 ? 0x1p-100f : 0x1p-101f);
        put(src, type, 3 * stride + i, i == 0 ? -127.0f : (float)(i % 60) + 0.5f);
        put(src, type, 4 * stride + i, i % 3 ? 0x1.fep127f : -0x1.fep127f);
    }
    put(src, type, 5 * stride + cols - 1, NAN);
    put(src, type, 6 * stride + cols / 2, -INFINITY);
}

static void expect_row(kc *k, const dk_quantize_args *args, int64_t row)
{
    float top = 0, lost = 0;
    for (int64_t i = 0; i < args->cols; i++) {
        float x = (float)kc_get(args->src, args->src_type, row * args->src_stride + i);
        top = fmaxf(top, fabsf(x));
        lost += isfinite(x) ? 0.0f : NAN;
    }
    bool zero = isnan(lost) || top < DK_QUANTIZE_LEAST;
    float factor = 127.0f / top, scale = isnan(lost) ? NAN : zero ? 0.0f : top / 127.0f;
    kc_expect(k, row, (double)args->scales[row], (double)scale, 0);
    for (int64_t i = 0; i < args->cols; i++) {
        int64_t at = row * args->dst_stride + i;
        float x = (float)kc_get(args->src, args->src_type, row * args->src_stride + i);
        kc_expect(k, at, args->dst[at], zero ? 0.0 : (double)rintf(x * factor), 0);
    }
}

static void rows_case(kc *k, dk_quantize_rows_fn *quantize, dk_dtype type, int64_t cols,
                      kc_values values)
{
    kc_case(k, 2, "%s, %lld columns, values %d", dk_dtype_name(type), (long long)cols,
            (int)values);
    while (kc_next_round(k)) {
        int64_t stride = cols + kc_below(k, 3), dst_stride = cols + kc_below(k, 3);
        void *src = kc_operand(k, type, (ROWS - 1) * stride + cols, values);
        size_t bytes = (size_t)((ROWS - 1) * dst_stride + cols);
        plant(src, type, stride, cols);
        const dk_quantize_args args = {.cols = cols,
                                       .src = src,
                                       .src_type = type,
                                       .src_stride = stride,
                                       .dst = kc_alloc(k, bytes),
                                       .dst_stride = dst_stride,
                                       .scales = kc_alloc(k, ROWS * sizeof(float))};
        const int8_t *before = kc_copy(k, args.dst, bytes);
        quantize(&args, 0, 2);
        quantize(&args, 2, ROWS);
        kc_result(k, args.scales, ROWS * sizeof(float));
        for (int64_t row = 0; row < ROWS; row++) {
            size_t end = (size_t)(row * dst_stride + cols);
            if (row + 1 < ROWS) {
                kc_untouched(k, args.dst, before, end, end + (size_t)(dst_stride - cols));
            }
            expect_row(k, &args, row);
        }
    }
}

static void check_rows(kc *k)
{
    static const int64_t cols[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1027};
    dk_quantize_kernels kernels;
    dk_quantize_kernels_init(&kernels, k->flags);
    for (int i = 0; i < KC_COUNT(cols); i++) {
        for (int values = KC_ORDINARY; values <= KC_WILD; values++) {
            rows_case(k, kernels.quantize_rows, DK_F32, cols[i], (kc_values)values);
            rows_case(k, kernels.quantize_rows, DK_BF16, cols[i], (kc_values)values);
        }
    }
}

static void rescale_case(kc *k, dk_rescale_fn *rescale, int rows, int cols, kc_values values)
{
    kc_case(k, 2, "%d x %d, values %d", rows, cols, (int)values);
    while (kc_next_round(k)) {
        int64_t ld = cols + kc_below(k, 4), count = (rows - 1) * ld + cols;
        const float *row_scale = kc_operand(k, DK_F32, rows, values);
        const float *col_scale = kc_operand(k, DK_F32, cols, values);
        float *tile = kc_alloc(k, (size_t)count * sizeof *tile);
        for (int64_t i = 0; i < count; i++) {
            int32_t sum =
                (kc_below(k, 65536) << 15) * (kc_below(k, 2) ? 1 : -1) + kc_below(k, 9);
            memcpy(&tile[i], &sum, sizeof sum);
        }
        const float *before = kc_copy(k, tile, (size_t)count * sizeof *tile);
        rescale(tile, ld, rows, cols, row_scale, col_scale);
        for (int m = 0; m < rows; m++) {
            for (int n = 0; n < ld && m * ld + n < count; n++) {
                int64_t at = m * ld + n;
                int32_t sum;
                memcpy(&sum, &before[at], sizeof sum);
                if (n >= cols) {
                    kc_untouched(k, tile, before, (size_t)at * 4, (size_t)at * 4 + 4);
                    continue;
                }
                float want = (float)sum * row_scale[m] * col_scale[n];
                kc_expect(k, at, (double)tile[at], (double)want, 0);
            }
        }
    }
}

static void check_rescale(kc *k)
{
    static const int cols[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33};
    dk_quantize_kernels kernels;
    dk_quantize_kernels_init(&kernels, k->flags);
    for (int i = 0; i < KC_COUNT(cols); i++) {
        for (int rows = 1; rows <= 14; rows += 5) {
            rescale_case(k, kernels.rescale, rows, cols[i], KC_ORDINARY);
            rescale_case(k, kernels.rescale, rows, cols[i], KC_WILD);
        }
    }
}

static const kc_test tests[] = {
    {"quantize.rows", rows_is_new, check_rows, false},
    {"quantize.rescale", rescale_is_new, check_rescale, false},
};

const kc_family kc_quantize = {tests, KC_COUNT(tests)};
