/* Planned memory: two bump stacks, measured dry, allocated once. */
#include "nn/context.h"

#include <stdio.h>

#include "base/alloc.h"
#include "nn/parallel.h"

void dk_nn_init(dk_nn *nn, dk_device *device, dk_dtype type, const atomic_bool *cancel)
{
    *nn = (dk_nn){.device = device, .type = type, .cancel = cancel};
}

void dk_nn_release(dk_nn *nn)
{
    dk_free(nn->word);
    if (nn->device != NULL) {
        dk_device_free(nn->device, nn->temp.memory);
        dk_device_free(nn->device, nn->keep.memory);
        for (int i = 0; i < DK_COMPONENT_COUNT; i++) {
            dk_nn_guard_release(&nn->guards[i]);
        }
    }
    *nn = (dk_nn){0};
}

void dk_nn_dry_begin(dk_nn *nn)
{
    dk_device_set_dry(nn->device, true);
    nn->temp.used = nn->temp.peak = 0;
    nn->keep.used = nn->keep.peak = 0;
}

static dk_status grow(dk_nn *nn, dk_nn_stack *stack, const char *what, dk_error *err)
{
    stack->used = 0;
    if (stack->peak <= stack->size || nn->device->plans_only) {
        return DK_OK;
    }
    dk_device_free(nn->device, stack->memory);
    stack->memory = NULL;
    stack->size = 0;
    void *memory;
    DK_TRY(dk_device_alloc(nn->device, &memory, stack->peak, what, err));
    stack->memory = memory;
    stack->size = stack->peak;
    return DK_OK;
}

dk_status dk_nn_dry_end(dk_nn *nn, dk_error *err)
{
    dk_device_set_dry(nn->device, false);
    dk_status status = dk_device_sync(nn->device, err);
    if (status == DK_OK) {
        status = grow(nn, &nn->temp, "activations", err);
    }
    if (status == DK_OK) {
        status = grow(nn, &nn->keep, "caches of a generation", err);
    }
    return dk_nn_agree_status(nn, status, err);
}

/* A dry address is a number that nobody follows: its place in a stack that starts at 64. */
static dk_tensor take(dk_nn *nn, dk_nn_stack *stack, dk_dtype type, int64_t rows, int64_t cols)
{
    dk_tensor tensor = DK_TENSOR(NULL, type, rows, cols);
    size_t bytes = (dk_tensor_bytes(&tensor) + DK_ALIGNMENT - 1) / DK_ALIGNMENT * DK_ALIGNMENT;
    size_t start = stack->used;
    stack->used += bytes;
    if (nn->device->dry) {
        stack->peak = stack->used > stack->peak ? stack->used : stack->peak;
        tensor.data = (void *)(uintptr_t)(DK_ALIGNMENT + start);
    } else if (stack->used <= stack->size) {
        tensor.data = stack->memory + start;
    } else if (nn->device->failed == DK_OK) {
        nn->device->failed = dk_fail(&nn->device->failure, DK_INTERNAL,
                                     "a forward pass needs more memory than its dry run");
    }
    return tensor;
}

dk_tensor dk_nn_temp(dk_nn *nn, dk_dtype type, int64_t rows, int64_t cols)
{
    return take(nn, &nn->temp, type, rows, cols);
}

dk_tensor dk_nn_keep(dk_nn *nn, dk_dtype type, int64_t rows, int64_t cols)
{
    return take(nn, &nn->keep, type, rows, cols);
}

static uint64_t wishes(const dk_nn *nn)
{
    uint64_t stopped = 0;
    for (int i = 0; i < nn->wish_count; i++) {
        stopped |= dk_nn_stops(nn->wishes[i]) ? (uint64_t)1 << i : 0;
    }
    return stopped;
}

enum { STOP_BIT = 32, FAILURE_BIT = 33 }; /* of a word: above the wishes; a status above all */

/* Of all ranks. What was said earlier is part of what is said now: wishes and failures stay. */
static uint64_t exchange(dk_nn *nn, uint64_t mine, bool block)
{
    if (nn->device->dry) {
        return mine >> FAILURE_BIT << FAILURE_BIT;
    }
    uint64_t heard = dk_nn_hear(nn);
    if (!block) {
        return dk_nn_agree_most(nn, mine);
    }
    if (heard >> STOP_BIT == 0) {
        dk_nn_say(nn, mine);
    }
    return heard;
}

/* What all ranks make of it: their failures, and the leader's wishes, as one word of which the
   largest counts. A dry run, which tells nobody, hears no wish either. */
static dk_status hear_all(dk_nn *nn, bool stops, bool block, dk_error *err)
{
    uint64_t mine = 0;
    if (nn->device->failed != DK_OK) {
        mine = (uint64_t)nn->device->failed << FAILURE_BIT;
    } else if (dk_nn_leads(nn)) {
        mine = (stops ? (uint64_t)1 << STOP_BIT : 0) | wishes(nn);
    }
    uint64_t most = exchange(nn, mine, block);
    if (nn->device->failed != DK_OK && (!block || nn->cut_off || most >> STOP_BIT != 0)) {
        return dk_device_sync(nn->device, err);
    }
    nn->stopped = most & UINT32_MAX;
    if (most >> FAILURE_BIT != 0) {
        return dk_nn_fail_elsewhere(err, (dk_status)(most >> FAILURE_BIT));
    }
    return most >> STOP_BIT != 0 ? dk_fail(err, DK_CANCELLED, "stopped on request") : DK_OK;
}

static dk_status check_together(dk_nn *nn, bool stops, bool block, dk_error *err)
{
    dk_status status = hear_all(nn, stops, block, err);
    nn->agreed = status != DK_OK && !nn->device->dry && !nn->cut_off;
    return status;
}

static dk_status check(dk_nn *nn, bool block, dk_error *err)
{
    bool stops = dk_nn_stops(nn->cancel) || dk_nn_stops(nn->own_cancel);
    if (nn->parallel != NULL) {
        return check_together(nn, stops, block, err);
    }
    if (nn->device->failed != DK_OK) {
        return dk_device_sync(nn->device, err);
    }
    nn->stopped = nn->device->dry ? 0 : wishes(nn);
    return stops ? dk_fail(err, DK_CANCELLED, "stopped on request") : DK_OK;
}

dk_status dk_nn_check(dk_nn *nn, dk_error *err)
{
    return check(nn, false, err);
}

dk_status dk_nn_check_block(dk_nn *nn, dk_error *err)
{
    return check(nn, true, err);
}

dk_status dk_nn_sync(dk_nn *nn, dk_error *err)
{
    return dk_nn_agree_status(nn, dk_device_sync(nn->device, err), err);
}

dk_status dk_nn_look(dk_nn *nn, dk_component component, bool *again, dk_error *err)
{
    int block;
    dk_status looked = dk_nn_guard_look(&nn->guards[component], &block, err);
    DK_TRY(dk_nn_agree_status(nn, looked, err));
    block = (int)dk_nn_agree_most(nn, (uint64_t)(block + 1)) - 1;
    *again = block >= 0;
    if (*again) {
        dk_nn_guard_clear(&nn->guards[component]);
    }
    if (*again && nn->spoiled != NULL) {
        nn->spoiled(nn->spoiled_context, component, block);
    }
    return DK_OK;
}

void dk_nn_tap(dk_nn *nn, const char *name, int index, const dk_tensor *tensor)
{
    if (nn->tap != NULL && !nn->device->dry && nn->device->failed == DK_OK) {
        char full[64];
        snprintf(full, sizeof full, "%s.%d", name, index);
        nn->tap(nn->tap_context, full, tensor);
    }
}
