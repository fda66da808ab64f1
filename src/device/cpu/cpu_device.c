/* The CPU device: every operation is planned into tasks whose borders depend on the shapes
   alone, and run by the team. Scratch memory is kept between operations and grows in the dry
   run. */
#include "device/cpu/cpu_device.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/region.h"
#include "base/team.h"
#include "device/cpu/cpu_ops.h"
#include "kernels/cpu_flags.h"

static void close_device(dk_device *device)
{
    dk_cpu_device *cpu = dk_cpu_device_of(device);
    dk_team_destroy(&cpu->team);
    dk_free(cpu->scratch);
    dk_free(cpu->shared);
    dk_free(cpu);
}

static dk_status alloc_memory(dk_device *device, void **out, size_t bytes, const char *what,
                              dk_error *err)
{
    DK_TRY(dk_try_alloc(out, bytes, what, err));
    dk_pages_make_large(*out, bytes);
    dk_topology_interleave(&dk_cpu_device_of(device)->topology, *out, bytes);
    return DK_OK;
}

static void free_memory(dk_device *device, void *memory)
{
    (void)device;
    dk_free(memory);
}

static void copy_memory(dk_device *device, void *dst, const void *src, size_t bytes)
{
    (void)device;
    memcpy(dst, src, bytes);
}

static void zero_memory(dk_device *device, void *dst, size_t bytes)
{
    (void)device;
    memset(dst, 0, bytes);
}

static void forget_scratch(dk_device *device)
{
    dk_cpu_device *cpu = dk_cpu_device_of(device);
    cpu->scratch_bytes = cpu->shared_bytes = 0;
}

/* Of all threads together. */
static size_t scratch_bytes(const dk_device *device)
{
    const dk_cpu_device *cpu = (const dk_cpu_device *)device;
    return (size_t)device->threads * cpu->scratch_bytes + cpu->shared_bytes;
}

static const dk_device_ops cpu_ops = {
    .kind = "cpu",
    .close = close_device,
    .scratch_bytes = scratch_bytes,
    .forget_scratch = forget_scratch,
    .alloc = alloc_memory,
    .free = free_memory,
    .write = copy_memory,
    .zero = zero_memory,
    .read = copy_memory,
    .conv_prepare = dk_cpu_conv_prepare,
    .linear_quantize = dk_cpu_linear_quantize,
    .linear = dk_cpu_linear,
    .conv = dk_cpu_conv,
    .attention = dk_cpu_attention,
    .norm = dk_cpu_norm,
    .norm_rope = dk_cpu_norm_rope,
    .row_squares = dk_cpu_row_squares,
    .merge = dk_cpu_merge,
    .map = dk_cpu_map,
    .combine = dk_cpu_combine,
    .permute = dk_cpu_permute,
    .embedding = dk_cpu_embedding,
};

static int64_t direct_rows(const dk_gemm_kernels *gemm)
{
    int most = gemm->f32.direct_most;
    most = gemm->bf16.direct_most > most ? gemm->bf16.direct_most : most;
    return gemm->int8.direct_most > most ? gemm->int8.direct_most : most;
}

/* It has one kernel for all that is neither exact nor int8. */
static void set_attention(dk_device *head, const dk_device_options *options)
{
    dk_attention_backend asked = options->attention;
    bool other = asked == DK_ATTENTION_AUTO || asked == DK_ATTENTION_SDPA;
    head->attention = options->exact ? DK_ATTENTION_REFERENCE
                      : other        ? DK_ATTENTION_FLASH
                                     : asked;
    const char *why = options->exact ? ": f32 arithmetic throughout"
                      : asked == DK_ATTENTION_AUTO
                          ? ": the only one besides reference and sage "
                            "on a CPU"
                      : asked == DK_ATTENTION_SDPA ? ": a CPU computes it as flash"
                                                   : "";
    snprintf(head->attention_reason, sizeof head->attention_reason, "%s (%s%s)",
             dk_attention_backend_name(head->attention), dk_attention_backend_name(asked), why);
}

dk_status dk_cpu_device_open(dk_device **out, const dk_device_options *options, dk_error *err)
{
    unsigned flags = dk_cpu_flags_detect();
    if (options->level != NULL && !dk_cpu_flags_cap(&flags, options->level)) {
        return dk_fail(
            err, DK_INVALID,
            "cpu: unknown level '%s', accepted are c, avx2, avxvnni, avx512, avx512bf16, amx",
            options->level);
    }
    dk_pin pin;
    dk_cpu_device *cpu = dk_alloc(sizeof *cpu);
    dk_topology_read(&cpu->topology, "/sys/devices/system", NULL);
    dk_status status = dk_pin_from_name(&pin, options->pin, &cpu->topology, err);
    if (status == DK_OK) {
        status = dk_team_create(&cpu->team, options->plans_only ? 1 : options->threads, pin,
                                &cpu->topology, err);
    }
    if (status != DK_OK) {
        dk_free(cpu);
        return status;
    }
    cpu->head.threads = options->plans_only ? options->threads : dk_team_threads(cpu->team);
    cpu->head.plans_only = cpu->head.dry = options->plans_only;
    cpu->head.ops = &cpu_ops;
    cpu->head.exact = options->exact;
    cpu->head.host_memory = true;
    cpu->head.adds_parts = true;
    set_attention(&cpu->head, options);
    cpu->head.level = dk_cpu_flags_name(flags);
    dk_linear_kernels_init(&cpu->linear, flags);
    cpu->head.direct_rows = direct_rows(&cpu->linear.gemm);
    dk_attention_kernels_init(&cpu->attention, flags);
    dk_norm_kernels_init(&cpu->norm, flags);
    dk_elementwise_kernels_init(&cpu->elementwise, flags);
    snprintf(cpu->head.description, sizeof cpu->head.description, "cpu, %s, %d thread%s",
             cpu->head.level, dk_team_threads(cpu->team),
             dk_team_threads(cpu->team) == 1 ? "" : "s");
    *out = &cpu->head;
    return DK_OK;
}
