/* Whether what the blocks of a model computed is finite. Graphics drivers are known whose
   products of bf16 give NaN for some shapes; a block that does is computed again by the
   device's careful kernels, from then on always. Devices that need no guard have none. */
#ifndef DK_NN_GUARD_H
#define DK_NN_GUARD_H

#include "device/device.h"
#include "tensor/tensor.h"

typedef struct dk_nn_guard {
    dk_device *device; /* borrowed; NULL: there is no guard */
    uint32_t *flags; /* [blocks], owned device memory: the largest magnitude of each, as bits */
    bool *careful;   /* [blocks], owned: computed carefully */
    int blocks;
} dk_nn_guard;

/* For a model of so many blocks; does nothing when it is open, or on a device that only plans.
 */
DK_MUST_USE dk_status dk_nn_guard_open(dk_nn_guard *guard, dk_device *device, int blocks,
                                       dk_error *err);
void dk_nn_guard_release(dk_nn_guard *guard);

/* Around a block, whose result is x. */
void dk_nn_guard_begin(const dk_nn_guard *guard, int block);
void dk_nn_guard_end(const dk_nn_guard *guard, int block, const dk_tensor *x);

/* Forgets what was seen. */
void dk_nn_guard_clear(const dk_nn_guard *guard);
/* Waits for the device. *block: the first whose result was not finite and that was not computed
   carefully, which from now on is; -1: all were finite, or nothing can be done. */
DK_MUST_USE dk_status dk_nn_guard_look(dk_nn_guard *guard, int *block, dk_error *err);

#endif
