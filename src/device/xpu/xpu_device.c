/* Opening and closing the XPU device, and its table of operations. */
#include <dpctl_utils.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/environment.h"
#include "device/xpu/lane.h"
#include "device/xpu/platform.h"
#include "device/xpu/xpu.h"

void dk_xpu_fail(dk_xpu *xpu, dk_status status, const char *format, ...)
{
    char text[DK_ERROR_MESSAGE_BYTES];
    va_list args;
    if (xpu->head.failed != DK_OK) {
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    xpu->head.failed = dk_fail(&xpu->head.failure, status, "%s", text);
}

/* On many cores a long queue of Intel's CPU device runs at half the speed of a short one. */
enum { CPU_DEPTH = 16 };

void dk_xpu_enqueued(dk_xpu *xpu)
{
    xpu->head.enqueued++;
    if (xpu->depth > 0 && ++xpu->ahead >= xpu->depth) {
        double started_ms = dk_thread_ms();
        xpu->ahead = 0;
        if (dnnl_stream_wait(xpu->stream) != dnnl_success) {
            dk_xpu_fail(xpu, DK_DEVICE, "%s: it does not answer any more",
                        xpu->head.description);
        }
        xpu->head.waited_ms += dk_thread_ms() - started_ms;
    }
}

static void close_device(dk_device *device)
{
    dk_xpu *xpu = dk_xpu_of(device);
    if (xpu->queue != NULL) {
        DPCTLQueue_Wait(xpu->queue);
        DPCTLQueue_Wait(xpu->transfer);
    }
    dk_xpu_spans_release(xpu);
    dk_xpu_weights_release(xpu);
    dk_xpu_attention_release(xpu);
    dk_xpu_primitives_release(xpu);
    dk_xpu_memory_release(xpu);
    dk_xpu_kernels_release(&xpu->kernels);
    dnnl_stream_destroy(xpu->stream);
    dnnl_engine_destroy(xpu->engine);
    DPCTLQueue_Delete(xpu->transfer);
    DPCTLQueue_Delete(xpu->queue);
    DPCTLContext_Delete(xpu->context);
    DPCTLDevice_Delete(xpu->device);
    dk_free(xpu->loss);
    dk_free(xpu);
}

static dk_status sync_device(dk_device *device, dk_error *err)
{
    dk_xpu *xpu = dk_xpu_of(device);
    xpu->lost = xpu->lost || (xpu->loss != NULL && unlink(xpu->loss) == 0);
    if (dnnl_stream_wait(xpu->stream) != dnnl_success || xpu->lost) {
        return dk_fail(err, DK_DEVICE,
                       "%s: it does not answer any more: the device was lost, or its driver "
                       "failed (dmesg may say more)",
                       device->description);
    }
    dk_xpu_count_arrivals(xpu);
    dk_xpu_spans_tell(xpu);
    return DK_OK;
}

/* The mark is an event of an empty command behind all others. */
static void *mark_place(dk_device *device)
{
    DPCTLSyclEventRef mark = DPCTLQueue_SubmitBarrier(dk_xpu_of(device)->queue);
    if (mark == NULL) {
        dk_xpu_fail(dk_xpu_of(device), DK_DEVICE, "%s: it takes no mark in its queue",
                    device->description);
    }
    return mark;
}

static void wait_for_mark(void *mark)
{
    DPCTLEvent_Wait(mark);
    DPCTLEvent_Delete(mark);
}

static size_t scratch_bytes(const dk_device *device)
{
    return ((const dk_xpu *)device)->memory.scratch_peak;
}

static void forget_scratch(dk_device *device)
{
    dk_xpu_of(device)->memory.scratch_peak = 0;
}

static dk_status alloc_memory(dk_device *device, void **out, size_t bytes, const char *what,
                              dk_error *err)
{
    return dk_xpu_alloc(dk_xpu_of(device), out, bytes, what, err);
}

static void free_memory(dk_device *device, void *memory)
{
    dk_xpu_free(dk_xpu_of(device), memory);
}

static void write_memory(dk_device *device, void *dst, const void *host, size_t bytes)
{
    dk_xpu *xpu = dk_xpu_of(device);
    void *to = dk_xpu_operand(xpu, dst);
    if (to != NULL) {
        dk_xpu_write(xpu, to, host, bytes);
    }
}

static void zero_memory(dk_device *device, void *dst, size_t bytes)
{
    dk_xpu *xpu = dk_xpu_of(device);
    void *to = dk_xpu_operand(xpu, dst);
    if (to != NULL) {
        dk_xpu_zero(xpu, to, bytes);
    }
}

static void read_memory(dk_device *device, void *host, const void *src, size_t bytes)
{
    dk_xpu *xpu = dk_xpu_of(device);
    const void *from = dk_xpu_operand(xpu, src);
    if (from != NULL) {
        dk_xpu_read(xpu, host, from, bytes);
    }
}

static const dk_device_ops xpu_ops = {
    .kind = "xpu",
    .close = close_device,
    .sync = sync_device,
    .mark = mark_place,
    .wait_for = wait_for_mark,
    .scratch_bytes = scratch_bytes,
    .forget_scratch = forget_scratch,
    .rest = dk_xpu_rest,
    .adopt = dk_xpu_adopt,
    .disown = dk_xpu_disown,
    .forget = dk_xpu_forget,
    .window = dk_xpu_window,
    .alloc = alloc_memory,
    .free = free_memory,
    .write = write_memory,
    .zero = zero_memory,
    .read = read_memory,
    .conv_prepare = dk_xpu_conv_prepare,
    .linear_quantize = dk_xpu_linear_quantize,
    .linear = dk_xpu_linear,
    .conv = dk_xpu_conv,
    .attention = dk_xpu_attention,
    .norm = dk_xpu_norm,
    .norm_rope = dk_xpu_norm_rope,
    .row_squares = dk_xpu_row_squares,
    .merge = dk_xpu_merge,
    .map = dk_xpu_map,
    .combine = dk_xpu_combine,
    .permute = dk_xpu_permute,
    .embedding = dk_xpu_embedding,
    .absmax = dk_xpu_absmax,
    .repeat = dk_xpu_repeat,
};

/* Whether oneDNN multiplies bf16 here: it says so when it is asked for such a primitive. */
static bool multiplies(dk_xpu *xpu, dnnl_data_type_t type)
{
    dnnl_memory_desc_t a = NULL, b = NULL, c = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_dims_t dims = {64, 64};
    dnnl_status_t status = dnnl_memory_desc_create_with_tag(&a, 2, dims, type, dnnl_ab);
    if (status == dnnl_success) {
        status = dnnl_memory_desc_create_with_tag(&b, 2, dims, type, dnnl_format_tag_any);
    }
    if (status == dnnl_success) {
        status = dnnl_memory_desc_create_with_tag(&c, 2, dims, dnnl_f32, dnnl_ab);
    }
    if (status == dnnl_success) {
        status = dnnl_matmul_primitive_desc_create(&desc, xpu->engine, a, b, NULL, c, NULL);
    }
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_desc_destroy(a);
    dnnl_memory_desc_destroy(b);
    dnnl_memory_desc_destroy(c);
    return status == dnnl_success;
}

/* Whether something is to be timed by its events. */
static bool wants_times(const dk_device_options *options)
{
    for (int i = 0; i < DK_COMPONENT_COUNT; i++) {
        if (options->residency.of[i] != DK_RESIDENT) {
            return true;
        }
    }
    return options->trace != NULL;
}

static dk_status open_queue(dk_xpu *xpu, const dk_device_options *options, dk_error *err)
{
    const char *name = options->name;
    int properties = DPCTL_IN_ORDER | (wants_times(options) ? DPCTL_ENABLE_PROFILING : 0);
    DK_TRY(dk_xpu_find(&xpu->device, name, err));
    xpu->queue = DPCTLQueue_CreateForDevice(xpu->device, NULL, properties);
    xpu->context = xpu->queue != NULL ? DPCTLQueue_GetContext(xpu->queue) : NULL;
    if (xpu->context != NULL) {
        xpu->transfer = DPCTLQueue_Create(xpu->context, xpu->device, NULL, properties);
    }
    if (xpu->transfer == NULL) {
        return dk_fail(err, DK_DEVICE, "device %s: SYCL makes no queue on it", name);
    }
    if (dnnl_sycl_interop_engine_create(&xpu->engine, xpu->device, xpu->context) !=
            dnnl_success ||
        dnnl_sycl_interop_stream_create(&xpu->stream, xpu->engine, xpu->queue) !=
            dnnl_success) {
        return dk_fail(err, DK_DEVICE, "device %s: oneDNN does not work on it", name);
    }
    xpu->multiplies_bf16 = multiplies(xpu, dnnl_bf16);
    const char *depth = dk_environment("DARKROOM_XPU_DEPTH");
    xpu->depth = DPCTLDevice_IsGPU(xpu->device) ? 0 : CPU_DEPTH;
    xpu->depth = depth != NULL ? (int)strtol(depth, NULL, 10) : xpu->depth;
    return DK_OK;
}

static void describe(dk_xpu *xpu, const char *asked)
{
    const char *name = DPCTLDevice_GetName(xpu->device);
    char *out = xpu->head.description;
    size_t bytes = sizeof xpu->head.description;
    int used = snprintf(out, bytes, "%s, ", asked);
    for (const char *c = name; c != NULL && *c != '\0' && (size_t)used + 1 < bytes; c++) {
        if (*c != ' ' || (used > 0 && out[used - 1] != ' ')) { /* names are padded */
            out[used++] = *c;
        }
    }
    out[used] = '\0';
    const char *driver = DPCTLDevice_GetDriverVersion(xpu->device);
    snprintf(xpu->identity, sizeof xpu->identity, "%s|%s", name != NULL ? name : "",
             driver != NULL ? driver : "");
    DPCTLCString_Delete(driver);
    DPCTLCString_Delete(name);
    if ((size_t)used < bytes) {
        snprintf(out + used, bytes - (size_t)used, ", products in %s",
                 dk_xpu_compute_type(xpu) == DK_BF16 ? "bf16" : "f32");
    }
}

/* "unchecked-products", or "unchecked-products:vae". */
static void spoil_component(dk_xpu *xpu, const char *fault)
{
    static const char name[] = "unchecked-products";
    size_t length = sizeof name - 1;
    if (fault == NULL || strncmp(fault, name, length) != 0) {
        return;
    }
    xpu->unchecked = true;
    xpu->spoiled_component = DK_COMPONENT_TRANSFORMER;
    for (int i = 0; i < DK_COMPONENT_COUNT && fault[length] == ':'; i++) {
        if (strcmp(fault + length + 1, dk_component_names[i]) == 0) {
            xpu->spoiled_component = (dk_component)i;
        }
    }
}

dk_status dk_xpu_device_open(dk_device **out, const dk_device_options *options, dk_error *err)
{
    dk_xpu *xpu = dk_alloc(sizeof *xpu);
    xpu->log = options->log;
    xpu->head.ops = &xpu_ops;
    xpu->head.plans_only = xpu->head.dry = options->plans_only;
    xpu->head.exact = options->exact;
    xpu->head.attention = options->attention;
    dk_xpu_attention_init(xpu);
    xpu->head.level = strcmp(options->name, "xpu:cpu") == 0 ? "xpu:cpu" : "xpu";
    xpu->head.host_memory = strcmp(options->name, "xpu:cpu") == 0;
    xpu->head.threads = 1;
    xpu->head.joins_frames = true;
    xpu->weights.options = options->residency;
    const char *fault = dk_environment("DARKROOM_XPU_FAULT");
    xpu->spoils = fault != NULL && strcmp(fault, "products") == 0;
    spoil_component(xpu, fault);
    xpu->loss = fault != NULL && strncmp(fault, "lost:", 5) == 0 ? dk_strdup(fault + 5) : NULL;
    xpu->head.direct_rows = INT64_MAX; /* oneDNN's sums depend on the number of rows */
    dk_status status = open_queue(xpu, options, err); /* for plans too: oneDNN is asked */
    if (status != DK_OK) {
        close_device(&xpu->head);
        return status;
    }
    describe(xpu, options->name);
    xpu->head.passing_type = dk_xpu_compute_type(xpu);
    *out = &xpu->head;
    return DK_OK;
}

static const dk_device_module module = {
    .version = DK_DEVICE_MODULE_VERSION,
    .device_bytes = sizeof(dk_device),
    .libraries = DK_XPU_LIBRARIES,
    .open = dk_xpu_device_open,
    .open_lane = dk_xpu_lane_open,
    .list = dk_xpu_list,
};

__attribute__((visibility("default"))) dk_device_module_get_fn dk_device_module_get;

const dk_device_module *dk_device_module_get(void)
{
    return &module;
}
