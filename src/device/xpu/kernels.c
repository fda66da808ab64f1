/* Building and launching our kernels. */
#include "device/xpu/kernels.h"

#include "base/clock.h"
#include "device/xpu/xpu.h"

static const struct {
    dk_xpu_file file;
    const char *name;
} table[DK_XPU_KERNEL_COUNT] = {
#define DK_XPU_KERNEL_ROW(id, file, name) [DK_XPU_##id] = {DK_XPU_FILE_##file, name},
    DK_XPU_KERNEL_MAP(DK_XPU_KERNEL_ROW)
#undef DK_XPU_KERNEL_ROW
};

void dk_xpu_kernels_release(dk_xpu_kernels *kernels)
{
    for (int i = 0; i < DK_XPU_KERNEL_COUNT; i++) {
        DPCTLKernel_Delete(kernels->kernel[i]);
    }
    for (int i = 0; i < DK_XPU_FILE_COUNT; i++) {
        DPCTLKernelBundle_Delete(kernels->bundle[i]);
    }
    *kernels = (dk_xpu_kernels){0};
}

bool dk_xpu_kernel_ready(dk_xpu *xpu, dk_xpu_kernel kernel)
{
    dk_xpu_kernels *kernels = &xpu->kernels;
    dk_xpu_file file = table[kernel].file;
    if (kernels->kernel[kernel] != NULL) {
        return true;
    }
    if (kernels->bundle[file] == NULL) {
        const dk_xpu_spirv *spirv = &dk_xpu_spirv_files[file];
        double start = dk_now_ms();
        kernels->bundle[file] = DPCTLKernelBundle_CreateFromSpirv(
            xpu->context, xpu->device, spirv->bytes, spirv->size, "");
        dk_log_debug(xpu->log, "kernels of %s.cl built in %.0f ms", spirv->name,
                     dk_now_ms() - start);
    }
    if (kernels->bundle[file] != NULL) {
        kernels->kernel[kernel] =
            DPCTLKernelBundle_GetKernel(kernels->bundle[file], table[kernel].name);
    }
    if (kernels->kernel[kernel] == NULL) {
        dk_xpu_fail(xpu, DK_DEVICE, "%s: its driver does not build the kernel '%s' of %s.cl",
                    xpu->head.description, table[kernel].name, dk_xpu_spirv_files[file].name);
    }
    return kernels->kernel[kernel] != NULL;
}

void dk_xpu_launch(dk_xpu *xpu, dk_xpu_kernel kernel, dk_xpu_args *args, const size_t groups[3],
                   const size_t local[3])
{
    void *pointers[DK_XPU_MOST_ARGS];
    if (xpu->head.failed != DK_OK || xpu->head.plans_only ||
        !dk_xpu_kernel_ready(xpu, kernel) || xpu->head.dry) {
        return;
    }
    for (size_t i = 0; i < args->count; i++) {
        bool is_pointer = args->types[i] == DPCTL_VOID_PTR;
        pointers[i] = is_pointer ? args->values[i].pointer : &args->values[i];
    }
    /* SYCL counts dimensions from the slowest, OpenCL C from the fastest. */
    const size_t global[3] = {groups[2] * local[2], groups[1] * local[1], groups[0] * local[0]};
    const size_t group[3] = {local[2], local[1], local[0]};
    DPCTLSyclEventRef event =
        DPCTLQueue_SubmitNDRange(xpu->kernels.kernel[kernel], xpu->queue, pointers, args->types,
                                 args->count, global, group, 3, NULL, 0);
    if (event == NULL) {
        dk_xpu_fail(xpu, DK_DEVICE, "%s: the kernel '%s' was refused", xpu->head.description,
                    table[kernel].name);
        return;
    }
    dk_xpu_span_note(xpu, DK_XPU_LANE_COMPUTE, table[kernel].name, NULL, event, 0);
    dk_xpu_enqueued(xpu);
    DPCTLEvent_Delete(event);
}
