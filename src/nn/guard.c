/* Flags of blocks on the device, looked at once per pass. */
#include "nn/guard.h"

#include "base/alloc.h"

static const uint32_t NOT_FINITE = 0x7f800000; /* the bits of infinity; NaN's are above */

dk_status dk_nn_guard_open(dk_nn_guard *guard, dk_device *device, int blocks, dk_error *err)
{
    if (device->ops->absmax == NULL || guard->device != NULL || device->plans_only) {
        return DK_OK;
    }
    void *flags;
    DK_TRY(dk_device_alloc(device, &flags, (size_t)blocks * sizeof(uint32_t), "flags of blocks",
                           err));
    *guard = (dk_nn_guard){.device = device,
                           .flags = flags,
                           .careful = dk_alloc((size_t)blocks * sizeof(bool)),
                           .blocks = blocks};
    return DK_OK;
}

void dk_nn_guard_release(dk_nn_guard *guard)
{
    if (guard->device != NULL) {
        dk_device_free(guard->device, guard->flags);
        dk_free(guard->careful);
    }
    *guard = (dk_nn_guard){0};
}

void dk_nn_guard_begin(const dk_nn_guard *guard, int block)
{
    if (guard->device != NULL) {
        guard->device->careful = guard->careful[block];
    }
}

void dk_nn_guard_end(const dk_nn_guard *guard, int block, const dk_tensor *x)
{
    if (guard->device != NULL) {
        guard->device->careful = false;
    }
    if (guard->device != NULL && dk_tensor_count(x) > 0) {
        dk_device_absmax(guard->device, &guard->flags[block], x->data, x->dtype,
                         dk_tensor_count(x));
    }
}

void dk_nn_guard_clear(const dk_nn_guard *guard)
{
    if (guard->device != NULL) {
        dk_device_zero(guard->device, guard->flags, (size_t)guard->blocks * sizeof(uint32_t));
    }
}

dk_status dk_nn_guard_look(dk_nn_guard *guard, int *block, dk_error *err)
{
    *block = -1;
    if (guard->device == NULL || guard->device->dry) {
        return DK_OK;
    }
    size_t bytes = (size_t)guard->blocks * sizeof(uint32_t);
    uint32_t *seen = dk_alloc(bytes);
    dk_device_read(guard->device, seen, guard->flags, bytes);
    dk_status status = dk_device_sync(guard->device, err);
    for (int i = 0; i < guard->blocks && status == DK_OK; i++) {
        if (seen[i] >= NOT_FINITE) {
            *block = guard->careful[i] ? -1 : i; /* the blocks after it follow from it */
            guard->careful[i] = true;
            break;
        }
    }
    dk_free(seen);
    return status;
}
