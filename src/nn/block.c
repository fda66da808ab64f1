/* Blocks: sharded weights, and the guard. */
#include "nn/block.h"

#include "nn/guard.h"
#include "nn/parallel.h"

void dk_nn_weights_begin(dk_nn *nn, const dk_bound *bound, int block)
{
    dk_error err;
    size_t bytes;
    if (bound->shards != NULL && dk_nn_calls(nn)) {
        dk_nn_note_call(nn, dk_shards_begin(bound->shards, block, &err), &err);
        const void *region = dk_shards_region(bound->shards, block, &bytes);
        dk_device_window(nn->device, region, bytes);
    }
}

void dk_nn_weights_end(dk_nn *nn, const dk_bound *bound, int block)
{
    if (bound->shards != NULL && dk_nn_calls(nn)) {
        dk_device_window(nn->device, NULL, 0);
        dk_shards_end(bound->shards, block);
    }
}

void dk_nn_block_begin(dk_nn *nn, dk_component component, const dk_bound *bound, int block)
{
    dk_nn_weights_begin(nn, bound, block);
    dk_nn_guard_begin(&nn->guards[component], block);
}

void dk_nn_block_end(dk_nn *nn, dk_component component, const dk_bound *bound, int block,
                     const dk_tensor *x)
{
    dk_nn_guard_end(&nn->guards[component], block, x);
    dk_nn_weights_end(nn, bound, block);
}
