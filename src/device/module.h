/* Devices that are modules: shared objects beside the program, loaded when their device is
   asked for, so that the program runs on machines without their libraries. */
#ifndef DK_DEVICE_MODULE_H
#define DK_DEVICE_MODULE_H

#include "device/device.h"
#include "device/lane.h"

/* One device that a module found. */
typedef struct dk_device_info {
    char name[128], backend[32], kind[16], uuid[40], driver[64];
    char asked[32];                    /* as --device takes it: "xpu:0", "xpu:cpu" */
    uint64_t memory_bytes, free_bytes; /* free_bytes: 0 where the driver does not tell */
    uint64_t local_bytes;              /* of a work-group */
    int compute_units, clock_mhz;
    char sub_groups[32]; /* "8 16 32" */
    bool f16, f64, usm;  /* arithmetic; memory that both sides address */
} dk_device_info;

/* Grows with every change of this interface or of a struct that crosses it. */
enum { DK_DEVICE_MODULE_VERSION = 8 };

typedef struct dk_device_module {
    int version;
    size_t device_bytes;   /* sizeof(dk_device): a module of another build is refused */
    const char *libraries; /* what it was linked with, for reports: "oneDNN 3.13.0, …" */
    dk_status (*open)(dk_device **out, const dk_device_options *options, dk_error *err);
    dk_status (*open_lane)(dk_device_lane **out, const char *name, dk_error *err);
    /* Up to `most` devices; returns how many there are. */
    int (*list)(dk_device_info *out, int most);
} dk_device_module;

/* What a module exports under the name "dk_device_module_get". */
typedef const dk_device_module *dk_device_module_get_fn(void);
#define DK_DEVICE_MODULE_SYMBOL "dk_device_module_get"

/* Loads libdarkroom-<kind>.so from DARKROOM_MODULE_PATH, from beside the program or from
   ../lib/darkroom. handle: for dk_device_module_unload. DK_NOT_FOUND names the places that were
   looked at, DK_UNSUPPORTED a library that is missing. */
DK_MUST_USE dk_status dk_device_module_load(void **handle, const dk_device_module **out,
                                            const char *kind, dk_error *err);
void dk_device_module_unload(void *handle);

#endif
