/* Every way that the XPU module computes attention, on the CPU device of SYCL, against the
   definition in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "device/device.h"
#include "scratch.h"
#include "tensor/convert.h"

/* A call: sizes, and how rows and biases lie. */
typedef struct scene {
    int heads, head_dim;
    int64_t q_len, kv_len;
    dk_dtype type;
    int64_t gap; /* elements between the end of a row and the next */
    bool causal, lse;
    int bias; /* see enum */
    bool sage;
} scene;
enum { NO_BIAS, PER_KEY, PER_PAIR, RELATIVE, BIASES };

/* Host copies of a call's operands, as f32 that are exact in its type. */
typedef struct operands {
    float *q, *k, *v, *bias;
    float *exact_q, *exact_k; /* before sage rounded them; NULL: it did not */
    double *dst, *lse;        /* [q_len][heads * head_dim], [heads][q_len] */
    int64_t q_stride, kv_stride, dst_stride, bias_head, bias_q, bias_k, bias_count, bias_start;
} operands;

static uint32_t state = 1;

/* Roughly normal. */
static float draw(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        state = state * 1664525u + 1013904223u;
        sum += (float)(state >> 8) / 16777216.0f - 0.5f;
    }
    return sum * 1.7f;
}

static float *fill(int64_t count, dk_dtype type)
{
    float *values = dk_alloc((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++) {
        values[i] = draw();
        if (type == DK_BF16) {
            uint16_t bits;
            dk_convert_from_f32(&bits, DK_BF16, &values[i], 1);
            dk_convert_to_f32(&values[i], &bits, DK_BF16, 1);
        }
    }
    return values;
}

static float *copy_of(const float *values, int64_t count)
{
    float *copy = dk_alloc((size_t)count * sizeof *copy);
    memcpy(copy, values, (size_t)count * sizeof *copy);
    return copy;
}

static void lay_out_bias(operands *o, const scene *s)
{
    switch (s->bias) {
    case PER_KEY:
        o->bias_k = 1;
        o->bias_count = s->kv_len;
        break;
    case PER_PAIR:
        o->bias_k = 1;
        o->bias_q = s->kv_len;
        o->bias_head = s->kv_len * s->q_len;
        o->bias_count = o->bias_head * s->heads;
        break;
    case RELATIVE:
        o->bias_k = 1;
        o->bias_q = -1;
        o->bias_head = s->q_len + s->kv_len;
        o->bias_start = s->q_len;
        o->bias_count = o->bias_head * s->heads + s->q_len;
        break;
    default:
        break;
    }
}

/* A row of a head as whole numbers of steps, as kernels/quantize.h says. */
static void quantize(float *row, int count)
{
    float top = 0;
    for (int i = 0; i < count; i++) {
        top = fmaxf(top, fabsf(row[i]));
    }
    float factor = top > 0 ? 127.0f / top : 0;
    for (int i = 0; i < count; i++) {
        row[i] = rintf(row[i] * factor) * (top / 127.0f);
    }
}

/* What sage computes with: keys less their mean, then both in whole numbers. Takes the change
   of the scores to lse. */
static void quantize_operands(operands *o, const scene *s, double scale)
{
    double *mean = dk_alloc((size_t)s->head_dim * sizeof *mean);
    for (int h = 0; h < s->heads; h++) {
        int at = h * s->head_dim;
        memset(mean, 0, (size_t)s->head_dim * sizeof *mean);
        for (int64_t key = 0; key < s->kv_len; key++) {
            for (int d = 0; d < s->head_dim; d++) {
                mean[d] += (double)o->k[key * o->kv_stride + at + d] / (double)s->kv_len;
            }
        }
        for (int64_t key = 0; key < s->kv_len; key++) {
            float *row = o->k + key * o->kv_stride + at;
            for (int d = 0; d < s->head_dim; d++) {
                row[d] -= (float)mean[d];
            }
            quantize(row, s->head_dim);
        }
        for (int64_t q = 0; q < s->q_len; q++) {
            float *row = o->q + q * o->q_stride + at;
            for (int d = 0; d < s->head_dim; d++) {
                o->lse[h * s->q_len + q] += row[d] * mean[d] * scale;
            }
            quantize(row, s->head_dim);
        }
    }
    dk_free(mean);
}

/* The definition, one query of one head. */
static void define_row(operands *o, const scene *s, int head, int64_t row, double scale)
{
    int64_t at = (int64_t)head * s->head_dim;
    double *out = o->dst + row * s->heads * s->head_dim + at;
    double *score = dk_alloc((size_t)s->kv_len * sizeof *score), most = -INFINITY, sum = 0;
    int64_t seen = s->causal ? row + s->kv_len - s->q_len + 1 : s->kv_len;
    seen = seen > s->kv_len ? s->kv_len : seen;
    for (int64_t key = 0; key < seen; key++) {
        double dot = 0;
        for (int d = 0; d < s->head_dim; d++) {
            dot += (double)o->q[row * o->q_stride + at + d] * o->k[key * o->kv_stride + at + d];
        }
        score[key] = dot * scale;
        if (s->bias != NO_BIAS) {
            score[key] += o->bias[o->bias_start + head * o->bias_head + row * o->bias_q +
                                  key * o->bias_k];
        }
        most = score[key] > most ? score[key] : most;
    }
    for (int64_t key = 0; key < seen; key++) {
        double weight = exp(score[key] - most);
        sum += weight;
        for (int d = 0; d < s->head_dim; d++) {
            out[d] += weight * o->v[key * o->kv_stride + at + d];
        }
    }
    for (int d = 0; d < s->head_dim && seen > 0; d++) {
        out[d] /= sum;
    }
    o->lse[head * s->q_len + row] += seen > 0 ? most + log(sum) : -INFINITY;
    dk_free(score);
}

static void define(operands *o, const scene *s)
{
    double scale = 1.0 / sqrt(s->head_dim);
    int64_t cols = (int64_t)s->heads * s->head_dim;
    *o = (operands){.q_stride = cols + s->gap, .kv_stride = cols + 2 * s->gap};
    o->dst_stride = cols + 3 * s->gap;
    lay_out_bias(o, s);
    o->q = fill(s->q_len * o->q_stride, s->type);
    o->k = fill(s->kv_len * o->kv_stride, s->type);
    o->v = fill(s->kv_len * o->kv_stride, s->type);
    o->bias = fill(o->bias_count, DK_F32);
    o->dst = dk_alloc((size_t)(s->q_len * cols) * sizeof *o->dst);
    o->lse = dk_alloc((size_t)(s->q_len * s->heads) * sizeof *o->lse);
    if (s->sage && s->bias == NO_BIAS && !s->causal) {
        o->exact_q = copy_of(o->q, s->q_len * o->q_stride);
        o->exact_k = copy_of(o->k, s->kv_len * o->kv_stride);
        quantize_operands(o, s, scale);
    }
    for (int head = 0; head < s->heads; head++) {
        for (int64_t row = 0; row < s->q_len; row++) {
            define_row(o, s, head, row, scale);
        }
    }
}

static void release(operands *o)
{
    dk_free(o->q);
    dk_free(o->k);
    dk_free(o->exact_q);
    dk_free(o->exact_k);
    dk_free(o->v);
    dk_free(o->bias);
    dk_free(o->dst);
    dk_free(o->lse);
}

static void *device_memory(dk_device *device, int64_t count, size_t width)
{
    void *memory;
    size_t bytes = (size_t)(count > 0 ? count : 1) * width;
    assert_int_equal(dk_device_alloc(device, &memory, bytes, "a test", NULL), DK_OK);
    return memory;
}

static void *to_device(dk_device *device, const float *values, int64_t count, dk_dtype type)
{
    size_t width = dk_dtype_bytes(type);
    void *memory = device_memory(device, count, width), *host = dk_alloc((size_t)count * width);
    dk_convert_from_f32(host, type, values, count);
    dk_device_write(device, memory, host, (size_t)count * width);
    dk_free(host);
    return memory;
}

static float *from_device(dk_device *device, const void *memory, int64_t count, dk_dtype type)
{
    size_t width = dk_dtype_bytes(type);
    void *host = dk_alloc((size_t)count * width);
    float *values = dk_alloc((size_t)count * sizeof *values);
    dk_device_read(device, host, memory, (size_t)count * width);
    dk_convert_to_f32(values, host, type, count);
    dk_free(host);
    return values;
}

/* What the gaps between rows hold: nothing may touch it. */
enum { CANARY = 7 };

/* Runs a call, dry first as engines do. Output: dst [q_len][dst_stride], lse; owned. o: of a
   scene that may have more keys, which follow. */
static void compute(dk_device *device, const scene *s, const operands *o, float **dst,
                    float **lse)
{
    dk_error err = {0};
    int64_t count = s->q_len * o->dst_stride, heads = s->heads;
    float *canary = dk_alloc((size_t)count * sizeof *canary);
    for (int64_t i = 0; i < count; i++) {
        canary[i] = CANARY;
    }
    const float *exact_q = o->exact_q != NULL ? o->exact_q : o->q;
    const float *exact_k = o->exact_k != NULL ? o->exact_k : o->k;
    void *q = to_device(device, exact_q, s->q_len * o->q_stride, s->type);
    void *k = to_device(device, exact_k, s->kv_len * o->kv_stride, s->type);
    void *v = to_device(device, o->v, s->kv_len * o->kv_stride, s->type);
    float *bias = to_device(device, o->bias, o->bias_count, DK_F32);
    void *out = to_device(device, canary, count, s->type);
    float *sums = device_memory(device, heads * s->q_len, sizeof *sums);
    dk_attention_args args = {.heads = s->heads, .head_dim = s->head_dim, .q_len = s->q_len};
    args.kv_len = s->kv_len;
    args.q = q;
    args.k = k;
    args.v = v;
    args.dst = out;
    args.type = s->type;
    args.q_stride = o->q_stride;
    args.k_stride = args.v_stride = o->kv_stride;
    args.dst_stride = o->dst_stride;
    args.scale = (float)(1.0 / sqrt(s->head_dim));
    args.causal = s->causal;
    args.bias = s->bias != NO_BIAS ? bias + o->bias_start : NULL;
    args.bias_head = o->bias_head;
    args.bias_q = o->bias_q;
    args.bias_k = o->bias_k;
    args.lse = s->lse ? sums : NULL;
    dk_device_set_dry(device, true);
    dk_device_attention(device, &args);
    dk_device_set_dry(device, false);
    dk_device_attention(device, &args);
    if (dk_device_sync(device, &err) != DK_OK) {
        fail_msg("%s", err.message);
    }
    *dst = from_device(device, out, count, s->type);
    *lse = from_device(device, sums, heads * s->q_len, DK_F32);
    void *all[] = {q, k, v, bias, out, sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        dk_device_free(device, all[i]);
    }
    dk_free(canary);
}

static void describe(char *text, size_t bytes, const scene *s)
{
    snprintf(text, bytes, "%d x %d, %lld queries, %lld keys, %s, gap %lld%s, bias %d%s",
             s->heads, s->head_dim, (long long)s->q_len, (long long)s->kv_len,
             s->type == DK_BF16 ? "bf16" : "f32", (long long)s->gap,
             s->causal ? ", causal" : "", s->bias, s->lse ? ", lse" : "");
}

/* Values are averages of normal numbers, so the range is about that of one. f32: rounding grows
   with the sums' length; bf16: the result, and probabilities, are rounded to 8 bits. A mean
   that is summed in another order may turn a half of sage's into the next step, an 80th of one
   product of a score. */
static double tolerance(const scene *s)
{
    return s->type == DK_BF16 ? 1e-2 : s->sage ? 1e-4 : 1e-5;
}

static void check_scene(dk_device *device, const scene *s)
{
    operands o;
    float *dst, *lse;
    char text[160];
    double range = 1, worst = 0, worst_lse = 0;
    int64_t cols = (int64_t)s->heads * s->head_dim;
    describe(text, sizeof text, s);
    define(&o, s);
    compute(device, s, &o, &dst, &lse);
    for (int64_t i = 0; i < s->q_len * cols; i++) {
        range = fabs(o.dst[i]) > range ? fabs(o.dst[i]) : range;
    }
    for (int64_t i = 0; i < s->q_len * o.dst_stride; i++) {
        int64_t row = i / o.dst_stride, col = i % o.dst_stride;
        if (col >= cols && dst[i] != CANARY) {
            fail_msg("%s: element %lld behind row %lld became %g", text, (long long)col,
                     (long long)row, (double)dst[i]);
        }
        double error = col < cols ? fabs(dst[i] - o.dst[row * cols + col]) / range : 0;
        worst = !(error <= worst) ? error : worst;
    }
    for (int64_t i = 0; i < s->heads * s->q_len && s->lse; i++) {
        double error = lse[i] == o.lse[i] ? 0 : fabs(lse[i] - o.lse[i]); /* both may be -inf */
        worst_lse = !(error <= worst_lse) ? error : worst_lse;
    }
    if (!(worst <= tolerance(s)) || !(worst_lse <= (s->type == DK_BF16 ? 1e-3 : 1e-4))) {
        fail_msg("%s: errs by %g, its log-sum-exp by %g (%s)", text, worst, worst_lse,
                 dk_device_attention_reason(device));
    }
    dk_free(dst);
    dk_free(lse);
    release(&o);
}

static dk_device *open_device(dk_attention_backend backend, bool exact)
{
    dk_device *device;
    dk_error err;
    const dk_device_options options = {.name = "xpu:cpu", .attention = backend, .exact = exact};
    if (dk_device_open(&device, &options, &err) != DK_OK) {
        fail_msg("%s", err.message);
    }
    return device;
}

/* Every `step`th of the grid, heads of up to most_dim: the driver takes seconds for a kernel of
   flash, and each size is another. sage: without what flash does for it. */
static void check_grid(dk_attention_backend backend, int step, int most_dim)
{
    bool sage = backend == DK_ATTENTION_SAGE;
    static const int dims[] = {1, 16, 40, 64, 80, 128, 160, 512};
    static const int64_t lengths[][2] = {{1, 1},  {1, 300},   {7, 64},
                                         {64, 7}, {257, 300}, {300, 257}};
    enum { DIMS = sizeof dims / sizeof *dims, LENGTHS = sizeof lengths / sizeof *lengths };
    dk_device *device = open_device(backend, false);
    int turn = 0;
    for (int i = 0; i < DIMS * LENGTHS * 2; i += step) {
        const int64_t *length = lengths[i / 2 % LENGTHS];
        scene s = {.heads = 1 + i % 3, .head_dim = dims[i / 2 / LENGTHS]};
        s.q_len = length[0];
        s.kv_len = length[1];
        s.type = i % 2 == 0 ? DK_F32 : DK_BF16;
        /* Every bias with and without a mask, in turn, so that each meets every size. */
        s.bias = sage ? NO_BIAS : turn % BIASES;
        s.causal = !sage && turn / BIASES % 2 == 1;
        s.gap = turn % 3 == 0 ? 0 : 8 * (turn % 3);
        s.lse = turn % 5 < 2;
        s.sage = sage;
        turn += 3;
        if (s.head_dim <= most_dim) {
            check_scene(device, &s);
        }
    }
    dk_device_close(&device);
}

static void test_reference(void **unused)
{
    (void)unused;
    check_grid(DK_ATTENTION_REFERENCE, 1, 512);
}

static void test_flash(void **unused)
{
    (void)unused;
    check_grid(DK_ATTENTION_FLASH, 1, 512);
}

static void test_sdpa(void **unused)
{
    (void)unused;
    check_grid(DK_ATTENTION_SDPA, 1, 64);
}

static void test_auto(void **unused)
{
    (void)unused;
    check_grid(DK_ATTENTION_AUTO, 5, 64);
}

/* Halves of the keys, joined by their log-sum-exp, are the whole: what ring attention does. */
static void check_merge(dk_attention_backend backend)
{
    const scene whole = {
        .heads = 3, .head_dim = 64, .q_len = 65, .kv_len = 200, .type = DK_F32, .lse = true};
    scene part = whole;
    dk_device *device = open_device(backend, false);
    operands o;
    float *dst[2], *lse[2];
    int64_t cols = (int64_t)whole.heads * whole.head_dim;
    define(&o, &whole);
    part.kv_len = 77;
    compute(device, &part, &o, &dst[0], &lse[0]);
    operands rest = o;
    rest.k += part.kv_len * o.kv_stride;
    rest.v += part.kv_len * o.kv_stride;
    part.kv_len = whole.kv_len - part.kv_len;
    compute(device, &part, &rest, &dst[1], &lse[1]);
    for (int64_t i = 0; i < whole.q_len * cols; i++) {
        int64_t at = i % cols / whole.head_dim * whole.q_len + i / cols;
        double a = exp(lse[0][at] - o.lse[at]), b = exp(lse[1][at] - o.lse[at]);
        double merged = a * dst[0][i] + b * dst[1][i];
        if (!(fabs(merged - o.dst[i]) <= 1e-5)) {
            fail_msg("element %lld is %g, expected %g", (long long)i, merged, o.dst[i]);
        }
    }
    for (int i = 0; i < 2; i++) {
        dk_free(dst[i]);
        dk_free(lse[i]);
    }
    release(&o);
    dk_device_close(&device);
}

static void test_merge(void **unused)
{
    (void)unused;
    check_merge(DK_ATTENTION_FLASH);
    check_merge(DK_ATTENTION_REFERENCE);
}

static void assert_reason(const dk_device *device, const char *part, bool there)
{
    const char *reason = dk_device_attention_reason(device);
    if ((strstr(reason, part) != NULL) != there) {
        fail_msg("the reason '%s' has %s '%s'", reason, there ? "no" : "a", part);
    }
}

static void test_reasons(void **unused)
{
    scene s = {.heads = 2, .head_dim = 64, .q_len = 96, .kv_len = 96, .type = DK_F32};
    (void)unused;
    dk_device *device = open_device(DK_ATTENTION_SDPA, false);
    check_scene(device, &s);
    assert_reason(device, "since sdpa cannot", false); /* oneDNN has it */
    s.lse = true;
    check_scene(device, &s);
    assert_reason(device, "flash, since sdpa cannot: it gives no log-sum-exp", true);
    dk_device_close(&device);
    device = open_device(DK_ATTENTION_AUTO, false);
    s.lse = false;
    check_scene(device, &s);
    assert_reason(device, "multiply", true);
    assert_reason(device, " ms, flash ", true);
    assert_reason(device, " ms, sdpa ", false); /* it stalls a CPU's queue */
    assert_reason(device, " ms, so ", true);
    dk_device_close(&device);
    device = open_device(DK_ATTENTION_AUTO, false);
    check_scene(device, &s);
    assert_reason(device, ", as was measured before", true);
    dk_device_close(&device);
}

static void test_sage(void **unused)
{
    (void)unused;
    check_grid(DK_ATTENTION_SAGE, 1, 512);
}

/* What the CPU gives for the same call: its way rounds in the same places. */
static void test_sage_is_the_cpus(void **unused)
{
    (void)unused;
    const scene s = {
        .heads = 3, .head_dim = 64, .q_len = 65, .kv_len = 200, .type = DK_BF16, .lse = true};
    dk_error err;
    dk_device *xpu = open_device(DK_ATTENTION_SAGE, false), *cpu = NULL;
    const dk_device_options options = {
        .name = "cpu", .threads = 1, .attention = DK_ATTENTION_SAGE};
    assert_int_equal(dk_device_open(&cpu, &options, &err), DK_OK);
    operands o;
    float *dst[2], *lse[2];
    define(&o, &s);
    compute(xpu, &s, &o, &dst[0], &lse[0]);
    compute(cpu, &s, &o, &dst[1], &lse[1]);
    for (int64_t i = 0; i < s.q_len * o.dst_stride; i++) {
        assert_true(fabsf(dst[0][i] - dst[1][i]) <= 0x1p-7f);
    }
    for (int64_t i = 0; i < s.heads * s.q_len; i++) {
        assert_true(fabsf(lse[0][i] - lse[1][i]) <= 1e-4f);
    }
    for (int i = 0; i < 2; i++) {
        dk_free(dst[i]);
        dk_free(lse[i]);
    }
    release(&o);
    dk_device_close(&cpu);
    dk_device_close(&xpu);
}

/* A bias or a mask is flash's work, which is said; a NaN is not lost on its way through int8.
 */
static void test_sage_limits(void **unused)
{
    (void)unused;
    scene s = {.heads = 2, .head_dim = 64, .q_len = 96, .kv_len = 96, .type = DK_F32};
    s.bias = PER_KEY;
    s.sage = true;
    dk_device *device = open_device(DK_ATTENTION_SAGE, false);
    check_scene(device, &s);
    assert_reason(device, "flash, since sage knows no bias and no mask", true);
    s.bias = NO_BIAS;
    operands o;
    float *dst, *lse;
    define(&o, &s);
    o.exact_q[5 * o.q_stride] = NAN;
    compute(device, &s, &o, &dst, &lse);
    for (int i = 0; i < s.head_dim; i++) {
        assert_true(isnan(dst[5 * o.dst_stride + i]));
        assert_true(isfinite(dst[6 * o.dst_stride + i]));
    }
    dk_free(dst);
    dk_free(lse);
    release(&o);
    dk_device_close(&device);
}

static void test_names(void **unused)
{
    static const struct {
        const char *name;
        bool exact;
        dk_attention_backend expected;
    } cases[] = {
        {NULL, false, DK_ATTENTION_AUTO},   {"auto", false, DK_ATTENTION_AUTO},
        {"fa3", false, DK_ATTENTION_FLASH}, {"flash", true, DK_ATTENTION_FLASH},
        {"sdpa", false, DK_ATTENTION_SDPA}, {"auto", true, DK_ATTENTION_REFERENCE},
        {"sage", false, DK_ATTENTION_SAGE},
    };
    dk_attention_backend backend;
    dk_error err;
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(
            dk_attention_backend_from_name(&backend, cases[i].name, cases[i].exact, &err),
            DK_OK);
        assert_int_equal(backend, cases[i].expected);
    }
    assert_int_equal(dk_attention_backend_from_name(&backend, "sage", true, &err), DK_INVALID);
    assert_int_equal(dk_attention_backend_from_name(&backend, "magic", false, &err),
                     DK_INVALID);
    assert_non_null(strstr(err.message, "fa3, sdpa"));
}

static void test_cpu_says_why(void **unused)
{
    dk_device *device;
    dk_error err;
    const dk_device_options options = {.threads = 1, .attention = DK_ATTENTION_AUTO};
    (void)unused;
    assert_int_equal(dk_device_open(&device, &options, &err), DK_OK);
    assert_int_equal(device->attention, DK_ATTENTION_FLASH);
    assert_string_equal(dk_device_attention_reason(device),
                        "flash (auto: the only one besides reference and sage on a CPU)");
    dk_device_close(&device);
}

/* Choices of other processes would hide what is measured here. */
static int give_cache(void **folder)
{
    *folder = scratch_create();
    return setenv("XDG_CACHE_HOME", *folder, 1);
}

static int take_cache(void **folder)
{
    scratch_remove(*folder);
    return 0;
}

/* argument: the test that runs, alone. */
int main(int argc, char **argv)
{
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_cpu_says_why),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_sage),
        cmocka_unit_test(test_sage_is_the_cpus),
        cmocka_unit_test(test_sage_limits),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_flash),
        cmocka_unit_test(test_sdpa),
        cmocka_unit_test(test_auto),
    };
    return cmocka_run_group_tests(tests, give_cache, take_cache);
}
