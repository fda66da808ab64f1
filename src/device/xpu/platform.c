/* Devices by name. Intel's OpenCL for CPUs is found beside oneDNN, where pip puts both. */
#include "device/xpu/platform.h"

#include <dlfcn.h>
#include <dpctl_sycl_device_manager.h>
#include <dpctl_utils.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/xpu/identity.h"

/* OpenCL's loader reads the system's list of drivers; wheels put theirs beside their libraries.
   Khronos' loader takes its name from the first variable, Debian's from the second: which of
   them is loaded, other libraries of the program decide. The user's values stay. */
static void name_cpu_driver(void)
{
    Dl_info library;
    char path[4096];
    void *symbol;
    *(const dnnl_version_t *(**)(void))(void *)&symbol = dnnl_version;
    if (dladdr(symbol, &library) == 0) {
        return;
    }
    const char *slash = strrchr(library.dli_fname, '/');
    int folder = slash != NULL ? (int)(slash - library.dli_fname) : 0;
    snprintf(path, sizeof path, "%.*s/libintelocl.so", folder, library.dli_fname);
    if (access(path, R_OK) == 0) {
        setenv("OCL_ICD_FILENAMES", path, 0);
        setenv("OCL_ICD_VENDORS", path, 0);
    }
}

static void copy_text(char *dst, size_t bytes, const char *text)
{
    snprintf(dst, bytes, "%s", text != NULL ? text : "");
    DPCTLCString_Delete(text);
}

static const char *backend_name(DPCTLSyclBackendType backend)
{
    switch (backend) {
    case DPCTL_LEVEL_ZERO:
        return "level_zero";
    case DPCTL_OPENCL:
        return "opencl";
    case DPCTL_CUDA:
        return "cuda";
    case DPCTL_HIP:
        return "hip";
    default:
        return "other";
    }
}

static void describe(dk_device_info *out, DPCTLSyclDeviceRef device)
{
    size_t count = 0, used = 0;
    *out = (dk_device_info){0};
    copy_text(out->name, sizeof out->name, DPCTLDevice_GetName(device));
    copy_text(out->driver, sizeof out->driver, DPCTLDevice_GetDriverVersion(device));
    snprintf(out->backend, sizeof out->backend, "%s",
             backend_name(DPCTLDevice_GetBackend(device)));
    snprintf(out->kind, sizeof out->kind, "%s",
             DPCTLDevice_IsGPU(device)           ? "gpu"
             : DPCTLDevice_IsCPU(device)         ? "cpu"
             : DPCTLDevice_IsAccelerator(device) ? "accelerator"
                                                 : "other");
    out->memory_bytes = DPCTLDevice_GetGlobalMemSize(device);
    out->local_bytes = DPCTLDevice_GetLocalMemSize(device);
    out->compute_units = (int)DPCTLDevice_GetMaxComputeUnits(device);
    out->clock_mhz = (int)DPCTLDevice_GetMaxClockFrequency(device);
    out->f16 = DPCTLDevice_HasAspect(device, fp16);
    out->f64 = DPCTLDevice_HasAspect(device, fp64);
    out->usm = DPCTLDevice_HasAspect(device, usm_device_allocations);
    size_t *sizes = DPCTLDevice_GetSubGroupSizes(device, &count);
    for (size_t i = 0; sizes != NULL && i < count && used < sizeof out->sub_groups; i++) {
        used += (size_t)snprintf(out->sub_groups + used, sizeof out->sub_groups - used, "%s%zu",
                                 i > 0 ? " " : "", sizes[i]);
    }
    DPCTLSize_t_Array_Delete(sizes);
}

/* Devices in SYCL's order: GPUs through Level Zero, CPUs through OpenCL. The variables
   ONEAPI_DEVICE_SELECTOR and ZE_AFFINITY_MASK have already narrowed it. */
static bool is_ours(DPCTLSyclDeviceRef device, bool gpu)
{
    return gpu ? DPCTLDevice_IsGPU(device) && DPCTLDevice_GetBackend(device) == DPCTL_LEVEL_ZERO
               : DPCTLDevice_IsCPU(device) && DPCTLDevice_GetBackend(device) == DPCTL_OPENCL;
}

int dk_xpu_list(dk_device_info *out, int most)
{
    int count = 0, gpus = 0;
    name_cpu_driver();
    DPCTLDeviceVectorRef all = DPCTLDeviceMgr_GetDevices(DPCTL_ALL);
    size_t found = all != NULL ? DPCTLDeviceVector_Size(all) : 0;
    for (size_t i = 0; i < found; i++) {
        DPCTLSyclDeviceRef device = DPCTLDeviceVector_GetAt(all, i);
        bool gpu = is_ours(device, true);
        if (!gpu && !is_ours(device, false)) {
            DPCTLDevice_Delete(device);
            continue;
        }
        if (count < most) {
            describe(&out[count], device);
            if (gpu) {
                snprintf(out[count].asked, sizeof out->asked, "xpu:%d", gpus);
            } else {
                snprintf(out[count].asked, sizeof out->asked, "xpu:cpu");
            }
        }
        gpus += gpu;
        count++;
        DPCTLDevice_Delete(device);
    }
    DPCTLDeviceVector_Delete(all);
    dk_xpu_identify(out, count < most ? count : most);
    return count;
}

dk_status dk_xpu_number(int *number, const char *name, dk_error *err)
{
    char *end = "";
    long value = 0;
    if (strcmp(name, "xpu:cpu") == 0) {
        *number = -1;
        return DK_OK;
    }
    if (strncmp(name, "xpu:", 4) == 0) {
        value = strtol(name + 4, &end, 10);
    }
    if (*end != '\0' || value < 0 || value > 1023 || strcmp(name, "xpu:") == 0) {
        return dk_fail(err, DK_INVALID,
                       "device is '%s', accepted are xpu, xpu:N with N from 0 to 1023, xpu:cpu",
                       name);
    }
    *number = (int)value;
    return DK_OK;
}

static dk_status report_absence(int index, dk_error *err)
{
    enum { MOST = 8 };
    dk_device_info found[MOST];
    char text[512] = "";
    size_t used = 0;
    int count = dk_xpu_list(found, MOST);
    for (int i = 0; i < count && i < MOST && used < sizeof text; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s (%s)",
                                 i > 0 ? ", " : "", found[i].asked, found[i].name);
    }
    if (index < 0) {
        return dk_fail(err, DK_NOT_FOUND,
                       "device xpu:cpu: SYCL finds no CPU (found: %s): Intel's OpenCL for CPUs "
                       "(intel-opencl-rt) is missing, or ONEAPI_DEVICE_SELECTOR hides it",
                       count > 0 ? text : "nothing");
    }
    return dk_fail(err, DK_NOT_FOUND,
                   "device xpu:%d: SYCL finds no such GPU (found: %s): is the GPU's driver "
                   "(Level Zero) installed, may this user open /dev/dri/renderD*, does "
                   "ZE_AFFINITY_MASK or ONEAPI_DEVICE_SELECTOR hide it? xpu:cpu asks for the "
                   "CPU by name",
                   index, count > 0 ? text : "nothing");
}

dk_status dk_xpu_find(DPCTLSyclDeviceRef *out, const char *name, dk_error *err)
{
    int index = 0, gpus = 0;
    *out = NULL;
    DK_TRY(dk_xpu_number(&index, name, err));
    name_cpu_driver();
    DPCTLDeviceVectorRef all = DPCTLDeviceMgr_GetDevices(DPCTL_ALL);
    size_t found = all != NULL ? DPCTLDeviceVector_Size(all) : 0;
    for (size_t i = 0; i < found; i++) {
        DPCTLSyclDeviceRef device = DPCTLDeviceVector_GetAt(all, i);
        bool gpu = is_ours(device, true);
        bool wanted = index < 0 ? is_ours(device, false) : gpu && gpus == index;
        gpus += gpu;
        if (wanted && *out == NULL) {
            *out = device;
        } else {
            DPCTLDevice_Delete(device);
        }
    }
    DPCTLDeviceVector_Delete(all);
    return *out != NULL ? DK_OK : report_absence(index, err);
}
