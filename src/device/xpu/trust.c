/* Checking products. */
#include "device/xpu/trust.h"

#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "device/xpu/quantize.h"
#include "tensor/convert.h"

enum { SAMPLES = 64, PATTERN = 65521 }; /* PATTERN: a prime */

/* Memory for one check: operands of random numbers, ones and zeros. */
typedef struct bench {
    dk_xpu *xpu;
    void *memory[6]; /* owned device memory */
    int count;
    float pattern[PATTERN];
    bool fine;
} bench;

static void fill_pattern(float *pattern)
{
    uint32_t state = 1;
    for (int i = 0; i < PATTERN; i++) {
        state = state * 1664525u + 1013904223u;
        float value = (float)(state >> 8) / (float)(1 << 23) - 1.0f;
        pattern[i] = dk_f32_from_bf16(dk_bf16_from_f32(value));
    }
}

static void *device_memory(bench *b, size_t bytes)
{
    dk_error err;
    void *made = NULL;
    if (b->fine && dk_xpu_alloc(b->xpu, &made, bytes, "a check", &err) != DK_OK) {
        dk_log_warn(b->xpu->log, "a product is not checked: %s", err.message);
        b->fine = false;
    }
    if (made != NULL) {
        b->memory[b->count++] = made;
    }
    return made;
}

/* `count` numbers, those of the pattern again and again. */
static void *random_numbers(bench *b, int64_t count, dk_dtype type)
{
    size_t width = dk_dtype_bytes(type);
    char *made = device_memory(b, (size_t)count * width);
    float *block = b->fine ? dk_alloc(PATTERN * sizeof(float)) : NULL;
    if (made == NULL) {
        dk_free(block);
        return NULL;
    }
    dk_convert_from_f32(block, type, b->pattern, PATTERN);
    for (int64_t i = 0; i < count; i += PATTERN) {
        int64_t some = count - i < PATTERN ? count - i : PATTERN;
        dk_xpu_write(b->xpu, made + (size_t)i * width, block, (size_t)some * width);
    }
    dk_free(block);
    return made;
}

static void *equal_numbers(bench *b, int64_t count, dk_dtype type, bool ones)
{
    size_t width = dk_dtype_bytes(type);
    void *made = device_memory(b, (size_t)count * width);
    if (made != NULL && !ones) {
        dk_xpu_zero(b->xpu, made, (size_t)count * width);
    } else if (made != NULL) {
        DPCTLSyclEventRef event =
            type == DK_BF16 ? DPCTLQueue_Fill16(b->xpu->queue, made, 0x3f80, (size_t)count)
                            : DPCTLQueue_Fill32(b->xpu->queue, made, 0x3f800000, (size_t)count);
        if (event != NULL) {
            DPCTLEvent_Delete(event);
        }
    }
    return made;
}

/* While a check runs, the device computes even in a dry run, and a weight that comes and goes
   stays. */
typedef struct borrowed {
    bool dry;
    dk_residency residency;
    void *device;
} borrowed;

static bool begin(bench *b, dk_xpu_form *form, borrowed *was)
{
    dk_error err;
    dk_xpu *xpu = b->xpu;
    *was = (borrowed){xpu->head.dry, form->residency, form->device};
    xpu->head.dry = false;
    xpu->checks = true;
    if (form->device == NULL) {
        if (dk_xpu_alloc(xpu, &form->device, form->bytes, "a check", &err) != DK_OK) {
            return false;
        }
        dk_xpu_write(xpu, form->device, form->host, form->bytes);
    }
    form->residency = DK_RESIDENT;
    return true;
}

static void end(bench *b, dk_xpu_form *form, const borrowed *was)
{
    dk_xpu *xpu = b->xpu;
    for (int i = 0; i < b->count; i++) {
        dk_xpu_free(xpu, b->memory[i]);
    }
    if (was->device == NULL) {
        dk_xpu_free(xpu, form->device);
    }
    form->device = was->device;
    form->residency = was->residency;
    xpu->head.dry = was->dry;
    xpu->checks = false;
    dk_free(b);
}

static bench *open_bench(dk_xpu *xpu)
{
    bench *b = dk_alloc(sizeof *b);
    b->xpu = xpu;
    b->fine = true;
    fill_pattern(b->pattern);
    return b;
}

/* A sum of products with what rounding may do to it. */
typedef struct sum {
    double value, squares;
} sum;

static void add(sum *s, double x, double w)
{
    s->value += x * w;
    s->squares += x * w * x * w;
}

static double activated(double x, dk_activation activation)
{
    switch (activation) {
    case DK_ACT_SILU:
        return x / (1 + exp(-x));
    case DK_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case DK_ACT_NONE:
        break;
    }
    return x;
}

/* Rounding errors of a product's terms are of either sign and grow like the root of the sum of
   their squares: of inputs rounded to bf16 2^-9 each, of f32 sums less. Whole numbers lose a
   hundredth (nn/quantize.h). Eight times that is beyond chance. */
static bool near(double got, double want, double squares, dk_dtype inputs, dk_dtype output)
{
    double unit = inputs == DK_I8 ? 0.0125 : inputs == DK_BF16 ? 0x1p-9 : 0x1p-18;
    double allowed =
        8 * unit * sqrt(squares) + (output == DK_BF16 ? 0x1p-7 : 0x1p-16) * fabs(want) + 1e-6;
    return fabs(got - want) <= allowed;
}

/* Reads a result and returns whether all of it is finite; f32 values into *out, owned. */
static bool read_result(bench *b, float **out, const void *device, dk_dtype type, int64_t count)
{
    void *raw = NULL, *values = NULL;
    size_t bytes = (size_t)count * dk_dtype_bytes(type);
    *out = NULL;
    if (dk_try_alloc(&raw, bytes, "a check", NULL) != DK_OK ||
        dk_try_alloc(&values, (size_t)count * sizeof(float), "a check", NULL) != DK_OK) {
        dk_free(raw);
        return true; /* nothing was seen that is wrong */
    }
    dk_xpu_read(b->xpu, raw, device, bytes);
    dk_convert_to_f32(values, raw, type, count);
    dk_free(raw);
    *out = values;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite((*out)[i])) {
            return false;
        }
    }
    return true;
}

/* Row r of the operand is the pattern from r * stride on. */
static sum linear_sum(const bench *b, const dk_xpu_stored *stored, const dk_linear_args *a,
                      int64_t row, int64_t col, float *numbers)
{
    sum s = {0};
    dk_xpu_stored_numbers(stored, numbers, col * a->depth, a->depth);
    for (int64_t k = 0; k < a->depth; k++) {
        add(&s, b->pattern[(row * a->src_stride + k) % PATTERN], numbers[k]);
    }
    return s;
}

static bool linear_is_right(bench *b, const dk_xpu_stored *stored, const dk_linear_args *a,
                            dk_dtype inputs)
{
    float *got = NULL;
    int64_t count = (a->rows - 1) * a->dst_stride + a->cols;
    bool right = read_result(b, &got, a->dst, a->dst_type, count);
    float *numbers = dk_alloc((size_t)a->depth * sizeof *numbers);
    for (int64_t i = 0; i < SAMPLES && right && got != NULL; i++) {
        int64_t row = i * a->rows / SAMPLES, col = i * 7919 % a->cols;
        sum s = linear_sum(b, stored, a, row, col, numbers);
        double want =
            activated(s.value + (a->bias != NULL ? (double)a->bias[col] : 0), a->activation);
        right =
            near((double)got[row * a->dst_stride + col], want, s.squares, inputs, a->dst_type);
    }
    dk_free(numbers);
    dk_free(got);
    return right;
}

static void report(dk_xpu *xpu, const dk_xpu_stored *stored, const char *shape,
                   const char *implementation)
{
    const dk_xpu_adopted *adopted = dk_xpu_adopted_at(xpu, stored->host);
    dk_log_warn(xpu->log,
                "%s: oneDNN's %s gives wrong numbers for %s (%s): products of this shape are "
                "computed by a kernel of ours, which is slower; please report it with the "
                "driver's version",
                xpu->head.description, implementation, shape,
                adopted != NULL ? adopted->name : "a weight");
    xpu->head.distrusted++;
}

void dk_xpu_check_linear(dk_xpu *xpu, dk_xpu_primitive *primitive, dk_xpu_form *form,
                         const dk_xpu_stored *stored, const dk_linear_args *args)
{
    primitive->checked = true;
    bench *b = open_bench(xpu);
    borrowed was;
    dk_linear_args a = *args;
    bool begun = begin(b, form, &was);
    int64_t count = a.rows * a.dst_stride;
    a.src = random_numbers(b, a.rows * a.src_stride, a.src_type);
    a.dst = equal_numbers(b, count, a.dst_type, false);
    if (a.bias != NULL) {
        a.bias = equal_numbers(b, a.cols, DK_F32, true);
    }
    if (a.multiply != NULL) {
        a.multiply = equal_numbers(b, count, a.dst_type, true);
    }
    if (a.gate != NULL) {
        int64_t gates = a.gate_stride != 0 ? a.rows * a.gate_stride : a.cols;
        a.gate = equal_numbers(b, gates, DK_F32, true);
    }
    if (a.residual != NULL) { /* zeros: dst itself, or what dst was before */
        a.residual =
            args->residual == args->dst ? a.dst : equal_numbers(b, count, a.dst_type, false);
    }
    if (begun && b->fine && xpu->head.failed == DK_OK) {
        dnnl_data_type_t type;
        dnnl_memory_desc_query(form->desc, dnnl_query_data_type, &type);
        bool whole = a.quantized != NULL && type == dnnl_s8 &&
                     dk_xpu_quantized_of(a.quantized)->kind == DK_QUANTIZATION_INT8;
        dk_dtype inputs = whole ? DK_I8 : dk_xpu_compute_type(xpu);
        dk_xpu_linear(&xpu->head, &a, 1);
        primitive->wrong = xpu->head.failed == DK_OK && !linear_is_right(b, stored, &a, inputs);
    }
    end(b, form, &was);
    if (primitive->wrong) {
        char shape[96];
        snprintf(shape, sizeof shape, "a linear layer of %lld x %lld x %lld",
                 (long long)args->rows, (long long)args->depth, (long long)args->cols);
        report(xpu, stored, shape, primitive->implementation);
    }
}

/* The sum at a place of the result, from frames that are the pattern one behind the other. */
static sum conv_sum(const bench *b, const dk_conv_args *a, const float *weight, int64_t t,
                    int64_t pixel)
{
    sum s = {0};
    int64_t taps = (int64_t)a->kernel_t * a->kernel_h * a->kernel_w;
    int64_t y0 = pixel / a->out_width * a->stride - a->pad_top;
    int64_t x0 = pixel % a->out_width * a->stride - a->pad_left;
    for (int64_t tap = 0; tap < taps; tap++) {
        int64_t frame = t * a->stride_t + tap / (a->kernel_h * a->kernel_w);
        int64_t y = y0 + tap / a->kernel_w % a->kernel_h, x = x0 + tap % a->kernel_w;
        if (y < 0 || x < 0 || y >= a->height * a->upsample || x >= a->width * a->upsample) {
            continue;
        }
        int64_t at = ((frame * a->height + y / a->upsample) * a->width + x / a->upsample) *
                     a->in_channels;
        for (int64_t c = 0; c < a->in_channels; c++) {
            add(&s, b->pattern[(at + c) % PATTERN], weight[c * taps + tap]);
        }
    }
    return s;
}

static bool conv_is_right(bench *b, const dk_xpu_stored *stored, const dk_conv_args *a,
                          dk_dtype inputs)
{
    float *got = NULL;
    int64_t pixels = (int64_t)a->out_height * a->out_width;
    int64_t weights = (int64_t)a->in_channels * a->kernel_t * a->kernel_h * a->kernel_w;
    int64_t count = (a->out_frames - 1) * a->dst_frame_stride + pixels * a->out_channels;
    bool right = read_result(b, &got, a->dst, a->dst_type, count);
    float *weight = dk_alloc((size_t)weights * sizeof *weight);
    for (int64_t i = 0; i < SAMPLES && right && got != NULL; i++) {
        int64_t t = i * a->out_frames / SAMPLES, pixel = i * 104729 % pixels;
        int64_t o = i * 7919 % a->out_channels;
        dk_xpu_stored_numbers(stored, weight, o * weights, weights);
        sum s = conv_sum(b, a, weight, t, pixel);
        double want = activated(s.value + (a->bias != NULL ? 1 : 0), a->activation);
        right = near((double)got[t * a->dst_frame_stride + pixel * a->out_channels + o], want,
                     s.squares, inputs, a->dst_type);
    }
    dk_free(weight);
    dk_free(got);
    return right;
}

void dk_xpu_check_conv(dk_xpu *xpu, dk_xpu_primitive *primitive, dk_xpu_form *form,
                       const dk_xpu_stored *stored, const dk_conv_args *args)
{
    enum { MOST_FRAMES = 16 };
    primitive->checked = true;
    bench *b = open_bench(xpu);
    borrowed was;
    dk_conv_args a = *args;
    const void *frames[MOST_FRAMES];
    int in_frames = (a.out_frames - 1) * a.stride_t + a.kernel_t;
    int64_t frame = (int64_t)a.height * a.width * a.in_channels;
    int64_t pixels = (int64_t)a.out_height * a.out_width;
    int64_t count = (a.out_frames - 1) * a.dst_frame_stride + pixels * a.out_channels;
    bool begun = begin(b, form, &was);
    char *src = random_numbers(b, in_frames * frame, a.src_type);
    for (int i = 0; i < in_frames && i < MOST_FRAMES; i++) {
        frames[i] = src + (size_t)(i * frame) * dk_dtype_bytes(a.src_type);
    }
    a.frames = frames;
    a.dst = equal_numbers(b, count, a.dst_type, false);
    if (a.bias != NULL) {
        a.bias = equal_numbers(b, a.out_channels, DK_F32, true);
    }
    if (a.residual != NULL) {
        a.residual =
            args->residual == args->dst ? a.dst : equal_numbers(b, count, a.dst_type, false);
    }
    if (begun && b->fine && in_frames <= MOST_FRAMES && xpu->head.failed == DK_OK) {
        dk_xpu_conv(&xpu->head, &a);
        primitive->wrong = xpu->head.failed == DK_OK &&
                           !conv_is_right(b, stored, &a, dk_xpu_compute_type(xpu));
    }
    end(b, form, &was);
    if (primitive->wrong) {
        char shape[128];
        snprintf(shape, sizeof shape,
                 "a convolution of %d to %d channels, %d x %d x %d, on %d x %d pixels",
                 a.in_channels, a.out_channels, a.kernel_t, a.kernel_h, a.kernel_w, a.out_width,
                 a.out_height);
        report(xpu, stored, shape, primitive->implementation);
    }
}

static int32_t whole_sum(const int8_t *q, const int8_t *k, int64_t count)
{
    int32_t whole = 0;
    for (int64_t i = 0; i < count; i++) {
        whole += q[i] * k[i];
    }
    return whole;
}

/* Sums of rows of `numbers`, which both operands are. */
static bool scores_are_right(bench *b, const int32_t *scores, const int8_t *numbers,
                             const dk_attention_args *a, int64_t count)
{
    int64_t cols = (int64_t)a->heads * a->head_dim;
    bool right = true;
    for (int64_t i = 0; i < SAMPLES && right; i++) {
        int64_t h = i % a->heads, q = i * count / SAMPLES, k = i * 7919 % a->kv_len;
        int32_t got = 0;
        dk_xpu_read(b->xpu, &got, scores + (h * count + q) * a->kv_len + k, sizeof got);
        right = got == whole_sum(numbers + q * cols + h * a->head_dim,
                                 numbers + k * cols + h * a->head_dim, a->head_dim);
    }
    return right;
}

bool dk_xpu_check_scores(dk_xpu *xpu, dk_xpu_primitive *primitive,
                         const dk_attention_args *args, int64_t count)
{
    if (primitive->checked || xpu->unchecked) {
        return !primitive->wrong;
    }
    bench *b = open_bench(xpu);
    bool dry = xpu->head.dry;
    int64_t cols = (int64_t)args->heads * args->head_dim;
    size_t bytes = (size_t)((count > args->kv_len ? count : args->kv_len) * cols);
    int8_t *numbers = dk_alloc(bytes);
    for (size_t i = 0; i < bytes; i++) {
        numbers[i] = (int8_t)lrintf(127.0f * b->pattern[i % PATTERN]);
    }
    void *operand = device_memory(b, bytes);
    void *scores =
        device_memory(b, (size_t)(args->heads * count * args->kv_len) * sizeof(int32_t));
    xpu->head.dry = false;
    primitive->checked = true;
    if (b->fine) {
        dk_xpu_write(xpu, operand, numbers, bytes);
        dk_xpu_execute(xpu, primitive, (void *[]){operand, operand, scores}, NULL);
        primitive->wrong =
            xpu->head.failed == DK_OK && !scores_are_right(b, scores, numbers, args, count);
    }
    xpu->head.dry = dry;
    for (int i = 0; i < b->count; i++) {
        dk_xpu_free(xpu, b->memory[i]);
    }
    dk_free(numbers);
    dk_free(b);
    return !primitive->wrong;
}
