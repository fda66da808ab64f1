/* The few functions of the drivers' own interfaces that tell what SYCL's does not: OpenCL's for
   the CPU, Level Zero's for GPUs. They are looked up in libraries that are there anyway, so
   that neither their headers nor their loaders are needed to build. Layouts and numbers as in
   Khronos' cl.h and cl_ext.h (3.0) and Level Zero's ze_api.h and zes_api.h (1.8). */
#ifndef DK_DEVICE_XPU_DRIVERS_H
#define DK_DEVICE_XPU_DRIVERS_H

#include <stddef.h>
#include <stdint.h>

enum { DK_DRIVER_UUID_BYTES = 16 };

/* OpenCL: handles are pointers, 0 is success. */
typedef int32_t dk_cl_get_platforms(uint32_t room, void **platforms, uint32_t *count);
typedef int32_t dk_cl_get_devices(void *platform, uint64_t type, uint32_t room, void **devices,
                                  uint32_t *count);
typedef int32_t dk_cl_get_info(void *device, uint32_t what, size_t bytes, void *value,
                               size_t *needed);
enum { DK_CL_TYPE_CPU = 1 << 1, DK_CL_NAME = 0x102b, DK_CL_UUID = 0x106a };

/* Level Zero: handles are pointers, 0 is success; the zes functions are its system management.
 */
typedef uint32_t dk_ze_init(uint32_t flags);
typedef uint32_t dk_ze_get_drivers(uint32_t *count, void **drivers);
typedef uint32_t dk_ze_get_devices(void *driver, uint32_t *count, void **devices);
enum { DK_ZE_TYPE_GPU = 1 };

typedef struct dk_ze_properties {
    uint32_t struct_type; /* DK_ZE_PROPERTIES */
    void *next;
    uint32_t type, vendor, device, flags, subdevice, core_clock;
    uint64_t most_alloc_bytes;
    uint32_t contexts, priority, threads, simd_width, units, subslices, slices;
    uint64_t timer_resolution;
    uint32_t timestamp_bits, kernel_timestamp_bits;
    uint8_t uuid[DK_DRIVER_UUID_BYTES];
    char name[256];
} dk_ze_properties;
enum { DK_ZE_PROPERTIES = 3 };
typedef uint32_t dk_ze_get_properties(void *device, dk_ze_properties *out);

typedef struct dk_zes_properties {
    uint32_t struct_type; /* DK_ZES_PROPERTIES */
    void *next;
    dk_ze_properties core;
    uint32_t subdevices;
    char texts[6][64];
} dk_zes_properties;
enum { DK_ZES_PROPERTIES = 1 };
typedef uint32_t dk_zes_get_properties(void *device, dk_zes_properties *out);
typedef uint32_t dk_zes_get_memories(void *device, uint32_t *count, void **memories);

typedef struct dk_zes_memory {
    uint32_t struct_type; /* DK_ZES_MEMORY */
    const void *next;
    uint32_t health;
    uint64_t free_bytes, size_bytes;
} dk_zes_memory;
enum { DK_ZES_MEMORY = 0x1e };
typedef uint32_t dk_zes_get_memory(void *memory, dk_zes_memory *out);

#endif
