/* Benches of single operations of the device, and the roofline they are compared with. */
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/team.h"
#include "cli/bench.h"
#include "device/cpu/cpu_ops.h"
#include "kernels/blocking.h"
#include "tensor/convert.h"

static int or_else(int value, int otherwise)
{
    return value > 0 ? value : otherwise;
}

/* Small numbers of either sign in any float type; owned. */
static dk_status random_values(void **out, dk_dtype type, int64_t count, dk_error *err)
{
    enum { CHUNK = 1024 };
    float values[CHUNK];
    uint32_t state = 12345;
    DK_TRY(dk_try_alloc(out, (size_t)count * dk_dtype_bytes(type), "bench operands", err));
    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        for (int64_t k = 0; k < n; k++) {
            state = state * 1664525u + 1013904223u;
            values[k] = (float)(state >> 8) / (float)(1 << 23) - 1.0f;
        }
        dk_convert_from_f32((char *)*out + (size_t)i * dk_dtype_bytes(type), type, values, n);
    }
    return DK_OK;
}

/* The same in the device's memory; owned by it. */
static dk_status device_values(void **out, dk_device *device, dk_dtype type, int64_t count,
                               dk_error *err)
{
    void *values = NULL;
    size_t bytes = (size_t)count * dk_dtype_bytes(type);
    DK_TRY(random_values(&values, type, count, err));
    dk_status status = dk_device_alloc(device, out, bytes, "bench operands", err);
    if (status == DK_OK) {
        dk_device_write(device, *out, values, bytes);
    }
    dk_free(values);
    return status;
}

/* A weight, which stays on the host and is the device's to bring in. */
static dk_status adopted_values(void **out, dk_device *device, dk_dtype type, int64_t count,
                                dk_error *err)
{
    DK_TRY(random_values(out, type, count, err));
    dk_device_adopt(device, &(dk_adoption){.host = *out,
                                           .bytes = (size_t)count * dk_dtype_bytes(type),
                                           .name = "weight",
                                           .component = DK_COMPONENT_TRANSFORMER});
    return DK_OK;
}

static dk_dtype activations(const dk_device *device)
{
    return device->exact ? DK_F32 : DK_BF16;
}

/* What is timed, and the device it runs on. */
typedef struct operation {
    dk_device *device;
    const dk_linear_args *linear;
    const dk_attention_args *attention;
    const dk_conv_args *conv;
} operation;

static dk_status run_operation(void *context, dk_error *err)
{
    const operation *op = context;
    if (op->linear != NULL) {
        dk_device_linear(op->device, op->linear);
    }
    if (op->attention != NULL) {
        dk_device_attention(op->device, op->attention);
    }
    if (op->conv != NULL) {
        dk_device_conv(op->device, op->conv);
    }
    return dk_device_sync(op->device, err);
}

static dk_status run_bare(void *context, dk_error *err)
{
    dk_device *device = context;
    device->ops->repeat(device, 1);
    return dk_device_sync(device, err);
}

/* The same product by its library alone. */
static dk_status add_bare(json_t *facts, dk_device *device, const dk_bench_times *ours,
                          dk_error *err)
{
    dk_bench_times bare;
    const dk_bench_loop loop = {.pass = run_bare, .context = device, .repeats = ours->repeats};
    DK_TRY(dk_bench_time(&bare, &loop, err));
    json_object_set_new(facts, "library_seconds", json_real(bare.median_s));
    json_object_set_new(facts, "library_share", json_real(bare.median_s / ours->median_s));
    return DK_OK;
}

static dk_status time_and_report(json_t *facts, const dk_bench_flags *flags, operation *op,
                                 dk_error *err)
{
    dk_bench_times times;
    double before = dk_device_flops(op->device);
    dk_device_set_dry(op->device, true); /* devices decide then how they compute */
    dk_status status = run_operation(op, err);
    dk_device_set_dry(op->device, false);
    double flops = dk_device_flops(op->device) - before;
    if (status == DK_OK) {
        status = run_operation(op, err);
    }
    if (status == DK_OK) {
        const dk_bench_loop loop = {
            .pass = run_operation, .context = op, .repeats = flags->repeats};
        status = dk_bench_time(&times, &loop, err);
    }
    if (status != DK_OK) {
        json_decref(facts);
        return status;
    }
    if (op->device->ops->repeat != NULL && op->attention == NULL) {
        DK_TRY(add_bare(facts, op->device, &times, err));
    }
    if (op->attention != NULL) {
        json_object_set_new(facts, "how", json_string(dk_device_attention_reason(op->device)));
    }
    bool int8 = op->linear != NULL && op->linear->quantized != NULL;
    dk_bench_report(facts, op->device, &times, flops, int8, flags->json != 0);
    return DK_OK;
}

dk_status dk_bench_linear(const dk_bench_flags *flags, dk_error *err)
{
    int m = or_else(flags->m, 1800), n = or_else(flags->n, 1536), k = or_else(flags->k, 1536);
    dk_device *device = NULL;
    void *src = NULL, *weight = NULL, *dst = NULL;
    dk_linear_quantized *int8 = NULL;
    dk_dtype stored = DK_BF16;
    DK_TRY(dk_bench_weights_type(&stored, flags, err));
    DK_TRY(dk_bench_open_device(&device, flags, err));
    if (device->exact && stored == DK_I8) {
        dk_device_close(&device);
        return dk_fail(
            err, DK_INVALID,
            "--weights-dtype is 'i8' and --dtype is 'f32', accepted with i8 is bf16");
    }
    dk_dtype type = activations(device), made = stored == DK_I8 ? DK_BF16 : stored;
    dk_status status = device_values(&src, device, type, (int64_t)m * k, err);
    DK_TRY_DONE(status);
    DK_TRY_DONE(adopted_values(&weight, device, made, (int64_t)n * k, err));
    DK_TRY_DONE(device_values(&dst, device, type, (int64_t)m * n, err));
    if (stored == DK_I8) {
        DK_TRY_DONE(dk_device_linear_quantize(device, &int8, weight, made, n, k,
                                              DK_QUANTIZATION_INT8, err));
    }
    const dk_linear_args args = {.rows = m,
                                 .cols = n,
                                 .depth = k,
                                 .src = src,
                                 .src_type = type,
                                 .src_stride = k,
                                 .weight = weight,
                                 .weight_type = made,
                                 .quantized = int8,
                                 .dst = dst,
                                 .dst_type = type,
                                 .dst_stride = n};
    json_t *facts = json_pack("{s:s, s:i, s:i, s:i, s:s}", "bench", "linear", "m", m, "n", n,
                              "k", k, "weights", dk_dtype_name(stored));
    status =
        time_and_report(facts, flags, &(operation){.device = device, .linear = &args}, err);
done:
    dk_device_free(device, src);
    dk_device_disown(device, weight);
    dk_free(weight);
    dk_device_free(device, dst);
    dk_device_free(device, int8);
    dk_device_close(&device);
    return status;
}

dk_status dk_bench_attention(const dk_bench_flags *flags, dk_error *err)
{
    int heads = or_else(flags->heads, 12), q_len = or_else(flags->seq_len, 4096);
    int head_dim = or_else(flags->head_dim, 128), kv_len = or_else(flags->kv_len, q_len);
    if (head_dim > 512) {
        return dk_fail(err, DK_INVALID, "--head-dim is %d, accepted are 1 to 512", head_dim);
    }
    int64_t row = (int64_t)heads * head_dim;
    dk_device *device = NULL;
    void *q = NULL, *k = NULL, *v = NULL, *dst = NULL;
    DK_TRY(dk_bench_open_device(&device, flags, err));
    dk_dtype type = activations(device);
    dk_status status = device_values(&q, device, type, q_len * row, err);
    DK_TRY_DONE(status);
    DK_TRY_DONE(device_values(&k, device, type, kv_len * row, err));
    DK_TRY_DONE(device_values(&v, device, type, kv_len * row, err));
    DK_TRY_DONE(device_values(&dst, device, type, q_len * row, err));
    const dk_attention_args args = {.heads = heads,
                                    .head_dim = head_dim,
                                    .q_len = q_len,
                                    .kv_len = kv_len,
                                    .q = q,
                                    .k = k,
                                    .v = v,
                                    .type = type,
                                    .q_stride = row,
                                    .k_stride = row,
                                    .v_stride = row,
                                    .dst_stride = row,
                                    .scale = 0.1f,
                                    .dst = dst};
    json_t *facts = json_pack("{s:s, s:i, s:i, s:i, s:i}", "bench", "attention", "heads", heads,
                              "seq_len", q_len, "kv_len", kv_len, "head_dim", head_dim);
    status =
        time_and_report(facts, flags, &(operation){.device = device, .attention = &args}, err);
done:
    dk_device_free(device, q);
    dk_device_free(device, k);
    dk_device_free(device, v);
    dk_device_free(device, dst);
    dk_device_close(&device);
    return status;
}

dk_status dk_bench_conv(const dk_bench_flags *flags, dk_error *err)
{
    enum { MOST_FRAMES = 256, MOST_KERNEL = 16 };
    int width = or_else(flags->width, 480), height = or_else(flags->height, 320);
    int in = or_else(flags->in_channels, 96), out = or_else(flags->out_channels, 96);
    int kernel = or_else(flags->kernel, 3), frames = or_else(flags->num_frames, 1);
    if (frames > MOST_FRAMES || kernel > MOST_KERNEL || flags->kernel_t > MOST_KERNEL) {
        return dk_fail(err, DK_INVALID,
                       "--num-frames %d, --kernel %d, --kernel-t %d: accepted are up to %d "
                       "frames and kernels of up to %d",
                       frames, kernel, flags->kernel_t, MOST_FRAMES, MOST_KERNEL);
    }
    const int shape[5] = {out, in, flags->kernel_t, kernel, kernel};
    int64_t pixels = (int64_t)width * height;
    int64_t taps = (int64_t)flags->kernel_t * kernel * kernel;
    dk_device *device = NULL;
    void *src = NULL, *weight = NULL, *packed = NULL, *dst = NULL;
    const void *list[MOST_FRAMES + MOST_KERNEL];
    DK_TRY(dk_bench_open_device(&device, flags, err));
    dk_dtype type = activations(device);
    dk_status status =
        device_values(&src, device, type, (frames - 1 + flags->kernel_t) * pixels * in, err);
    DK_TRY_DONE(status);
    DK_TRY_DONE(adopted_values(&weight, device, DK_BF16, taps * in * out, err));
    DK_TRY_DONE(device_values(&dst, device, type, frames * pixels * out, err));
    DK_TRY_DONE(dk_device_conv_prepare(device, &packed, weight, DK_BF16, shape, err));
    for (int i = 0; i < frames - 1 + flags->kernel_t; i++) {
        list[i] = (char *)src + (size_t)(i * pixels * in) * dk_dtype_bytes(type);
    }
    const dk_conv_args args = {.frames = list,
                               .src_type = type,
                               .height = height,
                               .width = width,
                               .in_channels = in,
                               .kernel_t = flags->kernel_t,
                               .kernel_h = kernel,
                               .kernel_w = kernel,
                               .stride_t = 1,
                               .stride = 1,
                               .pad_top = kernel / 2,
                               .pad_left = kernel / 2,
                               .upsample = 1,
                               .packed_weight = packed,
                               .dst = dst,
                               .dst_type = type,
                               .dst_frame_stride = pixels * out,
                               .out_frames = frames,
                               .out_height = height,
                               .out_width = width,
                               .out_channels = out};
    json_t *facts =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "bench",
                  flags->kernel_t > 1 ? "conv3d" : "conv2d", "in_channels", in, "out_channels",
                  out, "kernel", kernel, "kernel_t", flags->kernel_t, "width", width, "height",
                  height, "num_frames", frames);
    status = time_and_report(facts, flags, &(operation){.device = device, .conv = &args}, err);
done:
    dk_device_free(device, src);
    dk_device_disown(device, weight);
    dk_free(weight);
    dk_device_free(device, dst);
    dk_device_free(device, packed);
    dk_device_close(&device);
    return status;
}

enum { ROOFLINE_DEPTH = 256, ROOFLINE_CALLS = 2000, ROOFLINE_MS = 100 };

typedef struct roofline_job {
    const dk_gemm_kernel *kernel;
    char *panels; /* [threads][thread_bytes]: A, B and C */
    size_t thread_bytes, a_bytes, b_bytes;
} roofline_job;

static void roofline_task(void *context, int task, int thread)
{
    (void)task;
    roofline_job *job = context;
    char *a = job->panels + (size_t)thread * job->thread_bytes, *b = a + job->a_bytes;
    float *c = (float *)(void *)(b + job->b_bytes);
    const dk_gemm_a rows = {.data = a, .ld = job->kernel->mr, .k = ROOFLINE_DEPTH, .parts = 1};
    dk_gemm_begin(job->kernel);
    for (int i = 0; i < ROOFLINE_CALLS; i++) {
        job->kernel->tile(c, job->kernel->nr, &rows, 0, b, false);
    }
    dk_gemm_end(job->kernel);
}

/* Operands are numbers, and begin at cache lines, as those of the operations do: on zeros tiles
   run faster, and those that straddle lines are read at a third of the speed. */
dk_status dk_bench_roofline(double *gflops, dk_device *device, bool int8, dk_error *err)
{
    dk_cpu_device *cpu = dk_cpu_device_of(device);
    const dk_gemm_kernel *kernel = int8            ? &cpu->linear.gemm.int8
                                   : device->exact ? &cpu->linear.gemm.f32
                                                   : &cpu->linear.gemm.bf16;
    int threads = dk_team_threads(cpu->team);
    roofline_job job = {.kernel = kernel};
    size_t a = (size_t)dk_gemm_a_bytes(kernel, kernel->mr, ROOFLINE_DEPTH);
    size_t b = (size_t)dk_gemm_b_bytes(kernel, ROOFLINE_DEPTH);
    job.a_bytes = dk_whole_lines(a);
    job.b_bytes = dk_whole_lines(b);
    job.thread_bytes =
        job.a_bytes + job.b_bytes + (size_t)(kernel->mr * kernel->nr) * sizeof(float);
    job.thread_bytes = (job.thread_bytes + 4095) / 4096 * 4096;
    void *memory;
    dk_dtype type = device->exact ? DK_F32 : DK_BF16;
    size_t bytes = (size_t)threads * job.thread_bytes;
    DK_TRY(random_values(&memory, type, (int64_t)(bytes / dk_dtype_bytes(type)), err));
    job.panels = memory;
    double best = 1e30, end = dk_now_ms() + ROOFLINE_MS;
    for (double now = dk_now_ms(); now < end;) {
        double start = now;
        dk_team_run(cpu->team, threads, roofline_task, &job);
        now = dk_now_ms();
        best = now - start < best ? now - start : best;
    }
    dk_free(memory);
    double flops = 2.0 * kernel->mr * kernel->nr * ROOFLINE_DEPTH * ROOFLINE_CALLS * threads;
    *gflops = flops / (best * 1e-3) * 1e-9;
    return DK_OK;
}
