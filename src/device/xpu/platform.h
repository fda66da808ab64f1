/* What SYCL finds on this machine. */
#ifndef DK_DEVICE_XPU_PLATFORM_H
#define DK_DEVICE_XPU_PLATFORM_H

#include <dpctl_sycl_device_interface.h>
#include <oneapi/dnnl/dnnl_version.h>

#include "device/module.h"

/* The device that a name means: "xpu", "xpu:N", "xpu:cpu". Owned. DK_NOT_FOUND says what was
   found. */
DK_MUST_USE dk_status dk_xpu_find(DPCTLSyclDeviceRef *out, const char *name, dk_error *err);

/* Which GPU a name means; -1: xpu:cpu. */
DK_MUST_USE dk_status dk_xpu_number(int *number, const char *name, dk_error *err);

int dk_xpu_list(dk_device_info *out, int most);

#define DK_XPU_TEXT_OF(x) #x
#define DK_XPU_TEXT(x)    DK_XPU_TEXT_OF(x)
#define DK_XPU_LIBRARIES                                                                       \
    "oneDNN " DK_XPU_TEXT(DNNL_VERSION_MAJOR) "." DK_XPU_TEXT(                                 \
        DNNL_VERSION_MINOR) "." DK_XPU_TEXT(DNNL_VERSION_PATCH)

#endif
