/* Attention: the step of the online softmax, the scaling of rows, and whole attentions with
   head sizes and lengths off every block's size, strided biases, causal masks with rows that
   see nothing, strided rows and log-sum-exp. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/grouped_gemm.h"
#include "kernels/kernelcheck.h"
#include "kernels/kernelcheck_device.h"

static const double LOWEST = -1e30; /* the maximum before any key */

static void tables(const kc *k, dk_attention_kernels *now, dk_attention_kernels *before)
{
    dk_attention_kernels_init(now, k->flags);
    dk_attention_kernels_init(before, k->below);
}

static bool softmax_is_new(const kc *k)
{
    dk_attention_kernels now, before;
    tables(k, &now, &before);
    return k->lowest || now.softmax != before.softmax;
}

static bool scale_is_new(const kc *k)
{
    dk_attention_kernels now, before;
    tables(k, &now, &before);
    return k->lowest || now.scale_row != before.scale_row;
}

static bool any_is_new(const kc *k)
{
    dk_gemm_kernel gemms[KC_MOST_GEMMS];
    return softmax_is_new(k) || scale_is_new(k) || kc_new_gemms(k, gemms) > 0;
}

/* --- parts -------------------------------------------------------------------------------- */

typedef struct softmax_case {
    int rows, cols;
    float scale, spread; /* scores lie in ±spread */
    bool masked, started;
} softmax_case;

typedef struct softmax_data {
    int64_t ld;
    float *scores, *max, *sum, *shrink;
    const float *scores_before, *max_before, *sum_before;
} softmax_data;

static void softmax_operands(kc *k, softmax_data *d, const softmax_case *c)
{
    d->ld = c->cols + kc_below(k, 9);
    int64_t count = (c->rows - 1) * d->ld + c->cols;
    d->scores = kc_operand(k, DK_F32, count, KC_ORDINARY);
    for (int64_t i = 0; i < count; i++) {
        bool hidden = c->masked && (i / d->ld == 0 || kc_below(k, 3) == 0);
        d->scores[i] = hidden ? -INFINITY : d->scores[i] * c->spread;
    }
    d->max = kc_operand(k, DK_F32, c->rows, KC_ORDINARY);
    d->sum = kc_operand(k, DK_F32, c->rows, KC_ORDINARY);
    d->shrink = kc_alloc(k, (size_t)c->rows * sizeof(float));
    for (int m = 0; m < c->rows; m++) {
        bool begun = c->started && m % 3 != 2;
        d->max[m] = begun ? d->max[m] * c->spread * c->scale : (float)LOWEST;
        d->sum[m] = begun ? fabsf(d->sum[m]) * 100.0f : 0.0f;
    }
    d->scores_before = kc_copy(k, d->scores, (size_t)count * sizeof(float));
    d->max_before = kc_copy(k, d->max, (size_t)c->rows * sizeof(float));
    d->sum_before = kc_copy(k, d->sum, (size_t)c->rows * sizeof(float));
}

/* 2^difference with the bound of its error: that of the difference, whose terms are up to
   `size`, is multiplied by it; results below the smallest normal number may be flushed. */
static kc_value exponential(double difference, double size)
{
    double y = exp2(difference);
    return (kc_value){y, y * expm1(KC_U32 * (8.0 + 3.0 * size)) + 2.0 * KC_TINY};
}

static void expect_softmax_row(kc *k, const softmax_data *d, const softmax_case *c, int m)
{
    double top = d->max_before[m], sum = 0, error = 0;
    for (int n = 0; n < c->cols; n++) {
        top = fmax(top, (double)d->scores_before[m * d->ld + n] * (double)c->scale);
    }
    kc_expect(k, m, (double)d->max[m], top, KC_U32 * fabs(top));
    for (int n = 0; n < c->cols; n++) {
        double x = (double)d->scores_before[m * d->ld + n] * (double)c->scale;
        kc_value p = {0, 0};
        if (x > (double)-INFINITY) {
            p = exponential(x - top, fabs(x) + fabs(top));
        }
        kc_expect(k, m * d->ld + n, (double)d->scores[m * d->ld + n], p.y, p.error);
        sum += p.y;
        error += p.error;
    }
    double started = d->max_before[m];
    double size = started == top ? 0 : fmin(fabs(top) + fabs(started), 1e9);
    kc_value shrink = exponential(started - top, size);
    kc_expect(k, m, (double)d->shrink[m], shrink.y, shrink.error);
    double before = d->sum_before[m];
    error += kc_growth(c->cols) * KC_U32 * sum + before * (shrink.error + KC_U32 * shrink.y);
    kc_expect(k, m, (double)d->sum[m], sum + before * shrink.y, error);
}

static void softmax_rounds(kc *k, const dk_attention_kernels *kernels, const softmax_case *c)
{
    kc_case(k, 2, "%d x %d, scale %g, spread %g%s%s", c->rows, c->cols, (double)c->scale,
            (double)c->spread, c->masked ? ", masked" : "", c->started ? ", started" : "");
    while (kc_next_round(k)) {
        softmax_data d;
        softmax_operands(k, &d, c);
        kernels->softmax(&(dk_softmax_args){.scores = d.scores,
                                            .ld = d.ld,
                                            .rows = c->rows,
                                            .cols = c->cols,
                                            .scale = c->scale,
                                            .max = d.max,
                                            .sum = d.sum,
                                            .shrink = d.shrink});
        kc_result(k, d.scores, (size_t)((c->rows - 1) * d.ld + c->cols) * sizeof(float));
        for (int m = 0; m < c->rows; m++) {
            expect_softmax_row(k, &d, c, m);
            size_t end = (size_t)(m * d.ld + c->cols) * sizeof(float);
            size_t next = (size_t)((m + 1) * d.ld) * sizeof(float);
            kc_untouched(k, d.scores, d.scores_before, end, m + 1 < c->rows ? next : end);
        }
    }
}

/* The same step with packed results: bf16 of what stands in the scores otherwise, in groups. */
static void packed_rounds(kc *k, const dk_attention_kernels *kernels, const softmax_case *c)
{
    int group = kernels->packed_group, groups = (c->cols + group - 1) / group;
    kc_case(k, 2, "packed, %d x %d, scale %g, spread %g%s%s", c->rows, c->cols,
            (double)c->scale, (double)c->spread, c->masked ? ", masked" : "",
            c->started ? ", started" : "");
    while (kc_next_round(k)) {
        softmax_data d;
        softmax_operands(k, &d, c);
        int64_t ld = c->rows + kc_below(k, 3), count = groups * ld * group;
        uint16_t *packed = kc_alloc(k, (size_t)count * sizeof *packed);
        float *plain = kc_copy(k, d.scores_before,
                               (size_t)((c->rows - 1) * d.ld + c->cols) * sizeof(float));
        float *max = kc_copy(k, d.max, (size_t)c->rows * sizeof(float));
        float *sum = kc_copy(k, d.sum, (size_t)c->rows * sizeof(float));
        float *shrink = kc_alloc(k, (size_t)c->rows * sizeof(float));
        dk_softmax_args args = {.scores = plain,
                                .ld = d.ld,
                                .rows = c->rows,
                                .cols = c->cols,
                                .scale = c->scale,
                                .max = max,
                                .sum = sum,
                                .shrink = shrink};
        kernels->softmax(&args);
        args = (dk_softmax_args){.scores = d.scores,
                                 .ld = d.ld,
                                 .rows = c->rows,
                                 .cols = c->cols,
                                 .scale = c->scale,
                                 .max = d.max,
                                 .sum = d.sum,
                                 .shrink = d.shrink,
                                 .packed = packed,
                                 .packed_ld = ld};
        kernels->softmax(&args);
        for (int m = 0; m < c->rows; m++) {
            kc_expect(k, m, (double)d.max[m], (double)max[m], 0);
            kc_expect(k, m, (double)d.shrink[m], (double)shrink[m], 0);
            kc_expect(k, m, (double)d.sum[m], (double)sum[m],
                      kc_growth(c->cols) * KC_U32 * fabs((double)sum[m]));
            for (int n = 0; n < groups * group; n++) {
                double got = kc_get(packed, DK_BF16, (n / group * ld + m) * group + n % group);
                double want = n < c->cols ? (double)plain[m * d.ld + n] : 0;
                kc_expect(k, m * d.ld + n, got, want, fabs(want) / 256 + 2.0 * KC_TINY);
            }
        }
    }
}

static void check_softmax(kc *k)
{
    static const int rows[] = {1, 5, 8}, cols[] = {16, 32, 48, 256};
    static const float spreads[] = {1, 30, 1000, 1e8f};
    dk_attention_kernels kernels;
    dk_attention_kernels_init(&kernels, k->flags);
    for (int i = 0; i < KC_COUNT(rows) * KC_COUNT(cols); i++) {
        for (int s = 0; s < KC_COUNT(spreads); s++) {
            for (int bits = 0; bits < 4; bits++) {
                const softmax_case c = {.rows = rows[i % KC_COUNT(rows)],
                                        .cols = cols[i / KC_COUNT(rows)],
                                        .scale = bits % 3 ? 0.0883883461f : 1.0f,
                                        .spread = spreads[s],
                                        .masked = (bits & 1) != 0,
                                        .started = (bits & 2) != 0};
                softmax_rounds(k, &kernels, &c);
                if (kernels.packed_group > 0) {
                    packed_rounds(k, &kernels, &c);
                }
            }
        }
    }
}

static void check_scale(kc *k)
{
    static const int64_t counts[] = {1, 3, 7, 8, 15, 16, 17, 33, 64, 513};
    static const float factors[] = {0.0f, 1.0f, -1.7f, 1e-30f};
    dk_attention_kernels kernels;
    dk_attention_kernels_init(&kernels, k->flags);
    for (int i = 0; i < KC_COUNT(counts) * KC_COUNT(factors) * 3; i++) {
        int64_t count = counts[i / 3 % KC_COUNT(counts)];
        float factor = factors[i / 3 / KC_COUNT(counts)];
        dk_dtype type = i % 3 == 2 ? DK_BF16 : DK_F32;
        kc_case(k, 2, "%lld elements by %g to %s%s", (long long)count, (double)factor,
                dk_dtype_name(type), i % 3 == 1 ? ", in place" : "");
        while (kc_next_round(k)) {
            float *src = kc_operand(k, DK_F32, count, KC_WILD);
            const float *before = kc_copy(k, src, (size_t)count * sizeof *src);
            void *dst = i % 3 == 1 ? src : kc_alloc(k, (size_t)count * dk_dtype_bytes(type));
            kernels.scale_row(dst, type, src, factor, count);
            kc_result(k, dst, (size_t)count * dk_dtype_bytes(type));
            for (int64_t n = 0; n < count; n++) {
                /* One product, rounded once or twice, always exactly. */
                double want = kc_rounded((double)before[n] * (double)factor, type);
                kc_expect(k, n, kc_get(dst, type, n), want, type == DK_BF16 ? KC_TINY : 0);
            }
        }
    }
}

/* --- the whole ---------------------------------------------------------------------------- */

typedef enum bias_kind {
    NO_BIAS,
    FULL_BIAS,     /* [heads][q][k] */
    KEY_BIAS,      /* [k], the same for all heads and queries, some of it -inf */
    RELATIVE_BIAS, /* [heads][distance], distance k - q */
    BACKWARD_BIAS, /* [q][k] with the keys stored last to first */
} bias_kind;

typedef struct attention_case {
    int heads, head_dim, q_len, kv_len;
    bool causal;
    bias_kind bias;
    float scale; /* 0: 1 / sqrt(head_dim) */
} attention_case;

static const attention_case cases[] = {
    {1, 1, 1, 1, false, NO_BIAS, 0},
    {2, 5, 7, 3, false, NO_BIAS, 0},
    {3, 16, 100, 513, false, FULL_BIAS, 0},
    {2, 40, 97, 257, false, KEY_BIAS, 0},
    {2, 64, 193, 513, true, NO_BIAS, 0},
    {2, 64, 33, 33, true, RELATIVE_BIAS, 1.0f},
    {1, 128, 96, 256, false, NO_BIAS, 0},
    {2, 128, 5, 300, true, BACKWARD_BIAS, 0},
    {1, 512, 13, 77, false, NO_BIAS, 0},
    {2, 40, 50, 20, true, NO_BIAS, 0},  /* the first 30 queries see nothing */
    {1, 16, 300, 3, true, KEY_BIAS, 0}, /* whole blocks of queries see nothing */
    {1, 5, 1, 1300, false, NO_BIAS, 4.0f},
    {9, 8, 1100, 20, false, NO_BIAS, 0}, /* tasks of whole blocks, of halves and of quarters */
};

typedef struct attention_data {
    dk_attention_args args;
    double *q, *k, *v; /* as the panels hold them */
    double *lost; /* [q_len][heads] of each score, where the mean was taken from the keys */
    size_t dst_bytes, lse_count;
    const float *biases; /* [bias_count], args.bias points into it */
    int64_t bias_count;
    const void *dst_before;
} attention_data;

static void set_bias(kc *k, attention_data *data, bias_kind kind)
{
    dk_attention_args *a = &data->args;
    int64_t q = a->q_len, keys = a->kv_len;
    int64_t count = kind == FULL_BIAS       ? a->heads * q * keys
                    : kind == KEY_BIAS      ? keys
                    : kind == RELATIVE_BIAS ? a->heads * (q + keys - 1)
                                            : q * keys;
    float *bias = kc_operand(k, DK_F32, count, KC_ORDINARY);
    data->biases = a->bias = bias;
    data->bias_count = count;
    a->bias_k = 1;
    switch (kind) {
    case FULL_BIAS:
        a->bias_head = q * keys;
        a->bias_q = keys;
        break;
    case KEY_BIAS:
        for (int64_t i = 1; i < keys; i += 2) {
            bias[i] = -INFINITY;
        }
        break;
    case RELATIVE_BIAS:
        a->bias_head = q + keys - 1;
        a->bias_q = -1;
        a->bias += q - 1; /* distance 0 */
        break;
    case BACKWARD_BIAS:
        a->bias_q = keys;
        a->bias_k = -1;
        a->bias += keys - 1;
        break;
    default:
        a->bias = NULL;
        break;
    }
}

static void set_operands(kc *k, attention_data *data, const attention_case *c, dk_dtype type,
                         dk_dtype panels)
{
    int64_t width = (int64_t)c->heads * c->head_dim;
    dk_attention_args *a = &data->args;
    *a = (dk_attention_args){.heads = c->heads,
                             .head_dim = c->head_dim,
                             .q_len = c->q_len,
                             .kv_len = c->kv_len,
                             .type = type,
                             .q_stride = width + kc_below(k, 3),
                             .k_stride = width + kc_below(k, 3),
                             .v_stride = width + kc_below(k, 3),
                             .dst_stride = width + kc_below(k, 5),
                             .causal = c->causal};
    a->scale = c->scale > 0.0f ? c->scale : 1.0f / sqrtf((float)c->head_dim);
    int64_t q = (c->q_len - 1) * a->q_stride + width;
    int64_t keys = (c->kv_len - 1) * a->k_stride + width;
    int64_t values = (c->kv_len - 1) * a->v_stride + width;
    a->q = kc_operand(k, type, q, KC_ORDINARY);
    a->k = kc_operand(k, type, keys, KC_ORDINARY);
    a->v = kc_operand(k, type, values, KC_ORDINARY);
    data->q = kc_plain(k, a->q, type, q, panels);
    data->k = kc_plain(k, a->k, type, keys, panels);
    data->v = kc_plain(k, a->v, type, values, panels);
    int64_t count = (c->q_len - 1) * a->dst_stride + width;
    data->dst_bytes = (size_t)count * dk_dtype_bytes(type);
    a->dst = kc_operand(k, type, count, KC_ORDINARY);
    data->dst_before = kc_copy(k, a->dst, data->dst_bytes);
    data->lse_count = (size_t)(c->heads * c->q_len);
    a->lse = kc_alloc(k, data->lse_count * sizeof(float));
    data->lost = NULL;
    set_bias(k, data, c->bias);
}

/* Rounds `count` values to int8 steps of their own, as the contract of quantize_rows says. */
static void quantize_row(double *row, int count)
{
    float top = 0;
    for (int i = 0; i < count; i++) {
        top = fmaxf(top, fabsf((float)row[i]));
    }
    float factor = 127.0f / top, scale = top / 127.0f;
    for (int i = 0; i < count; i++) {
        row[i] = top < DK_QUANTIZE_LEAST
                     ? 0.0
                     : (double)rintf((float)row[i] * factor) * (double)scale;
    }
}

/* Queries and keys as sage holds them: keys less their mean over the sequence. */
static void quantize_operands(kc *k, attention_data *data)
{
    const dk_attention_args *a = &data->args;
    int dim = a->head_dim;
    data->lost = kc_alloc(k, (size_t)(a->q_len * a->heads) * sizeof *data->lost);
    float *mean = kc_alloc(k, (size_t)dim * sizeof *mean);
    for (int h = 0; h < a->heads; h++) {
        for (int i = 0; i < dim; i++) {
            float sum = 0;
            for (int64_t j = 0; j < a->kv_len; j++) {
                sum += (float)data->k[j * a->k_stride + h * dim + i];
            }
            mean[i] = sum / (float)a->kv_len;
        }
        for (int64_t j = 0; j < a->kv_len; j++) {
            double *row = &data->k[j * a->k_stride + h * dim];
            for (int i = 0; i < dim; i++) {
                row[i] = (double)((float)row[i] - mean[i]);
            }
            quantize_row(row, dim);
        }
        for (int64_t q = 0; q < a->q_len; q++) {
            double *row = &data->q[q * a->q_stride + h * dim], sum = 0;
            for (int i = 0; i < dim; i++) {
                sum += row[i] * (double)mean[i];
            }
            data->lost[q * a->heads + h] = sum * (double)a->scale;
            quantize_row(row, dim);
        }
    }
}

/* Scores of one row, and the largest sum of sizes that one of them was summed from. */
static double row_scores(const attention_data *data, int h, int64_t q, double *scores)
{
    const dk_attention_args *a = &data->args;
    double most = 0;
    for (int64_t j = 0; j < a->kv_len; j++) {
        double dot = 0, all = 0;
        for (int i = 0; i < a->head_dim; i++) {
            double product = data->q[q * a->q_stride + h * a->head_dim + i] *
                             data->k[j * a->k_stride + h * a->head_dim + i];
            dot += product;
            all += fabs(product);
        }
        dot *= (double)a->scale;
        if (a->bias != NULL) {
            dot += (double)a->bias[h * a->bias_head + q * a->bias_q + j * a->bias_k];
        }
        bool hidden = a->causal && j > q + a->kv_len - a->q_len;
        scores[j] = hidden ? (double)-INFINITY : dot;
        most = fmax(most, all * (double)a->scale);
    }
    return most;
}

/* Row q of head h against the definition. Errors: scores err by e (their sums' rounding), so
   probabilities by the factor 2 e; the panels' type rounds them once more; sums over keys and
   the repeated shrinking add their growth; dst rounds. Parts of the keys go on where the one
   before ended and add nothing. */
static void expect_row(kc *k, const attention_data *data, dk_dtype panels, int h, int64_t q,
                       double *scores)
{
    const dk_attention_args *a = &data->args;
    double most = row_scores(data, h, q, scores), max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < a->kv_len; j++) {
        max = fmax(max, scores[j]);
    }
    bool blind = max == (double)-INFINITY;
    for (int64_t j = 0; j < a->kv_len; j++) {
        scores[j] = blind ? 0 : exp(scores[j] - max);
        sum += scores[j];
    }
    double e = kc_growth(a->head_dim) * KC_U32 * (most + 1.0) +
               4.0 * KC_U32 * (blind ? 0 : fabs(max) + 1.0);
    double relative = 2.0 * e + kc_growth(a->kv_len) * KC_U32;
    double lse = blind ? max : max + log(sum);
    lse += data->lost != NULL ? data->lost[q * a->heads + h] : 0;
    kc_expect(k, h * a->q_len + q, (double)a->lse[h * a->q_len + q], lse,
              blind ? 0 : relative + 2.0 * KC_U32 * (fabs(lse) + 1.0));
    relative += panels == DK_BF16 ? KC_UBF16 : 0;
    for (int i = 0; i < a->head_dim; i++) {
        double y = 0, all = 0;
        for (int64_t j = 0; j < a->kv_len; j++) {
            double term = scores[j] * data->v[j * a->v_stride + h * a->head_dim + i];
            y += term;
            all += fabs(term);
        }
        y = blind ? 0 : y / sum;
        all = blind ? 0 : all / sum;
        int64_t at = q * a->dst_stride + h * a->head_dim + i;
        kc_expect(k, at, kc_get(a->dst, a->type, at), y,
                  2.0 * relative * all + kc_unit(a->type) * fabs(y) * 1.01);
    }
}

static void run_attention(kc *k, const dk_attention_kernels *kernels,
                          const dk_attention_plan *plan, const dk_attention_args *a)
{
    void *packed = kc_alloc(k, plan->packed_bytes), *scratch = kc_alloc(k, plan->scratch_bytes);
    if (plan->packed_bytes % DK_ALIGNMENT != 0 || plan->scratch_bytes % DK_ALIGNMENT != 0) {
        kc_fail(k, "the plan's memory is no multiple of %d bytes", DK_ALIGNMENT);
    }
    int first = a->heads * plan->pack_blocks, second = plan->cut.tasks;
    for (int task = 0; task < plan->mean_tasks; task++) {
        dk_attention_mean(plan, a, task, packed, scratch);
    }
    for (int task = 0; task < first; task++) {
        int number = k->round % 2 ? first - 1 - task : task;
        dk_attention_pack(kernels, plan, a, number, packed, scratch);
    }
    for (int task = 0; task < second; task++) {
        int number = k->round % 2 ? second - 1 - task : task;
        dk_attention_block(kernels, plan, a, number, packed, scratch);
    }
}

static void expect_attention(kc *k, const attention_data *data, dk_dtype panels)
{
    const dk_attention_args *a = &data->args;
    size_t end = 0, width = dk_dtype_bytes(a->type);
    kc_result(k, a->dst, data->dst_bytes);
    for (int64_t q = 0; q < a->q_len; q++) {
        size_t start = (size_t)(q * a->dst_stride) * width;
        kc_untouched(k, a->dst, data->dst_before, end, start);
        end = start + (size_t)(a->heads * a->head_dim) * width;
    }
    double *scores = kc_alloc(k, (size_t)a->kv_len * sizeof *scores);
    for (int64_t row = 0; k->round == 0 && row < a->heads * a->q_len; row++) {
        if (!kc_looks_at(k, row) && row > 0) {
            continue;
        }
        expect_row(k, data, panels, (int)(row / a->q_len), row % a->q_len, scores);
    }
}

static void attention_rounds(kc *k, const dk_attention_kernels *kernels,
                             const attention_case *c, dk_dtype type,
                             dk_attention_backend backend)
{
    const dk_gemm_kernel *gemm =
        backend == DK_ATTENTION_REFERENCE ? &kernels->gemm.f32 : &kernels->gemm.bf16;
    bool quantized = backend == DK_ATTENTION_SAGE && c->bias == NO_BIAS && !c->causal;
    kc_case(k, 2, "%d heads of %d, %d x %d, %s, bias %d%s, %s", c->heads, c->head_dim, c->q_len,
            c->kv_len, dk_dtype_name(type), (int)c->bias, c->causal ? ", causal" : "",
            quantized ? kernels->gemm.int8.name : gemm->name);
    while (kc_next_round(k)) {
        attention_data data;
        dk_attention_plan plan;
        set_operands(k, &data, c, type, gemm->type);
        dk_attention_plan_init(&plan, kernels, &data.args, backend, kc_threads(k));
        if (quantized) {
            quantize_operands(k, &data);
        }
        run_attention(k, kernels, &plan, &data.args);
        expect_attention(k, &data, gemm->type);
    }
}

/* The same keys in uneven parts, one after the other. */
static void parts_rounds(kc *k, const dk_attention_kernels *kernels, const attention_case *c,
                         dk_dtype type, dk_attention_backend backend)
{
    const dk_gemm_kernel *gemm =
        backend == DK_ATTENTION_REFERENCE ? &kernels->gemm.f32 : &kernels->gemm.bf16;
    enum { MOST_PARTS = 3 };
    int parts = c->kv_len < MOST_PARTS ? c->kv_len : MOST_PARTS;
    kc_case(k, 2, "%d heads of %d, %d x %d, %s, in %d parts, %s", c->heads, c->head_dim,
            c->q_len, c->kv_len, dk_dtype_name(type), parts, gemm->name);
    while (kc_next_round(k)) {
        attention_data data;
        set_operands(k, &data, c, type, gemm->type);
        dk_attention_args part = data.args;
        size_t width = dk_dtype_bytes(type);
        part.sum = kc_alloc(k, (size_t)(c->q_len * c->heads * c->head_dim) * sizeof *part.sum);
        part.running = kc_alloc(k, (size_t)(2 * c->q_len * c->heads) * sizeof *part.running);
        int64_t begin = 0;
        for (int i = 0; i < parts; i++) {
            dk_attention_plan plan;
            int64_t end = begin + 1 + (c->kv_len - parts) / (i + 2);
            end = i + 1 == parts ? c->kv_len : end;
            part.k = (const char *)data.args.k + (size_t)(begin * part.k_stride) * width;
            part.v = (const char *)data.args.v + (size_t)(begin * part.v_stride) * width;
            part.kv_len = end - begin;
            part.first = i == 0;
            part.last = i + 1 == parts;
            dk_attention_plan_init(&plan, kernels, &part, backend, kc_threads(k));
            if (memcmp(part.dst, data.dst_before, data.dst_bytes) != 0) {
                kc_fail(k, "dst is touched before the last part");
            }
            run_attention(k, kernels, &plan, &part);
            begin = end;
        }
        expect_attention(k, &data, gemm->type);
    }
}

static void attention_of_device(kc *k, const attention_case *c, dk_dtype type)
{
    dk_dtype panels = type == DK_BF16 ? k->panels : DK_F32;
    kc_case(k, 2, "%d heads of %d, %d x %d, %s, bias %d%s", c->heads, c->head_dim, c->q_len,
            c->kv_len, dk_dtype_name(type), (int)c->bias, c->causal ? ", causal" : "");
    while (kc_next_round(k)) {
        attention_data data;
        set_operands(k, &data, c, type, panels);
        kc_device_attention(k, &data.args, data.biases, data.bias_count);
        expect_attention(k, &data, panels);
    }
}

static void check_attention(kc *k)
{
    dk_attention_kernels kernels;
    dk_attention_kernels_init(&kernels, k->flags);
    if (k->lowest) {
        kernels.gemm.bf16 = grouped_gemm(); /* composition must assume no kernel's shape */
        kernels.gemm.int8 = grouped_int8_gemm();
    }
    for (int i = 0; i < KC_COUNT(cases) && k->device != NULL; i++) {
        attention_of_device(k, &cases[i], DK_F32);
        attention_of_device(k, &cases[i], DK_BF16);
    }
    for (int i = 0; i < KC_COUNT(cases) && k->device == NULL; i++) {
        attention_rounds(k, &kernels, &cases[i], DK_F32, DK_ATTENTION_REFERENCE);
        attention_rounds(k, &kernels, &cases[i], DK_BF16, DK_ATTENTION_REFERENCE);
        attention_rounds(k, &kernels, &cases[i], DK_BF16, DK_ATTENTION_FLASH);
        attention_rounds(k, &kernels, &cases[i], DK_BF16, DK_ATTENTION_SAGE);
        if (cases[i].bias == NO_BIAS && !cases[i].causal) {
            parts_rounds(k, &kernels, &cases[i], DK_F32, DK_ATTENTION_REFERENCE);
            parts_rounds(k, &kernels, &cases[i], DK_BF16, DK_ATTENTION_REFERENCE);
            parts_rounds(k, &kernels, &cases[i], DK_BF16, DK_ATTENTION_FLASH);
        }
    }
}

static const kc_test tests[] = {
    {"attention.softmax", softmax_is_new, check_softmax, false},
    {"attention.scale_row", scale_is_new, check_scale, false},
    {"attention", any_is_new, check_attention, true},
};

const kc_family kc_attention = {tests, KC_COUNT(tests)};
