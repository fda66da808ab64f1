/* Convolutions against plain loops in double, at every level of the CPU: paddings, strides,
   enlarged pictures, kernels over time with missing frames, residuals, activations, bf16. */
#include "test.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/conv.h"
#include "kernels/cpu_flags.h"
#include "kernels/grouped_gemm.h"
#include "tensor/convert.h"

enum { MAX_FRAMES = 8, CANARY = 37 };

typedef struct conv_case {
    int in, out, height, width;
    int kt, kh, kw, stride_t, stride;
    int top, bottom, left, right, upsample;
    int frames;           /* of the output */
    unsigned null_frames; /* input frames that are NULL, as bits */
    dk_activation activation;
    bool bias, residual;
} conv_case;

static const conv_case cases[] = {
    {.in = 1, .out = 1, .height = 1, .width = 1, .kt = 1, .kh = 1, .kw = 1},
    {.in = 3,
     .out = 13,
     .height = 7,
     .width = 9,
     .kt = 1,
     .kh = 3,
     .kw = 3,
     .top = 1,
     .bottom = 1,
     .left = 1,
     .right = 1,
     .bias = true},
    {.in = 16,
     .out = 33,
     .height = 5,
     .width = 6,
     .kt = 3,
     .kh = 3,
     .kw = 3,
     .top = 1,
     .bottom = 1,
     .left = 1,
     .right = 1,
     .frames = 3,
     .null_frames = 3,
     .bias = true},
    {.in = 40,
     .out = 37,
     .height = 11,
     .width = 19,
     .kt = 3,
     .kh = 3,
     .kw = 3,
     .top = 1,
     .bottom = 1,
     .left = 1,
     .right = 1,
     .frames = 2,
     .null_frames = 1,
     .bias = true,
     .residual = true},
    {.in = 35,
     .out = 5,
     .height = 8,
     .width = 7,
     .kt = 1,
     .kh = 3,
     .kw = 3,
     .stride = 2,
     .bottom = 1,
     .right = 1,
     .bias = true,
     .activation = DK_ACT_SILU},
    {.in = 7,
     .out = 9,
     .height = 8,
     .width = 7,
     .kt = 1,
     .kh = 3,
     .kw = 3,
     .stride = 2,
     .bottom = 1,
     .right = 1,
     .residual = true,
     .activation = DK_ACT_SILU},
    {.in = 34,
     .out = 20,
     .height = 4,
     .width = 5,
     .kt = 1,
     .kh = 3,
     .kw = 3,
     .top = 1,
     .bottom = 1,
     .left = 1,
     .right = 1,
     .upsample = 2,
     .bias = true},
    {.in = 6,
     .out = 20,
     .height = 4,
     .width = 5,
     .kt = 1,
     .kh = 3,
     .kw = 3,
     .top = 1,
     .bottom = 1,
     .left = 1,
     .right = 1,
     .upsample = 2,
     .residual = true},
    {.in = 48,
     .out = 96,
     .height = 3,
     .width = 3,
     .kt = 3,
     .kh = 1,
     .kw = 1,
     .stride_t = 2,
     .frames = 3,
     .bias = true},
    {.in = 530,
     .out = 18,
     .height = 4,
     .width = 3,
     .kt = 1,
     .kh = 2,
     .kw = 2,
     .top = 2,
     .bottom = 3,
     .left = 3,
     .right = 2,
     .bias = true},
    {.in = 36,
     .out = 10,
     .height = 3,
     .width = 4,
     .kt = 2,
     .kh = 1,
     .kw = 1,
     .frames = 2,
     .null_frames = 7,
     .bias = true,
     .residual = true},
    {.in = 3, .out = 40, .height = 28, .width = 42, .kt = 1, .kh = 14, .kw = 14, .stride = 14},
    {.in = 64, .out = 400, .height = 5, .width = 50, .kt = 1, .kh = 1, .kw = 1, .bias = true},
    {.in = 33,
     .out = 3,
     .height = 2,
     .width = 70,
     .kt = 1,
     .kh = 5,
     .kw = 7,
     .stride = 3,
     .top = 4,
     .bottom = 5,
     .left = 9,
     .right = 8,
     .upsample = 2,
     .residual = true},
};

static float random_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* count random values of the type, times scale; the same numbers in f32. */
static void *random_buffer(float **plain, dk_dtype type, size_t count, float scale,
                           uint32_t *state)
{
    void *memory = dk_alloc(count * dk_dtype_bytes(type));
    *plain = dk_alloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        (*plain)[i] = random_value(state) * scale;
    }
    dk_convert_from_f32(memory, type, *plain, (int64_t)count);
    dk_convert_to_f32(*plain, memory, type, (int64_t)count);
    return memory;
}

/* One prepared case: the kernel's operands and the same values in f32. */
typedef struct conv_data {
    dk_conv_args args;
    const float *frames[MAX_FRAMES];
    const void *frame_list[MAX_FRAMES];
    float *weight, *bias, *residual;
    size_t dst_count;
    void *owned[MAX_FRAMES * 2 + 8];
    int owned_count;
} conv_data;

static void *own(conv_data *data, void *memory)
{
    data->owned[data->owned_count++] = memory;
    return memory;
}

static void release(conv_data *data)
{
    for (int i = 0; i < data->owned_count; i++) {
        dk_free(data->owned[i]);
    }
}

static void geometry(dk_conv_args *a, const conv_case *c, dk_dtype type)
{
    *a = (dk_conv_args){.src_type = type,
                        .height = c->height,
                        .width = c->width,
                        .in_channels = c->in,
                        .kernel_t = c->kt,
                        .kernel_h = c->kh,
                        .kernel_w = c->kw,
                        .stride_t = c->stride_t ? c->stride_t : 1,
                        .stride = c->stride ? c->stride : 1,
                        .pad_top = c->top,
                        .pad_left = c->left,
                        .upsample = c->upsample ? c->upsample : 1,
                        .activation = c->activation,
                        .dst_type = type,
                        .out_frames = c->frames ? c->frames : 1,
                        .out_channels = c->out};
    a->out_height = (c->height * a->upsample + c->top + c->bottom - c->kh) / a->stride + 1;
    a->out_width = (c->width * a->upsample + c->left + c->right - c->kw) / a->stride + 1;
    a->dst_frame_stride = (int64_t)a->out_height * a->out_width * c->out + CANARY;
}

static void prepare(conv_data *data, const conv_case *c, dk_dtype type,
                    const dk_gemm_kernel *kernel)
{
    *data = (conv_data){0};
    uint32_t state = 7;
    dk_conv_args *a = &data->args;
    geometry(a, c, type);
    size_t frame_count = (size_t)c->height * (size_t)c->width * (size_t)c->in;
    int inputs = (a->out_frames - 1) * a->stride_t + c->kt;
    assert_true(inputs <= MAX_FRAMES);
    for (int f = 0; f < inputs; f++) {
        if ((c->null_frames >> f & 1u) == 0) {
            float *plain;
            data->frame_list[f] =
                own(data, random_buffer(&plain, type, frame_count, 1.0f, &state));
            data->frames[f] = own(data, plain);
        }
    }
    a->frames = data->frame_list;
    int taps = c->kt * c->kh * c->kw;
    size_t weights = (size_t)c->out * (size_t)c->in * (size_t)taps;
    void *weight = own(data, random_buffer(&data->weight, type, weights,
                                           1.0f / sqrtf((float)(c->in * taps)), &state));
    own(data, data->weight);
    void *packed;
    dk_error err;
    size_t bytes = dk_conv_packed_bytes(kernel, c->out, c->in, taps);
    assert_ok(dk_try_alloc(&packed, bytes, "weights", &err), err);
    own(data, packed);
    dk_conv_pack_weight(packed, kernel, weight, type, c->out, c->in, taps);
    a->packed_weight = packed;
    own(data, random_buffer(&data->bias, DK_F32, (size_t)c->out, 1.0f, &state));
    own(data, data->bias);
    a->bias = c->bias ? data->bias : NULL;
    data->dst_count = (size_t)(a->out_frames * a->dst_frame_stride);
    void *residual =
        own(data, random_buffer(&data->residual, type, data->dst_count, 1.0f, &state));
    own(data, data->residual);
    a->residual = c->residual ? residual : NULL;
    a->dst = own(data, dk_alloc(data->dst_count * dk_dtype_bytes(type)));
}

static double expected(const conv_data *data, int t, int y, int x, int n)
{
    const dk_conv_args *a = &data->args;
    int taps = a->kernel_t * a->kernel_h * a->kernel_w;
    double sum = a->bias != NULL ? a->bias[n] : 0.0;
    for (int tap = 0; tap < taps; tap++) {
        int c = tap % a->kernel_w, b = tap / a->kernel_w % a->kernel_h;
        const float *picture =
            data->frames[t * a->stride_t + tap / (a->kernel_h * a->kernel_w)];
        int line = y * a->stride + b - a->pad_top, column = x * a->stride + c - a->pad_left;
        if (picture == NULL || line < 0 || column < 0 || line >= a->height * a->upsample ||
            column >= a->width * a->upsample) {
            continue;
        }
        int pixel = line / a->upsample * a->width + column / a->upsample;
        for (int i = 0; i < a->in_channels; i++) {
            sum += (double)picture[pixel * a->in_channels + i] *
                   (double)data->weight[(n * a->in_channels + i) * taps + tap];
        }
    }
    return a->activation == DK_ACT_SILU ? sum / (1.0 + exp(-sum)) : sum;
}

static void compare(const conv_data *data, double tolerance, const char *level, int number)
{
    const dk_conv_args *a = &data->args;
    float *got = dk_alloc(data->dst_count * sizeof *got);
    dk_convert_to_f32(got, a->dst, a->dst_type, (int64_t)data->dst_count);
    int64_t used = a->dst_frame_stride - CANARY;
    for (int64_t i = 0; i < (int64_t)data->dst_count; i++) {
        int64_t at = i % a->dst_frame_stride;
        if (at >= used) {
            assert_true(got[i] == 77.0f);
            continue;
        }
        int n = (int)(at % a->out_channels);
        int x = (int)(at / a->out_channels % a->out_width);
        int y = (int)(at / a->out_channels / a->out_width);
        double want = expected(data, (int)(i / a->dst_frame_stride), y, x, n);
        want += a->residual != NULL ? (double)data->residual[i] : 0.0;
        if (!(fabs((double)got[i] - want) <= tolerance * fmax(1.0, fabs(want)))) {
            fail_msg("%s, case %d: dst[%ld] is %g, expected %g", level, number, (long)i,
                     (double)got[i], want);
        }
    }
    dk_free(got);
}

static void run_case(const dk_linear_kernels *kernels, const dk_gemm_kernel *kernel, int number,
                     dk_dtype type, const char *level)
{
    conv_data data;
    prepare(&data, &cases[number], type, kernel);
    for (size_t i = 0; i < data.dst_count; i++) {
        float canary = 77.0f;
        dk_convert_from_f32((char *)data.args.dst + i * dk_dtype_bytes(type), type, &canary, 1);
    }
    dk_conv_plan plan;
    dk_conv_plan_init(&plan, kernel, &data.args, 2);
    assert_true(plan.scratch_bytes < 1u << 20);
    assert_int_equal(plan.tasks,
                     data.args.out_frames * plan.blocks_x * plan.blocks_y * plan.col_blocks);
    void *scratch;
    dk_error err;
    assert_ok(dk_try_alloc(&scratch, plan.scratch_bytes, "scratch", &err), err);
    memset(scratch, 0xff, plan.scratch_bytes); /* NaN wherever something is read unwritten */
    for (int task = 0; task < plan.tasks; task++) {
        dk_conv_block(&plan, kernels, &data.args, task, scratch);
    }
    dk_free(scratch);
    bool exact = type == DK_F32 && kernel->type == DK_F32;
    compare(&data, exact ? 1e-5 : 1e-2, level, number);
    release(&data);
}

static void convolutions_match(void **state)
{
    (void)state;
    unsigned flags = dk_cpu_flags_detect();
    for (int level = 0; level < DK_CPU_LEVELS; level++) {
        unsigned wanted = dk_cpu_levels[level].flags;
        if ((flags & wanted) != wanted) {
            break;
        }
        dk_linear_kernels kernels;
        dk_linear_kernels_init(&kernels, wanted);
        for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
            const char *name = dk_cpu_levels[level].name;
            run_case(&kernels, &kernels.gemm.f32, i, DK_F32, name);
            run_case(&kernels, &kernels.gemm.f32, i, DK_BF16, name);
            run_case(&kernels, &kernels.gemm.bf16, i, DK_BF16, name);
        }
    }
}

static void any_kernel_shape_will_do(void **state)
{
    (void)state;
    dk_linear_kernels kernels;
    dk_linear_kernels_init(&kernels, 0);
    kernels.gemm.bf16 = grouped_gemm();
    for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
        run_case(&kernels, &kernels.gemm.bf16, i, DK_BF16, "grouped");
        run_case(&kernels, &kernels.gemm.bf16, i, DK_F32, "grouped");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_match),
        cmocka_unit_test(any_kernel_shape_will_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
