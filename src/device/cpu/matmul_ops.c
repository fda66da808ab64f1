/* The CPU device's matrix operations: linear, convolution, attention. */
#include <assert.h>

#include "base/alloc.h"
#include "base/region.h"
#include "device/cpu/cpu_ops.h"
#include "kernels/blocking.h"

enum { PAGE = 4096 };

bool dk_cpu_reserve(dk_cpu_device *cpu, size_t thread_bytes, size_t shared_bytes)
{
    /* Whole pages: a thread's scratch lies on the node of the thread, which touches it first.
     */
    size_t per_thread = (thread_bytes + PAGE - 1) / PAGE * PAGE;
    dk_status status = DK_OK;
    if (cpu->head.plans_only) {
        cpu->scratch_bytes = per_thread > cpu->scratch_bytes ? per_thread : cpu->scratch_bytes;
        cpu->shared_bytes = shared_bytes > cpu->shared_bytes ? shared_bytes : cpu->shared_bytes;
        return true;
    }
    if (per_thread > cpu->scratch_bytes) {
        dk_free(cpu->scratch);
        cpu->scratch = NULL;
        cpu->scratch_bytes = 0;
        size_t threads = (size_t)dk_team_threads(cpu->team);
        status = dk_try_alloc(&cpu->scratch, per_thread * threads, "kernel scratch",
                              &cpu->head.failure);
        cpu->scratch_bytes = status == DK_OK ? per_thread : 0;
    }
    if (status == DK_OK && shared_bytes > cpu->shared_bytes) {
        dk_free(cpu->shared);
        cpu->shared = NULL;
        cpu->shared_bytes = 0;
        status =
            dk_try_alloc(&cpu->shared, shared_bytes, "packed operands", &cpu->head.failure);
        cpu->shared_bytes = status == DK_OK ? shared_bytes : 0;
        dk_pages_make_large(cpu->shared, cpu->shared_bytes);
        dk_topology_interleave(&cpu->topology, cpu->shared, cpu->shared_bytes);
    }
    if (status != DK_OK) {
        cpu->head.failed = status;
    }
    return status == DK_OK;
}

void *dk_cpu_scratch(const dk_cpu_device *cpu, int thread)
{
    return (char *)cpu->scratch + (size_t)thread * cpu->scratch_bytes;
}

typedef struct linear_job {
    dk_cpu_device *cpu;
    const dk_linear_args *args;
    dk_linear_plan plan;
    int pass;
    int skipped; /* tasks of stage 1 that an earlier layer has done */
} linear_job;

static void linear_pack_task(void *context, int task, int thread)
{
    linear_job *job = context;
    dk_linear_pack(&job->cpu->linear, &job->plan, job->args, job->pass, job->skipped + task,
                   job->cpu->shared, dk_cpu_scratch(job->cpu, thread));
}

static void linear_task(void *context, int task, int thread)
{
    linear_job *job = context;
    dk_linear_block(&job->cpu->linear, &job->plan, job->args, job->pass, task, job->cpu->shared,
                    dk_cpu_scratch(job->cpu, thread));
}

static void run_linear_pass(linear_job *job)
{
    const dk_linear_plan *plan = &job->plan;
    dk_team *team = job->cpu->team;
    dk_team_run(team, dk_linear_pack_tasks(plan, job->pass) - job->skipped, linear_pack_task,
                job);
    dk_team_run(team, plan->cut.tasks, linear_task, job);
}

/* Whether the rows that a's plan packed are those that b's plan would pack. */
static bool packs_alike(const dk_linear_plan *a, const dk_linear_plan *b)
{
    return a->kernel == b->kernel && a->small == b->small && a->slice == b->slice &&
           a->pass_rows == b->pass_rows && a->passes == 1;
}

void dk_cpu_linear(dk_device *device, const dk_linear_args *args, int count)
{
    dk_cpu_device *cpu = dk_cpu_device_of(device);
    dk_linear_plan before = {0};
    for (int i = 0; i < count; i++) {
        linear_job job = {.cpu = cpu, .args = &args[i]};
        const dk_linear_plan *plan = &job.plan;
        dk_linear_plan_init(&job.plan, &cpu->linear, &args[i], device->exact,
                            cpu->head.threads);
        size_t held = cpu->shared_bytes;
        if (!dk_cpu_reserve(cpu, plan->scratch_bytes, plan->shared_bytes) || device->dry) {
            continue;
        }
        bool kept = packs_alike(&before, plan) && held == cpu->shared_bytes;
        job.skipped = kept ? plan->pack_tasks : 0;
        for (job.pass = 0; job.pass < plan->passes; job.pass++) {
            run_linear_pass(&job);
        }
        before = *plan;
    }
}

typedef struct quantize_job {
    dk_cpu_device *cpu;
    const dk_linear_quantized *out;
    const void *weight;
    dk_dtype type;
} quantize_job;

static void quantize_task(void *context, int task, int thread)
{
    quantize_job *job = context;
    dk_linear_int8_pack(&job->cpu->linear, job->out, job->weight, job->type, task,
                        dk_cpu_scratch(job->cpu, thread));
}

dk_status dk_cpu_linear_quantize(dk_device *device, dk_linear_quantized **out,
                                 const void *weight, dk_dtype weight_type, int64_t cols,
                                 int64_t depth, dk_quantization kind, dk_error *err)
{
    dk_cpu_device *cpu = dk_cpu_device_of(device);
    const dk_gemm_kernel *kernel = &cpu->linear.gemm.int8;
    if (kind != DK_QUANTIZATION_INT8) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "quantization is '%s', accepted on the CPU are none, int8",
                       dk_quantization_name(kind));
    }
    if (depth > DK_GEMM_INT8_DEPTH) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "a linear layer of depth %lld, int8 sums are exact up to %d",
                       (long long)depth, DK_GEMM_INT8_DEPTH);
    }
    if (!dk_cpu_reserve(cpu, dk_linear_int8_scratch(kernel, depth), 0)) {
        return dk_device_sync(device, err);
    }
    /* One piece: the struct, the scales, the panels. */
    size_t head = dk_whole_lines(sizeof **out);
    size_t scales = dk_whole_lines((size_t)cols * sizeof(float));
    size_t bytes = head + scales + dk_linear_int8_bytes(kernel, cols, depth);
    void *memory;
    DK_TRY(dk_try_alloc(&memory, bytes, "int8 weight", err));
    device->packed_bytes += bytes;
    dk_linear_quantized *made = memory;
    *made = (dk_linear_quantized){.cols = cols,
                                  .depth = depth,
                                  .panels = (char *)memory + head + scales,
                                  .scales = (float *)(void *)((char *)memory + head),
                                  .bytes = bytes};
    quantize_job job = {.cpu = cpu, .out = made, .weight = weight, .type = weight_type};
    dk_team_run(cpu->team, dk_linear_int8_tasks(kernel, cols), quantize_task, &job);
    *out = made;
    return DK_OK;
}

static const dk_gemm_kernel *conv_kernel(const dk_cpu_device *cpu)
{
    return cpu->head.exact ? &cpu->linear.gemm.f32 : &cpu->linear.gemm.bf16;
}

dk_status dk_cpu_conv_prepare(dk_device *device, void **packed, const void *weight,
                              dk_dtype weight_type, const int *shape, dk_error *err)
{
    const dk_cpu_device *cpu = dk_cpu_device_of(device);
    const dk_gemm_kernel *kernel = conv_kernel(cpu);
    const dk_conv_weight stored = {.data = weight,
                                   .type = weight_type,
                                   .out_channels = shape[0],
                                   .in_channels = shape[1],
                                   .taps = shape[2] * shape[3] * shape[4]};
    size_t bytes = dk_conv_packed_bytes(kernel, shape[0], shape[1], stored.taps);
    DK_TRY(dk_try_alloc(packed, bytes, "packed convolution weight", err));
    device->packed_bytes += bytes;
    dk_conv_pack_weight(*packed, kernel, &cpu->linear.decode, &stored);
    return DK_OK;
}

typedef struct conv_job {
    dk_cpu_device *cpu;
    const dk_conv_args *args;
    dk_conv_plan plan;
} conv_job;

static void conv_task(void *context, int task, int thread)
{
    conv_job *job = context;
    dk_conv_block(&job->plan, &job->cpu->linear, job->args, task,
                  dk_cpu_scratch(job->cpu, thread));
}

void dk_cpu_conv(dk_device *device, const dk_conv_args *args)
{
    conv_job job = {.cpu = dk_cpu_device_of(device), .args = args};
    dk_conv_plan_init(&job.plan, conv_kernel(job.cpu), args, job.cpu->head.threads);
    if (dk_cpu_reserve(job.cpu, job.plan.scratch_bytes, 0) && !device->dry) {
        dk_team_run(job.cpu->team, job.plan.tasks, conv_task, &job);
    }
}

typedef struct attention_job {
    dk_cpu_device *cpu;
    const dk_attention_args *args;
    dk_attention_plan plan;
} attention_job;

static void mean_task(void *context, int task, int thread)
{
    attention_job *job = context;
    dk_attention_mean(&job->plan, job->args, task, job->cpu->shared,
                      dk_cpu_scratch(job->cpu, thread));
}

static void pack_task(void *context, int task, int thread)
{
    attention_job *job = context;
    dk_attention_pack(&job->cpu->attention, &job->plan, job->args, task, job->cpu->shared,
                      dk_cpu_scratch(job->cpu, thread));
}

static void attention_task(void *context, int task, int thread)
{
    attention_job *job = context;
    dk_attention_block(&job->cpu->attention, &job->plan, job->args, task, job->cpu->shared,
                       dk_cpu_scratch(job->cpu, thread));
}

void dk_cpu_attention(dk_device *device, const dk_attention_args *args)
{
    attention_job job = {.cpu = dk_cpu_device_of(device), .args = args};
    const dk_attention_plan *plan = &job.plan;
    dk_attention_plan_init(&job.plan, &job.cpu->attention, args, device->attention,
                           device->threads);
    if (dk_cpu_reserve(job.cpu, plan->scratch_bytes, plan->packed_bytes) && !device->dry) {
        dk_team_run(job.cpu->team, plan->mean_tasks, mean_task, &job);
        dk_team_run(job.cpu->team, args->heads * plan->pack_blocks, pack_task, &job);
        dk_team_run(job.cpu->team, plan->cut.tasks, attention_task, &job);
    }
}
