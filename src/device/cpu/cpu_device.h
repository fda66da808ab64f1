/* The CPU as a device: kernels over a thread team. */
#ifndef DK_DEVICE_CPU_CPU_DEVICE_H
#define DK_DEVICE_CPU_CPU_DEVICE_H

#include "device/device.h"

typedef struct dk_cpu_device_options {
    int threads;       /* 0: one per available core */
    const char *level; /* highest instruction set to use ("avx2"), NULL: what the CPU has */
    bool exact;        /* f32 arithmetic throughout */
    dk_attention_backend attention;
    const char *pin; /* where threads may run, see dk_pin_from_name */
    bool plans_only; /* a device for dry runs beside another one: `threads` are counted with,
                        but there is one, and scratch is measured, not allocated */
} dk_cpu_device_options;

/* Owned; closed with dk_device_close. */
DK_MUST_USE dk_status dk_cpu_device_open(dk_device **out, const dk_cpu_device_options *options,
                                         dk_error *err);

int dk_cpu_device_threads(const dk_device *device);
/* Scratch of all operations so far, of all threads together; the second begins anew, of a
   device that plans only. */
size_t dk_cpu_device_scratch_bytes(const dk_device *device);
void dk_cpu_device_forget_scratch(dk_device *device);
const char *dk_cpu_device_level(const dk_device *device);

#endif
