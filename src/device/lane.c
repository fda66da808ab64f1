/* Opening lanes, and their memory. */
#include "device/lane.h"

#include <string.h>

#include "base/alloc.h"
#include "device/module.h"

dk_status dk_device_lane_open(dk_device_lane **out, const char *device, dk_error *err)
{
    void *handle;
    const dk_device_module *module;
    *out = NULL;
    DK_TRY(dk_device_check_name(device, err));
    if (strcmp(device, "cpu") == 0) {
        return DK_OK;
    }
    DK_TRY(dk_device_module_load(&handle, &module, "xpu", err));
    dk_status status = module->open_lane(out, device, err);
    if (status != DK_OK) {
        dk_device_module_unload(handle);
        return status;
    }
    (*out)->module = handle;
    return DK_OK;
}

void dk_device_lane_close(dk_device_lane **lane)
{
    if (*lane != NULL) {
        void *module = (*lane)->module;
        (*lane)->close(*lane);
        dk_device_module_unload(module);
        *lane = NULL;
    }
}

dk_status dk_lane_reserve(dk_device_lane *lane, dk_lane_memory *memory, size_t bytes,
                          const char *what, dk_error *err)
{
    if (lane == NULL) {
        return dk_try_reserve(&memory->memory, &memory->bytes, bytes, what, err);
    }
    if (bytes <= memory->bytes) {
        return DK_OK;
    }
    DK_TRY(dk_lane_wait(lane, what, err)); /* nothing may still use the old one */
    dk_lane_release(lane, memory);
    memory->memory = lane->alloc(lane, bytes);
    if (memory->memory == NULL) {
        return dk_fail(err, DK_MEMORY, "no device memory for %s: %zu bytes", what, bytes);
    }
    memory->bytes = bytes;
    return DK_OK;
}

void dk_lane_release(dk_device_lane *lane, dk_lane_memory *memory)
{
    if (lane == NULL) {
        dk_free(memory->memory);
    } else if (memory->memory != NULL) {
        lane->free(lane, memory->memory);
    }
    *memory = (dk_lane_memory){0};
}

void dk_lane_copy(dk_device_lane *lane, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    if (lane == NULL) {
        memcpy(dst, src, bytes);
    } else {
        lane->copy(lane, dst, src, bytes);
    }
}

dk_status dk_lane_wait(dk_device_lane *lane, const char *what, dk_error *err)
{
    return lane == NULL || lane->wait(lane)
               ? DK_OK
               : dk_fail(err, DK_DEVICE, "%s: the device does not answer any more", what);
}
