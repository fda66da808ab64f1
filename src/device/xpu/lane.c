/* A lane is a SYCL queue in the device's default context, which the device's own queues are in
   too: memory of the one is the other's. */
#include "device/xpu/lane.h"

#include <dpctl_sycl_context_interface.h>
#include <dpctl_sycl_event_interface.h>
#include <dpctl_sycl_queue_interface.h>
#include <dpctl_sycl_usm_interface.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "device/xpu/platform.h"

typedef struct lane {
    dk_device_lane base;
    DPCTLSyclQueueRef queue;
    DPCTLSyclContextRef context;
    bool failed;
} lane;

static lane *own(dk_device_lane *base)
{
    return (lane *)base;
}

static bool holds(dk_device_lane *base, const void *memory)
{
    void *address = (void *)(uintptr_t)memory; /* which dpctl only looks at */
    return DPCTLUSM_GetPointerType(address, own(base)->context) != DPCTL_USM_UNKNOWN;
}

static void *alloc_memory(dk_device_lane *base, size_t bytes)
{
    return DPCTLaligned_alloc_device(DK_ALIGNMENT, bytes, own(base)->queue);
}

static void free_memory(dk_device_lane *base, void *memory)
{
    DPCTLfree_with_queue(memory, own(base)->queue);
}

static void copy(dk_device_lane *base, void *dst, const void *src, size_t bytes)
{
    DPCTLSyclEventRef event = DPCTLQueue_Memcpy(own(base)->queue, dst, src, bytes);
    if (event == NULL) {
        own(base)->failed = true;
        return;
    }
    DPCTLEvent_Delete(event);
}

static bool wait_for(dk_device_lane *base)
{
    DPCTLQueue_Wait(own(base)->queue);
    return !own(base)->failed;
}

static void close_lane(dk_device_lane *base)
{
    lane *l = own(base);
    DPCTLQueue_Wait(l->queue);
    DPCTLContext_Delete(l->context);
    DPCTLQueue_Delete(l->queue);
    dk_free(l);
}

dk_status dk_xpu_lane_open(dk_device_lane **out, const char *name, dk_error *err)
{
    DPCTLSyclDeviceRef device;
    int number;
    DK_TRY(dk_xpu_number(&number, name, err));
    DK_TRY(dk_xpu_find(&device, name, err));
    DPCTLSyclQueueRef queue = DPCTLQueue_CreateForDevice(device, NULL, DPCTL_IN_ORDER);
    DPCTLDevice_Delete(device);
    if (queue == NULL) {
        return dk_fail(err, DK_DEVICE, "device %s: SYCL makes no queue on it", name);
    }
    lane *made = dk_alloc(sizeof *made);
    *made = (lane){.base = {.queue = queue,
                            .number = number,
                            .holds = holds,
                            .alloc = alloc_memory,
                            .free = free_memory,
                            .copy = copy,
                            .wait = wait_for,
                            .close = close_lane},
                   .queue = queue,
                   .context = DPCTLQueue_GetContext(queue)};
    *out = &made->base;
    return DK_OK;
}
