/* The device's front: counts work, honours the dry run and a kept failure, then dispatches. */
#include "device/device.h"

#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/trace.h"

const char *const dk_device_op_names[DK_OP_COUNT] = {
    [DK_OP_LINEAR] = "linear",       [DK_OP_CONV] = "conv",
    [DK_OP_ATTENTION] = "attention", [DK_OP_NORM] = "norm",
    [DK_OP_NORM_ROPE] = "norm_rope", [DK_OP_MAP] = "map",
    [DK_OP_COMBINE] = "combine",     [DK_OP_PERMUTE] = "permute",
    [DK_OP_EMBEDDING] = "embedding", [DK_OP_MERGE] = "merge",
};

const char *const dk_component_names[DK_COMPONENT_COUNT] = {
    [DK_COMPONENT_TEXT_ENCODER] = "text_encoder",
    [DK_COMPONENT_IMAGE_ENCODER] = "image_encoder",
    [DK_COMPONENT_TRANSFORMER] = "transformer",
    [DK_COMPONENT_VAE] = "vae",
};

static const char *const backend_names[] = {
    [DK_ATTENTION_FLASH] = "flash", [DK_ATTENTION_REFERENCE] = "reference",
    [DK_ATTENTION_SAGE] = "sage",   [DK_ATTENTION_AUTO] = "auto",
    [DK_ATTENTION_SDPA] = "sdpa",
};

const char *dk_attention_backend_name(dk_attention_backend backend)
{
    return backend_names[backend];
}

const char *dk_device_attention_reason(const dk_device *device)
{
    return device->attention_reason;
}

dk_status dk_attention_backend_from_name(dk_attention_backend *out, const char *name,
                                         bool exact, dk_error *err)
{
    int found = name == NULL ? DK_ATTENTION_AUTO : -1;
    for (int i = 0; i < (int)(sizeof backend_names / sizeof *backend_names); i++) {
        found = name != NULL && strcmp(name, backend_names[i]) == 0 ? i : found;
    }
    if (name != NULL && strcmp(name, "fa3") == 0) { /* the name of its third version */
        found = DK_ATTENTION_FLASH;
    }
    if (found < 0) {
        return dk_fail(err, DK_INVALID,
                       "attention_backend is '%s', accepted are auto, flash, fa3, sdpa, sage, "
                       "reference",
                       name);
    }
    if (exact && found == DK_ATTENTION_SAGE) {
        return dk_fail(err, DK_INVALID,
                       "attention_backend is 'sage', which multiplies int8, and dtype is "
                       "'f32', accepted with it are auto, flash, fa3, sdpa, reference");
    }
    *out = exact && found == DK_ATTENTION_AUTO ? DK_ATTENTION_REFERENCE
                                               : (dk_attention_backend)found;
    return DK_OK;
}

void dk_device_rest(dk_device *device, dk_component component)
{
    if (device->ops->rest != NULL && !device->plans_only) {
        device->ops->rest(device, component);
    }
}

double dk_device_flops(const dk_device *device)
{
    double flops = 0;
    for (int i = 0; i < DK_OP_COUNT; i++) {
        flops += device->work[i].flops;
    }
    return flops;
}

uint64_t dk_device_pulse(const dk_device *device)
{
    return atomic_load_explicit(&device->pulse, memory_order_relaxed);
}

/* A call of an operation. */
typedef struct call {
    dk_device_op op;
    int64_t rows; /* that it is about, for traces; 0: it has none */
    double flops;
    int64_t began_ns;
} call;

/* Counts a call that begins. */
static call begin(dk_device *device, dk_device_op op, int64_t rows, double flops)
{
    device->work[op].calls++;
    device->work[op].flops += flops;
    device->operation = dk_device_op_names[op];
    if (!device->dry) {
        device->computed += flops;
        atomic_fetch_add_explicit(&device->pulse, 1, memory_order_relaxed);
    }
    return (call){.op = op, .rows = rows, .flops = flops, .began_ns = dk_now_ns()};
}

/* Devices that only enqueue write their spans themselves, when they know them. */
static void trace(const dk_device *device, const call *c, int64_t now)
{
    if (!device->dry && device->failed == DK_OK && device->ops->sync == NULL) {
        dk_trace_add(device->trace, &(dk_trace_span){.lane = device->trace_lane,
                                                     .name = dk_device_op_names[c->op],
                                                     .begin_ns = c->began_ns,
                                                     .end_ns = now,
                                                     .rows = c->rows,
                                                     .flops = c->flops});
    }
}

static void end(dk_device *device, const call *c)
{
    if (device->waits && !device->dry && device->failed == DK_OK && device->ops->sync != NULL) {
        device->failed = device->ops->sync(device, &device->failure);
    }
    device->operation = NULL;
    int64_t now = dk_now_ns();
    device->work[c->op].seconds += (double)(now - c->began_ns) * 1e-9;
    if (device->trace != NULL) {
        trace(device, c, now);
    }
}

size_t dk_device_scratch_bytes(const dk_device *device)
{
    return device->ops->scratch_bytes(device);
}

void dk_device_forget_scratch(dk_device *device)
{
    assert(device->plans_only);
    device->ops->forget_scratch(device);
}

void dk_device_adopt(dk_device *device, const dk_adoption *adoption)
{
    if (device->ops->adopt != NULL && !device->plans_only) {
        device->ops->adopt(device, adoption);
    }
}

void dk_device_disown(dk_device *device, const void *host)
{
    if (device->ops->disown != NULL && !device->plans_only) {
        device->ops->disown(device, host);
    }
}

void dk_device_set_dry(dk_device *device, bool dry)
{
    device->dry = dry || device->plans_only;
}

dk_status dk_device_sync(dk_device *device, dk_error *err)
{
    if (device->failed == DK_OK && device->ops->sync != NULL && !device->plans_only) {
        DK_TRY(device->ops->sync(device, err));
    }
    dk_status status = device->failed;
    device->failed = DK_OK;
    return status == DK_OK ? DK_OK : dk_fail(err, status, "%s", device->failure.message);
}

dk_status dk_device_alloc(dk_device *device, void **out, size_t bytes, const char *what,
                          dk_error *err)
{
    return device->ops->alloc(device, out, bytes, what, err);
}

void dk_device_free(dk_device *device, void *memory)
{
    if (memory != NULL) {
        device->ops->free(device, memory);
    }
}

void dk_device_write(dk_device *device, void *dst, const void *host, size_t bytes)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->write(device, dst, host, bytes);
    }
}

void dk_device_zero(dk_device *device, void *dst, size_t bytes)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->zero(device, dst, bytes);
    }
}

void dk_device_read(dk_device *device, void *host, const void *src, size_t bytes)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->read(device, host, src, bytes);
    }
}

dk_status dk_device_conv_prepare(dk_device *device, void **packed, const void *weight,
                                 dk_dtype weight_type, const int shape[5], dk_error *err)
{
    return device->ops->conv_prepare(device, packed, weight, weight_type, shape, err);
}

dk_status dk_device_linear_quantize(dk_device *device, dk_linear_quantized **out,
                                    const void *weight, dk_dtype weight_type, int64_t cols,
                                    int64_t depth, dk_quantization kind, dk_error *err)
{
    return device->ops->linear_quantize(device, out, weight, weight_type, cols, depth, kind,
                                        err);
}

void dk_device_window(dk_device *device, const void *host, size_t bytes)
{
    if (device->ops->window != NULL) {
        device->ops->window(device, host, bytes);
    }
}

void dk_device_forget(dk_device *device, const void *host)
{
    if (device->ops->forget != NULL) {
        device->ops->forget(device, host);
    }
}

void dk_device_linear(dk_device *device, const dk_linear_args *args)
{
    dk_device_linear_group(device, args, 1);
}

void dk_device_linear_group(dk_device *device, const dk_linear_args *args, int count)
{
    double flops = 0;
    for (int i = 0; i < count; i++) {
        flops += 2.0 * (double)args[i].rows * (double)args[i].cols * (double)args[i].depth;
    }
    call c = begin(device, DK_OP_LINEAR, args[0].rows, flops);
    device->work[DK_OP_LINEAR].calls += count - 1;
    if (device->failed == DK_OK) {
        device->ops->linear(device, args, count);
    }
    end(device, &c);
}

void dk_device_conv(dk_device *device, const dk_conv_args *args)
{
    double taps = (double)args->kernel_t * args->kernel_h * args->kernel_w;
    double pixels = (double)args->out_frames * args->out_height * args->out_width;
    double flops = 2.0 * taps * pixels * args->in_channels * args->out_channels;
    call c = begin(device, DK_OP_CONV, 0, flops);
    if (device->failed == DK_OK) {
        device->ops->conv(device, args);
    }
    end(device, &c);
}

void dk_device_attention(dk_device *device, const dk_attention_args *args)
{
    double scores = (double)args->heads * (double)args->q_len * (double)args->kv_len;
    call c = begin(device, DK_OP_ATTENTION, args->q_len, 4.0 * scores * args->head_dim);
    if (device->failed == DK_OK) {
        device->ops->attention(device, args);
    }
    end(device, &c);
}

void dk_device_norm(dk_device *device, const dk_norm_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_NORM, args->rows, 0);
        device->ops->norm(device, args);
        end(device, &c);
    }
}

void dk_device_norm_rope(dk_device *device, const dk_norm_rope_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_NORM_ROPE, args->rows, 0);
        device->ops->norm_rope(device, args);
        end(device, &c);
    }
}

void dk_device_row_squares(dk_device *device, const dk_norm_rope_args *args, float *squares)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_NORM_ROPE, args->rows, 0);
        device->ops->row_squares(device, args, squares);
        end(device, &c);
    }
}

void dk_device_merge(dk_device *device, const dk_attention_merge_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_MERGE, args->rows, 0);
        device->ops->merge(device, args);
        end(device, &c);
    }
}

void dk_device_map(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                   dk_dtype src_type, dk_activation activation, int64_t count)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_MAP, 0, 0);
        device->ops->map(device, dst, dst_type, src, src_type, activation, count);
        end(device, &c);
    }
}

void dk_device_combine(dk_device *device, float *dst, const float *const *src,
                       const float *coef, int terms, int64_t count)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_COMBINE, 0, 0);
        device->ops->combine(device, dst, src, coef, terms, count);
        end(device, &c);
    }
}

void dk_device_permute(dk_device *device, const dk_permute_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_PERMUTE, 0, 0);
        device->ops->permute(device, args);
        end(device, &c);
    }
}

void dk_device_embedding(dk_device *device, const dk_embedding_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        call c = begin(device, DK_OP_EMBEDDING, args->rows, 0);
        device->ops->embedding(device, args);
        end(device, &c);
    }
}

void dk_device_absmax(dk_device *device, uint32_t *flag, const void *src, dk_dtype type,
                      int64_t count)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->absmax(device, flag, src, type, count);
    }
}
