/* Normalisation over rows with what follows it, and RMS norm with rotary embedding. */
#include <math.h>
#include <string.h>

#include "kernels/kernelcheck.h"
#include "kernels/kernelcheck_device.h"
#include "kernels/norm.h"

static bool norm_is_new(const kc *k)
{
    dk_norm_kernels now, before;
    dk_norm_kernels_init(&now, k->flags);
    dk_norm_kernels_init(&before, k->below);
    return k->lowest || now.norm != before.norm;
}

static bool norm_rope_is_new(const kc *k)
{
    dk_norm_kernels now, before;
    dk_norm_kernels_init(&now, k->flags);
    dk_norm_kernels_init(&before, k->below);
    return k->lowest || now.norm_rope != before.norm_rope;
}

typedef struct norm_case {
    dk_norm_kind kind;
    int64_t cols;
    dk_dtype src, dst;
    int options; /* bits: weight, bias, scale, shift, one modulation for all, in place */
    dk_activation activation;
    kc_values values;
} norm_case;

enum { ROWS = 5, FIRST = 1, LAST = 4, OPTIONS = 64 };

/* A row's mean and factor with the bounds of their relative errors. */
typedef struct row_statistics {
    double mean, mean_error, factor, factor_error;
} row_statistics;

static row_statistics statistics(const dk_norm_args *a, const double *x)
{
    row_statistics s = {0};
    double n = (double)a->cols, sum = 0, all = 0, squares = 0, eps = a->eps;
    /* Squares are of one sign and may be alike, so that their roundings are too: growth n. */
    double growth = kc_growth(a->cols) * KC_U32, squared = (n + 4.0) * KC_U32;
    for (int64_t i = 0; i < a->cols; i++) {
        sum += x[i];
        all += fabs(x[i]);
    }
    if (a->kind == DK_NORM_LAYER) {
        s.mean = sum / n;
        s.mean_error = growth * all / n;
    }
    for (int64_t i = 0; i < a->cols; i++) {
        squares += (x[i] - s.mean) * (x[i] - s.mean);
    }
    if (a->kind == DK_NORM_L2) {
        s.factor = sqrt(n) / fmax(sqrt(squares), eps);
        s.factor_error = squared;
        return s;
    }
    /* The variance errs by its sum's rounding and by the mean's error d: 2 sqrt(var) d + d^2.
     */
    double variance = squares / n, d = s.mean_error;
    double error = squared * variance + 2.0 * sqrt(variance) * d + d * d;
    s.factor = 1.0 / sqrt(variance + eps);
    s.factor_error = 0.5 * error / (variance + eps) + 4.0 * KC_U32;
    return s;
}

static void expect_norm_row(kc *k, const dk_norm_args *a, const void *src, int64_t row)
{
    double *x = kc_alloc(k, (size_t)a->cols * sizeof *x);
    for (int64_t i = 0; i < a->cols; i++) {
        x[i] = kc_get(src, a->src_type, row * a->cols + i);
    }
    row_statistics s = statistics(a, x);
    for (int64_t i = 0; i < a->cols; i++) {
        int64_t at = row * a->cols + i, modulation = row * a->modulation_stride + i;
        kc_value v = {(x[i] - s.mean) * s.factor, 0};
        v.error = (s.mean_error + KC_U32 * fabs(x[i] - s.mean)) * s.factor +
                  (s.factor_error + KC_U32) * fabs(v.y) + KC_TINY;
        v = a->weight != NULL ? kc_multiplied(v, (double)a->weight[i]) : v;
        v = a->bias != NULL ? kc_plus(v, (double)a->bias[i]) : v;
        if (a->scale != NULL) {
            double by = 1.0 + (double)a->scale[modulation];
            v.error += KC_U32 * fabs(v.y);
            v = kc_multiplied(v, by);
            v.error += KC_U32 * fabs(v.y) * (1.0 + fabs(by)) + KC_U32 * fabs(v.y);
        }
        v = a->shift != NULL ? kc_plus(v, (double)a->shift[modulation]) : v;
        v = kc_activated(v, a->activation);
        v.error += kc_unit(a->dst_type) * (fabs(v.y) + v.error) + KC_TINY;
        kc_expect(k, at, kc_get(a->dst, a->dst_type, at), v.y, v.error);
    }
}

static void set_norm(kc *k, dk_norm_args *a, const norm_case *c)
{
    const bool shared = c->options & 16;
    *a = (dk_norm_args){.kind = c->kind,
                        .activation = c->activation,
                        .rows = ROWS,
                        .cols = c->cols,
                        .src_type = c->src,
                        .dst_type = c->dst,
                        .modulation_stride = shared ? 0 : c->cols + 1,
                        .eps = c->kind == DK_NORM_L2 ? 1e-12f : 1e-6f};
    int64_t count = ROWS * c->cols, modulation = (ROWS - 1) * a->modulation_stride + c->cols;
    void *src = kc_operand(k, c->src, count, c->values);
    if (c->values == KC_HARD) { /* a row of zeros */
        size_t row = (size_t)c->cols * dk_dtype_bytes(c->src);
        memset((char *)src + 2 * row, 0, row);
    }
    a->src = src;
    a->dst = (c->options & 32) != 0 && c->src == c->dst
                 ? src
                 : kc_operand(k, c->dst, count, KC_ORDINARY);
    a->weight = c->options & 1 ? kc_operand(k, DK_F32, c->cols, KC_ORDINARY) : NULL;
    a->bias = c->options & 2 ? kc_operand(k, DK_F32, c->cols, KC_ORDINARY) : NULL;
    a->scale = c->options & 4 ? kc_operand(k, DK_F32, modulation, KC_ORDINARY) : NULL;
    a->shift = c->options & 8 ? kc_operand(k, DK_F32, modulation, KC_ORDINARY) : NULL;
}

static void norm_rounds(kc *k, dk_norm_fn *norm, const norm_case *c)
{
    kc_case(k, 2, "kind %d, %lld columns, %s to %s, options %d, activation %d, values %d",
            (int)c->kind, (long long)c->cols, dk_dtype_name(c->src), dk_dtype_name(c->dst),
            c->options, (int)c->activation, (int)c->values);
    while (kc_next_round(k)) {
        dk_norm_args a;
        set_norm(k, &a, c);
        size_t row = (size_t)c->cols * dk_dtype_bytes(c->dst);
        const void *src = kc_copy(k, a.src, (size_t)(ROWS * c->cols) * dk_dtype_bytes(c->src));
        const void *before = kc_copy(k, a.dst, ROWS * row);
        if (k->device != NULL) {
            kc_device_norm(k, &a, FIRST, LAST);
        } else {
            norm(&a, FIRST, LAST);
        }
        kc_result(k, a.dst, ROWS * row);
        kc_untouched(k, a.dst, before, 0, FIRST * row);
        kc_untouched(k, a.dst, before, LAST * row, ROWS * row);
        for (int64_t r = FIRST; k->round == 0 && r < LAST; r++) {
            expect_norm_row(k, &a, src, r);
        }
    }
}

static void check_norm(kc *k)
{
    static const int64_t cols[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 1537};
    dk_norm_kernels kernels;
    int number = 0;
    dk_norm_kernels_init(&kernels, k->flags);
    for (int i = 0; i < KC_COUNT(cols); i++) {
        for (int kind = DK_NORM_LAYER; kind <= DK_NORM_L2; kind++) {
            for (int options = 0; options < OPTIONS; options++, number++) {
                const norm_case c = {.kind = (dk_norm_kind)kind,
                                     .cols = cols[i],
                                     .src = number / 2 % 2 ? DK_BF16 : DK_F32,
                                     .dst = number / 5 % 2 ? DK_BF16 : DK_F32,
                                     .options = options,
                                     .activation = (dk_activation)(number / 3 % 3),
                                     .values = number % 4 ? KC_ORDINARY : KC_HARD};
                norm_rounds(k, kernels.norm, &c);
            }
        }
    }
}

typedef struct rope_case {
    int heads, head_dim;
    bool per_head, weight, rotate;
    bool part; /* of rows whose other heads are elsewhere */
    dk_dtype type;
} rope_case;

static double *normed_row(kc *k, const dk_norm_rope_args *a, const void *data, int64_t row,
                          double *relative)
{
    int64_t cols = (int64_t)a->heads * a->head_dim, part = a->per_head ? a->head_dim : cols;
    double *x = kc_alloc(k, (size_t)cols * sizeof *x);
    for (int64_t i = 0; i < cols; i++) {
        x[i] = kc_get(data, a->type, row * a->stride + i);
    }
    *relative = 0;
    for (int64_t start = 0; a->weight != NULL && start < cols; start += part) {
        double squares = 0;
        for (int64_t i = start; i < start + part; i++) {
            squares += x[i] * x[i];
        }
        double mean = a->squares != NULL ? (double)a->squares[row] / (double)a->whole_cols
                                         : squares / (double)part;
        double factor = 1.0 / sqrt(mean + (double)a->eps);
        for (int64_t i = start; i < start + part; i++) {
            x[i] *= factor * (double)a->weight[a->per_head ? i - start : i];
        }
        *relative = kc_growth(part) * KC_U32;
    }
    return x;
}

/* A version may store the normed row before it rotates it: dst's rounding counts twice. */
static void expect_rope_row(kc *k, const dk_norm_rope_args *a, const void *before, int64_t row)
{
    double relative, unit = kc_unit(a->type);
    const double *x = normed_row(k, a, before, row, &relative);
    for (int64_t i = 0; i < (int64_t)a->heads * a->head_dim; i++) {
        double y = x[i], size = fabs(x[i]);
        if (a->cos != NULL) {
            int64_t at = row * (a->head_dim / 2) + i % a->head_dim / 2;
            double c = (double)a->cos[at], s = (double)a->sin[at];
            double other = i % 2 ? x[i - 1] : -x[i + 1];
            y = x[i] * c + other * s;
            size = fabs(x[i] * c) + fabs(other * s);
        }
        double allowed = (relative + 4.0 * KC_U32 + unit) * size + unit * fabs(y) + KC_TINY;
        kc_expect(k, row * a->stride + i, kc_get(a->data, a->type, row * a->stride + i), y,
                  allowed * 1.01);
    }
}

static void rope_rounds(kc *k, dk_norm_rope_fn *norm_rope, const rope_case *c)
{
    kc_case(k, 2, "%d heads of %d, %s%s%s%s%s", c->heads, c->head_dim, dk_dtype_name(c->type),
            c->per_head ? ", per head" : "", c->weight ? ", normed" : "",
            c->rotate ? ", rotated" : "", c->part ? ", part of a row" : "");
    while (kc_next_round(k)) {
        int64_t cols = (int64_t)c->heads * c->head_dim;
        dk_norm_rope_args a = {.rows = ROWS,
                               .heads = c->heads,
                               .head_dim = c->head_dim,
                               .per_head = c->per_head,
                               .type = c->type,
                               .stride = cols + kc_below(k, 4),
                               .eps = 1e-6f};
        size_t width = dk_dtype_bytes(c->type);
        size_t bytes = (size_t)((ROWS - 1) * a.stride + cols) * width;
        int64_t table = ROWS * (c->head_dim / 2);
        a.data = kc_operand(k, c->type, (ROWS - 1) * a.stride + cols, KC_ORDINARY);
        const void *before = kc_copy(k, a.data, bytes);
        if (c->weight) {
            a.weight = kc_operand(k, DK_F32, c->per_head ? c->head_dim : cols, KC_ORDINARY);
        }
        if (c->part) {
            float *squares = kc_alloc(k, ROWS * sizeof *squares);
            for (int row = 0; row < ROWS; row++) {
                squares[row] = (float)(cols * (2 + row));
            }
            a.squares = squares;
            a.whole_cols = 3 * cols;
        }
        if (c->rotate) {
            a.cos = kc_operand(k, DK_F32, table, KC_ORDINARY);
            a.sin = kc_operand(k, DK_F32, table, KC_ORDINARY);
        }
        if (k->device != NULL) {
            kc_device_norm_rope(k, &a, FIRST, LAST);
        } else {
            norm_rope(&a, FIRST, LAST);
        }
        kc_result(k, a.data, bytes);
        size_t end = 0;
        for (int64_t row = FIRST; row < LAST; row++) {
            kc_untouched(k, a.data, before, end, (size_t)(row * a.stride) * width);
            end = (size_t)(row * a.stride + cols) * width;
            if (k->round == 0) {
                expect_rope_row(k, &a, before, row);
            }
        }
        kc_untouched(k, a.data, before, end, bytes);
    }
}

static void check_norm_rope(kc *k)
{
    static const int dims[] = {2, 4, 6, 8, 10, 16, 18, 32, 40, 64, 128};
    static const int heads[] = {1, 3, 12};
    dk_norm_kernels kernels;
    dk_norm_kernels_init(&kernels, k->flags);
    for (int d = 0; d < KC_COUNT(dims); d++) {
        for (int bits = 0; bits < 16; bits++) {
            const rope_case c = {.heads = heads[(d + bits) % KC_COUNT(heads)],
                                 .head_dim = dims[d],
                                 .per_head = (bits & 1) != 0,
                                 .weight = (bits & 2) != 0,
                                 .rotate = (bits & 4) != 0,
                                 .type = bits & 8 ? DK_BF16 : DK_F32};
            rope_rounds(k, kernels.norm_rope, &c);
        }
    }
    for (int bits = 0; bits < 4; bits++) {
        const rope_case part = {.heads = 5,
                                .head_dim = 24,
                                .weight = true,
                                .part = true,
                                .rotate = (bits & 1) != 0,
                                .type = bits & 2 ? DK_BF16 : DK_F32};
        rope_rounds(k, kernels.norm_rope, &part);
    }
    /* Without rotation a head may be odd. */
    const rope_case odd = {.heads = 3, .head_dim = 7, .per_head = true, .weight = true};
    rope_rounds(k, kernels.norm_rope, &odd);
}

static bool row_squares_is_new(const kc *k)
{
    dk_norm_kernels now, before;
    dk_norm_kernels_init(&now, k->flags);
    dk_norm_kernels_init(&before, k->below);
    return k->lowest || now.row_squares != before.row_squares;
}

static void squares_rounds(kc *k, dk_row_squares_fn *row_squares, int heads, int head_dim,
                           dk_dtype type)
{
    kc_case(k, 2, "%d heads of %d, %s", heads, head_dim, dk_dtype_name(type));
    while (kc_next_round(k)) {
        int64_t cols = (int64_t)heads * head_dim;
        dk_norm_rope_args a = {.rows = ROWS,
                               .heads = heads,
                               .head_dim = head_dim,
                               .type = type,
                               .stride = cols + kc_below(k, 4)};
        a.data = kc_operand(k, type, (ROWS - 1) * a.stride + cols, KC_ORDINARY);
        float *squares = kc_alloc(k, ROWS * sizeof *squares);
        const void *before = kc_copy(k, squares, ROWS * sizeof *squares);
        if (k->device != NULL) {
            kc_device_row_squares(k, &a, squares, FIRST, LAST);
        } else {
            row_squares(&a, squares, FIRST, LAST);
        }
        kc_result(k, squares + FIRST, (LAST - FIRST) * sizeof *squares);
        kc_untouched(k, squares, before, 0, FIRST * sizeof *squares);
        kc_untouched(k, squares, before, LAST * sizeof *squares, ROWS * sizeof *squares);
        for (int row = FIRST; row < LAST; row++) {
            double sum = 0;
            for (int64_t i = 0; i < cols; i++) {
                double x = kc_get(a.data, type, row * a.stride + i);
                sum += x * x;
            }
            kc_expect(k, row, (double)squares[row], sum,
                      ((double)cols + 4.0) * KC_U32 * sum + KC_TINY);
        }
    }
}

static void check_row_squares(kc *k)
{
    static const int dims[] = {1, 2, 7, 16, 40, 128};
    dk_norm_kernels kernels;
    dk_norm_kernels_init(&kernels, k->flags);
    for (int d = 0; d < KC_COUNT(dims); d++) {
        squares_rounds(k, kernels.row_squares, 1 + d % 5, dims[d], DK_F32);
        squares_rounds(k, kernels.row_squares, 1 + d % 3, dims[d], DK_BF16);
    }
}

static const kc_test tests[] = {
    {"norm.row_squares", row_squares_is_new, check_row_squares, true},
    {"norm.norm", norm_is_new, check_norm, true},
    {"norm.norm_rope", norm_rope_is_new, check_norm_rope, true},
};

const kc_family kc_norm = {tests, KC_COUNT(tests)};
