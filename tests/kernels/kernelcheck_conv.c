/* Convolutions: paddings, strides, enlarged pictures, kernels over time with missing frames,
   residuals, activations, plans for several numbers of threads. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/grouped_gemm.h"
#include "kernels/kernelcheck.h"
#include "kernels/kernelcheck_device.h"

enum { MOST_FRAMES = 8, GAP = 37 }; /* GAP: elements between two frames of dst, or none */

typedef struct conv_case {
    int in, out, height, width;
    int kt, kh, kw, stride_t, stride;
    int top, bottom, left, right, upsample;
    int frames;           /* of the output */
    unsigned null_frames; /* input frames that are NULL, as bits */
    dk_activation activation;
    bool bias, residual;
    bool large; /* left out of brief runs */
} conv_case;

#define SAME_3X3 .kh = 3, .kw = 3, .top = 1, .bottom = 1, .left = 1, .right = 1

/* clang-format off */
static const conv_case cases[] = {
    {.in = 1, .out = 1, .height = 1, .width = 1, .kh = 1, .kw = 1},
    {.in = 3, .out = 13, .height = 7, .width = 9, SAME_3X3, .bias = true},
    {.in = 16, .out = 33, .height = 5, .width = 6, .kt = 3, SAME_3X3, .frames = 3,
     .null_frames = 3, .bias = true},
    {.in = 40, .out = 37, .height = 11, .width = 19, .kt = 3, SAME_3X3, .frames = 2,
     .null_frames = 1, .bias = true, .residual = true},
    {.in = 35, .out = 5, .height = 8, .width = 7, .kh = 3, .kw = 3, .stride = 2, .bottom = 1,
     .right = 1, .bias = true, .activation = DK_ACT_SILU},
    {.in = 7, .out = 9, .height = 8, .width = 7, .kh = 3, .kw = 3, .stride = 2, .bottom = 1,
     .right = 1, .residual = true, .activation = DK_ACT_GELU_TANH},
    {.in = 34, .out = 20, .height = 4, .width = 5, SAME_3X3, .upsample = 2, .bias = true},
    {.in = 6, .out = 20, .height = 4, .width = 5, SAME_3X3, .upsample = 2, .residual = true},
    {.in = 34, .out = 20, .height = 4, .width = 5, .kh = 3, .kw = 3, .top = -1, .bottom = -1,
     .left = 1, .right = 1, .upsample = 2, .bias = true},
    {.in = 6, .out = 12, .height = 6, .width = 5, .kt = 3, .kh = 3, .kw = 3, .top = -1,
     .bottom = 1, .left = 1, .right = 1, .frames = 2, .null_frames = 1, .residual = true},
    {.in = 48, .out = 96, .height = 3, .width = 3, .kt = 3, .kh = 1, .kw = 1, .stride_t = 2,
     .frames = 3, .bias = true},
    {.in = 530, .out = 18, .height = 4, .width = 3, .kh = 2, .kw = 2, .top = 2, .bottom = 3,
     .left = 3, .right = 2, .bias = true},
    {.in = 36, .out = 10, .height = 3, .width = 4, .kt = 2, .kh = 1, .kw = 1, .frames = 2,
     .null_frames = 7, .bias = true, .residual = true},
    {.in = 3, .out = 40, .height = 28, .width = 42, .kh = 14, .kw = 14, .stride = 14},
    {.in = 64, .out = 400, .height = 5, .width = 50, .kh = 1, .kw = 1, .bias = true,
     .large = true},
    {.in = 33, .out = 3, .height = 2, .width = 70, .kh = 5, .kw = 7, .stride = 3, .top = 4,
     .bottom = 5, .left = 9, .right = 8, .upsample = 2, .residual = true},
    {.in = 96, .out = 3, .height = 60, .width = 70, SAME_3X3, .bias = true, .large = true},
    {.in = 5, .out = 150, .height = 3, .width = 67, SAME_3X3, .activation = DK_ACT_SILU},
};
/* clang-format on */

static bool conv_is_new(const kc *k)
{
    dk_gemm_kernel gemms[KC_MOST_GEMMS];
    dk_linear_kernels now, before;
    dk_linear_kernels_init(&now, k->flags);
    dk_linear_kernels_init(&before, k->below);
    return k->lowest || now.store != before.store || kc_new_gemms(k, gemms) > 0;
}

/* One prepared case: the operands, and the same values as the panels hold them. */
typedef struct conv_data {
    dk_conv_args args;
    const void *frame_list[MOST_FRAMES];
    const double *frames[MOST_FRAMES], *weight;
    dk_conv_weight stored;
    const void *dst_before;
    size_t dst_bytes;
} conv_data;

static int or_one(int value)
{
    return value > 0 ? value : 1;
}

static void set_geometry(dk_conv_args *a, const conv_case *c, dk_dtype type, int gap)
{
    *a = (dk_conv_args){.src_type = type,
                        .height = c->height,
                        .width = c->width,
                        .in_channels = c->in,
                        .kernel_t = or_one(c->kt),
                        .kernel_h = c->kh,
                        .kernel_w = c->kw,
                        .stride_t = or_one(c->stride_t),
                        .stride = or_one(c->stride),
                        .pad_top = c->top,
                        .pad_left = c->left,
                        .upsample = or_one(c->upsample),
                        .activation = c->activation,
                        .dst_type = type,
                        .out_frames = or_one(c->frames),
                        .out_channels = c->out};
    a->out_height = (c->height * a->upsample + c->top + c->bottom - c->kh) / a->stride + 1;
    a->out_width = (c->width * a->upsample + c->left + c->right - c->kw) / a->stride + 1;
    a->dst_frame_stride = (int64_t)a->out_height * a->out_width * c->out + gap;
}

static void set_frames(kc *k, conv_data *data, const conv_case *c, dk_dtype panels)
{
    dk_conv_args *a = &data->args;
    int64_t count = (int64_t)c->height * c->width * c->in;
    int inputs = (a->out_frames - 1) * a->stride_t + a->kernel_t;
    for (int f = 0; f < inputs && f < MOST_FRAMES; f++) {
        if ((c->null_frames >> f & 1u) == 0) {
            data->frame_list[f] = kc_operand(k, a->src_type, count, KC_ORDINARY);
            data->frames[f] = kc_plain(k, data->frame_list[f], a->src_type, count, panels);
        }
    }
    a->frames = data->frame_list;
}

static void set_operands(kc *k, conv_data *data, const conv_case *c, dk_dtype type,
                         dk_dtype weight_type, dk_dtype panels, int gap)
{
    *data = (conv_data){0};
    dk_conv_args *a = &data->args;
    set_geometry(a, c, type, gap);
    set_frames(k, data, c, panels);
    int taps = a->kernel_t * c->kh * c->kw;
    int64_t weights = (int64_t)c->out * c->in * taps;
    const void *weight = kc_operand(k, weight_type, weights, KC_ORDINARY);
    data->weight = kc_plain(k, weight, weight_type, weights, panels);
    data->stored = (dk_conv_weight){weight, weight_type, c->out, c->in, taps};
    a->bias = c->bias ? kc_operand(k, DK_F32, c->out, KC_ORDINARY) : NULL;
    int64_t count = a->out_frames * a->dst_frame_stride;
    data->dst_bytes = (size_t)count * dk_dtype_bytes(type);
    a->dst = kc_operand(k, type, count, KC_ORDINARY);
    data->dst_before = kc_copy(k, a->dst, data->dst_bytes);
    if (c->residual) { /* in place, or beside */
        a->residual = c->out % 2 ? a->dst : kc_operand(k, type, count, KC_ORDINARY);
    }
}

static void pack_weight(kc *k, conv_data *data, const dk_gemm_kernel *kernel)
{
    const dk_conv_weight *w = &data->stored;
    dk_decode_kernels decode;
    void *packed =
        kc_alloc(k, dk_conv_packed_bytes(kernel, w->out_channels, w->in_channels, w->taps));
    dk_decode_kernels_init(&decode, k->flags);
    dk_conv_pack_weight(packed, kernel, &decode, w);
    data->args.packed_weight = packed;
}

/* The sum at output pixel (y, x) of frame t, channel n. */
static kc_value expected_sum(const conv_data *data, int t, int y, int x, int n)
{
    const dk_conv_args *a = &data->args;
    int plane = a->kernel_h * a->kernel_w, taps = a->kernel_t * plane;
    double sum = 0, all = 0;
    for (int tap = 0; tap < taps; tap++) {
        const double *picture = data->frames[t * a->stride_t + tap / plane];
        int line = y * a->stride + tap / a->kernel_w % a->kernel_h - a->pad_top;
        int column = x * a->stride + tap % a->kernel_w - a->pad_left;
        if (picture == NULL || line < 0 || column < 0 || line >= a->height * a->upsample ||
            column >= a->width * a->upsample) {
            continue;
        }
        int pixel = line / a->upsample * a->width + column / a->upsample;
        for (int i = 0; i < a->in_channels; i++) {
            double product = picture[pixel * a->in_channels + i] *
                             data->weight[(n * a->in_channels + i) * taps + tap];
            sum += product;
            all += fabs(product);
        }
    }
    return (kc_value){sum, kc_growth((int64_t)taps * a->in_channels) * KC_U32 * all + KC_TINY};
}

static void expect_frame(kc *k, const conv_data *data, int t)
{
    const dk_conv_args *a = &data->args;
    size_t start = (size_t)(t * a->dst_frame_stride) * dk_dtype_bytes(a->dst_type);
    const dk_linear_args epilogue = {
        .bias = a->bias,
        .activation = a->activation,
        .residual = a->residual != NULL ? (const char *)a->residual + start : NULL,
        .dst = (char *)a->dst + start,
        .dst_type = a->dst_type,
        .dst_stride = a->out_channels};
    for (int pixel = 0; pixel < a->out_height * a->out_width; pixel++) {
        for (int n = 0; n < a->out_channels; n++) {
            if (!kc_looks_at(k, (int64_t)pixel * 3 + n)) {
                continue;
            }
            kc_value want =
                expected_sum(data, t, pixel / a->out_width, pixel % a->out_width, n);
            want =
                kc_epilogue(&epilogue, (const char *)data->dst_before + start, pixel, n, want);
            int64_t at = (int64_t)pixel * a->out_channels + n;
            kc_expect(k, t * a->dst_frame_stride + at, kc_get(epilogue.dst, a->dst_type, at),
                      want.y, want.error);
        }
    }
}

static void expect_conv(kc *k, const conv_data *data, size_t gap)
{
    kc_result(k, data->args.dst, data->dst_bytes);
    for (int t = 0; t < data->args.out_frames; t++) {
        size_t width = dk_dtype_bytes(data->args.dst_type);
        size_t end = (size_t)((t + 1) * data->args.dst_frame_stride) * width;
        kc_untouched(k, data->args.dst, data->dst_before, end - gap * width, end);
        if (k->round == 0) {
            expect_frame(k, data, t);
        }
    }
}

static void conv_rounds(kc *k, const dk_linear_kernels *kernels, const dk_gemm_kernel *kernel,
                        int number, dk_dtype type, dk_dtype weight_type)
{
    const conv_case *c = &cases[number];
    kc_case(k, kc_plan_rounds(k), "case %d, %s, W %s, %s", number, dk_dtype_name(type),
            dk_dtype_name(weight_type), kernel->name);
    while (kc_next_round(k)) {
        conv_data data;
        dk_conv_plan plan;
        set_operands(k, &data, c, type, weight_type, kernel->type, GAP);
        pack_weight(k, &data, kernel);
        dk_conv_plan_init(&plan, kernel, &data.args, kc_threads(k));
        void *scratch = kc_alloc(k, plan.scratch_bytes);
        if (plan.scratch_bytes % DK_ALIGNMENT != 0 || plan.scratch_bytes > 1u << 20) {
            kc_fail(k, "scratch of %zu bytes, expected a multiple of %d below 1 MiB",
                    plan.scratch_bytes, DK_ALIGNMENT);
        }
        for (int task = 1; task <= plan.tasks; task++) {
            dk_conv_block(&plan, kernels, &data.args, task % plan.tasks, scratch);
        }
        expect_conv(k, &data, GAP);
    }
}

static void conv_of_device(kc *k, int number, dk_dtype type, dk_dtype weight_type, int gap)
{
    kc_case(k, 2, "case %d, %s, W %s, gap %d", number, dk_dtype_name(type),
            dk_dtype_name(weight_type), gap);
    while (kc_next_round(k)) {
        conv_data data;
        set_operands(k, &data, &cases[number], type, weight_type, k->panels, gap);
        kc_device_conv(k, &data.args, &data.stored);
        expect_conv(k, &data, (size_t)gap);
    }
}

static void check_conv_of_device(kc *k)
{
    static const dk_dtype stored[] = {DK_F16, DK_F32, DK_BF16, DK_F8_E4M3, DK_F8_E5M2};
    for (int i = 0; i < KC_COUNT(cases); i++) {
        for (int bits = 0; bits < 4 && !(k->brief && cases[i].large); bits++) {
            conv_of_device(k, i, bits & 1 ? DK_BF16 : DK_F32, stored[(i + bits) % 5],
                           bits & 2 ? GAP : 0);
        }
    }
}

static bool never_is_new(const kc *k)
{
    (void)k;
    return false;
}

static void check_conv(kc *k)
{
    dk_linear_kernels kernels;
    dk_linear_kernels_init(&kernels, k->flags);
    if (k->lowest) {
        kernels.gemm.bf16 = grouped_gemm(); /* composition must assume no kernel's shape */
    }
    for (int i = 0; i < KC_COUNT(cases); i++) {
        static const dk_dtype stored[] = {DK_F16, DK_F32, DK_BF16, DK_F8_E4M3};
        if (k->brief && cases[i].large) {
            continue;
        }
        conv_rounds(k, &kernels, &kernels.gemm.f32, i, DK_F32, DK_F32);
        conv_rounds(k, &kernels, &kernels.gemm.f32, i, DK_BF16, stored[i % 4]);
        if (kernels.gemm.bf16.tile != kernels.gemm.f32.tile) {
            conv_rounds(k, &kernels, &kernels.gemm.bf16, i, DK_BF16, stored[(i + 1) % 4]);
            conv_rounds(k, &kernels, &kernels.gemm.bf16, i, DK_F32, stored[(i + 2) % 4]);
        }
    }
}

static const kc_test tests[] = {
    {"conv", conv_is_new, check_conv, false},
    {"conv.device", never_is_new, check_conv_of_device, true},
};

const kc_family kc_conv = {tests, KC_COUNT(tests)};
