/* UUIDs and free memory: of the CPU device from OpenCL and Linux, of GPUs from Level Zero. The
   libraries are those that SYCL has loaded, if it has. */
#include "device/xpu/identity.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/topology.h"
#include "device/xpu/drivers.h"

/* A function of a library; POSIX lets data pointers of dlsym be functions. */
#define LOOK_UP(function, library, name) (*(void **)&(function) = dlsym(library, name))

enum { MOST = 16 }; /* platforms, drivers, devices of each, memories of each */

static void write_uuid(dk_device_info *out, const uint8_t uuid[DK_DRIVER_UUID_BYTES])
{
    size_t used = 0;
    for (int i = 0; i < DK_DRIVER_UUID_BYTES; i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        used += (size_t)snprintf(out->uuid + used, sizeof out->uuid - used, "%s%02x",
                                 dash ? "-" : "", uuid[i]);
    }
}

/* --- the CPU ------------------------------------------------------------------------------ */

static void identify_cpu(dk_device_info *out)
{
    dk_cl_get_platforms *get_platforms;
    dk_cl_get_devices *get_devices;
    dk_cl_get_info *get_info;
    void *platforms[MOST], *devices[MOST];
    uint32_t platform_count = 0;
    void *library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_NOLOAD);
    out->free_bytes = dk_available_memory_bytes();
    if (library == NULL || LOOK_UP(get_platforms, library, "clGetPlatformIDs") == NULL ||
        LOOK_UP(get_devices, library, "clGetDeviceIDs") == NULL ||
        LOOK_UP(get_info, library, "clGetDeviceInfo") == NULL ||
        get_platforms(MOST, platforms, &platform_count) != 0) {
        platform_count = 0;
    }
    for (uint32_t p = 0; p < platform_count && p < MOST && out->uuid[0] == '\0'; p++) {
        uint32_t count = 0;
        if (get_devices(platforms[p], DK_CL_TYPE_CPU, MOST, devices, &count) != 0) {
            count = 0;
        }
        for (uint32_t d = 0; d < count && d < MOST && out->uuid[0] == '\0'; d++) {
            uint8_t uuid[DK_DRIVER_UUID_BYTES];
            char name[sizeof out->name] = "";
            if (get_info(devices[d], DK_CL_NAME, sizeof name, name, NULL) == 0 &&
                strcmp(name, out->name) == 0 &&
                get_info(devices[d], DK_CL_UUID, sizeof uuid, uuid, NULL) == 0) {
                write_uuid(out, uuid);
            }
        }
    }
    if (library != NULL) {
        dlclose(library);
    }
}

/* --- GPUs: compiled for; run with a loader of ours only (tests/xpu/ze_loader.c) -------------
 */

typedef struct gpu {
    char name[256];
    uint8_t uuid[DK_DRIVER_UUID_BYTES];
    uint64_t free_bytes;
    bool taken; /* some listed device is this one */
} gpu;

typedef struct gpus {
    gpu all[MOST * MOST];
    int count;
} gpus;

/* Handles of all drivers' devices, in their order. */
typedef struct handles {
    void *all[MOST * MOST];
    int count;
} handles;

/* The names: of the functions that begin, that list drivers, and that list a driver's devices.
   Without one of them there are none. */
static handles list_handles(void *library, const char *const names[3])
{
    handles out = {.count = 0};
    dk_ze_init *init;
    dk_ze_get_drivers *get_drivers;
    dk_ze_get_devices *get_devices;
    void *drivers[MOST];
    uint32_t driver_count = MOST;
    if (LOOK_UP(init, library, names[0]) == NULL ||
        LOOK_UP(get_drivers, library, names[1]) == NULL ||
        LOOK_UP(get_devices, library, names[2]) == NULL || init(0) != 0 ||
        get_drivers(&driver_count, drivers) != 0) {
        return out;
    }
    for (uint32_t i = 0; i < driver_count; i++) {
        uint32_t count = MOST;
        if (get_devices(drivers[i], &count, &out.all[out.count]) == 0) {
            out.count += (int)count;
        }
    }
    return out;
}

/* In Level Zero's order, which is SYCL's. */
static void list_gpus(gpus *out, void *library)
{
    static const char *const names[] = {"zeInit", "zeDriverGet", "zeDeviceGet"};
    dk_ze_get_properties *get_properties;
    if (LOOK_UP(get_properties, library, "zeDeviceGetProperties") == NULL) {
        return;
    }
    handles found = list_handles(library, names);
    for (int i = 0; i < found.count; i++) {
        dk_ze_properties properties = {.struct_type = DK_ZE_PROPERTIES};
        if (get_properties(found.all[i], &properties) == 0 &&
            properties.type == DK_ZE_TYPE_GPU) {
            gpu *added = &out->all[out->count++];
            snprintf(added->name, sizeof added->name, "%s", properties.name);
            memcpy(added->uuid, properties.uuid, sizeof added->uuid);
        }
    }
}

static uint64_t free_memory(void *device, dk_zes_get_memories *get_memories,
                            dk_zes_get_memory *get_memory)
{
    void *memories[MOST];
    uint32_t count = MOST;
    uint64_t bytes = 0;
    if (get_memories(device, &count, memories) != 0) {
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        dk_zes_memory memory = {.struct_type = DK_ZES_MEMORY};
        bytes += get_memory(memories[i], &memory) == 0 ? memory.free_bytes : 0;
    }
    return bytes;
}

/* System management has devices of its own, which the UUID tells apart; an older Level Zero has
   no zesInit, and drivers may refuse users who are no members of their group. */
static void add_free_memory(gpus *all, void *library)
{
    static const char *const names[] = {"zesInit", "zesDriverGet", "zesDeviceGet"};
    dk_zes_get_properties *get_properties;
    dk_zes_get_memories *get_memories;
    dk_zes_get_memory *get_memory;
    if (LOOK_UP(get_properties, library, "zesDeviceGetProperties") == NULL ||
        LOOK_UP(get_memories, library, "zesDeviceEnumMemoryModules") == NULL ||
        LOOK_UP(get_memory, library, "zesMemoryGetState") == NULL) {
        return;
    }
    handles found = list_handles(library, names);
    for (int i = 0; i < found.count; i++) {
        dk_zes_properties properties = {
            .struct_type = DK_ZES_PROPERTIES,
            .core = {.struct_type = DK_ZE_PROPERTIES},
        };
        if (get_properties(found.all[i], &properties) != 0) {
            continue;
        }
        for (int g = 0; g < all->count; g++) {
            if (memcmp(all->all[g].uuid, properties.core.uuid, DK_DRIVER_UUID_BYTES) == 0) {
                all->all[g].free_bytes = free_memory(found.all[i], get_memories, get_memory);
            }
        }
    }
}

/* The first of that name that no earlier device is. Where a selector has hidden one of several
   of a name from SYCL, nothing tells them apart: NULL. listed: how many of that name SYCL has.
 */
static gpu *gpu_of(gpus *all, const char *name, int listed)
{
    gpu *found = NULL;
    int alike = 0;
    for (int i = 0; i < all->count; i++) {
        if (strcmp(all->all[i].name, name) == 0) {
            alike++;
            found = found == NULL && !all->all[i].taken ? &all->all[i] : found;
        }
    }
    return alike == listed ? found : NULL;
}

static void identify_gpus(dk_device_info *devices, int count)
{
    gpus all = {.count = 0};
    void *library = dlopen("libze_loader.so.1", RTLD_NOW);
    if (library == NULL) {
        return;
    }
    list_gpus(&all, library);
    add_free_memory(&all, library);
    for (int i = 0; i < count; i++) {
        int alike = 0;
        for (int j = 0; j < count; j++) {
            alike += strcmp(devices[j].kind, "gpu") == 0 &&
                     strcmp(devices[j].name, devices[i].name) == 0;
        }
        gpu *found =
            strcmp(devices[i].kind, "gpu") == 0 ? gpu_of(&all, devices[i].name, alike) : NULL;
        if (found != NULL) {
            found->taken = true;
            devices[i].free_bytes = found->free_bytes;
            write_uuid(&devices[i], found->uuid);
        }
    }
    dlclose(library);
}

void dk_xpu_identify(dk_device_info *devices, int count)
{
    int gpu_count = 0;
    for (int i = 0; i < count; i++) {
        if (strcmp(devices[i].kind, "cpu") == 0) {
            identify_cpu(&devices[i]);
        }
        gpu_count += strcmp(devices[i].kind, "gpu") == 0;
    }
    if (gpu_count > 0) {
        identify_gpus(devices, count);
    }
}
