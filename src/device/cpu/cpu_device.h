/* The CPU as a device: kernels over a thread team. */
#ifndef DK_DEVICE_CPU_CPU_DEVICE_H
#define DK_DEVICE_CPU_CPU_DEVICE_H

#include "device/device.h"

/* Owned; closed with dk_device_close. */
DK_MUST_USE dk_status dk_cpu_device_open(dk_device **out, const dk_device_options *options,
                                         dk_error *err);

#endif
