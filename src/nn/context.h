/* What a model's forward functions run in: the device, the type of activations, planned memory
   and the wish to stop.

   Memory. A forward function takes its buffers from two stacks: `temp`, unwound at the end of
   each scope, and `keep`, for what lives until the caller lets go (key/value caches, a
   convolution's history). The pipeline first runs the same functions dry (no arithmetic), which
   measures both stacks, then allocates them once; the step loop allocates nothing. */
#ifndef DK_NN_CONTEXT_H
#define DK_NN_CONTEXT_H

#include <stdatomic.h>
#include <stdint.h>

#include "device/device.h"
#include "nn/guard.h"
#include "tensor/tensor.h"

/* Is told of a block whose result was not finite and that is computed again, carefully. */
typedef void dk_nn_spoiled_fn(void *context, dk_component component, int block);

typedef struct dk_nn_stack {
    char *memory; /* owned device memory; NULL before the first dry run ended */
    size_t size, used, peak;
} dk_nn_stack;

/* For tests and --dump-tensors: sees named tensors as they come out of a model. */
typedef void dk_nn_tap_fn(void *context, const char *name, const dk_tensor *tensor);

typedef struct dk_nn_parallel dk_nn_parallel;
typedef struct dk_nn_word dk_nn_word;

enum { DK_NN_MOST_WISHES = 32 };

typedef struct dk_nn {
    dk_device *device;              /* borrowed */
    const dk_nn_parallel *parallel; /* borrowed: the ranks that compute together, all making the
                                       same calls; NULL: this one alone */
    dk_nn_word *word;               /* owned, see nn/parallel.h; NULL: nothing was said yet */
    bool cut_off;                   /* a call between ranks failed: none is made any more */
    dk_error lost;                  /* what that call said; only where cut_off */
    bool agreed;                   /* what ranks agreed on last was a failure, of all of them */
    dk_dtype type;                 /* of activations: DK_BF16, or DK_F32 for --dtype f32 */
    const atomic_bool *cancel;     /* borrowed, may be NULL: ends everything */
    const atomic_bool *own_cancel; /* the same: ends what runs now alone; NULL at first */
    /* Wishes to stop parts of what runs together, which goes on; borrowed, NULL: nobody wishes.
       stopped: those that were heard, by number, at the latest check. */
    const atomic_bool *wishes[DK_NN_MOST_WISHES];
    int wish_count;
    uint64_t stopped;
    dk_nn_tap_fn *tap; /* may be NULL */
    void *tap_context;
    dk_nn_stack temp, keep;
    dk_nn_guard guards[DK_COMPONENT_COUNT]; /* of the models that ran here; see dk_nn_look */
    dk_nn_spoiled_fn *spoiled;              /* may be NULL */
    void *spoiled_context;
} dk_nn;

void dk_nn_init(dk_nn *nn, dk_device *device, dk_dtype type, const atomic_bool *cancel);
void dk_nn_release(dk_nn *nn);

/* Between these two calls everything runs dry. The end allocates what the peak asked for, and
   empties both stacks; where it fails on one of several ranks it fails on all. */
void dk_nn_dry_begin(dk_nn *nn);
DK_MUST_USE dk_status dk_nn_dry_end(dk_nn *nn, dk_error *err);

/* Uninitialised buffers, aligned to 64 bytes, borrowed until the stack is unwound. */
dk_tensor dk_nn_temp(dk_nn *nn, dk_dtype type, int64_t rows, int64_t cols);
dk_tensor dk_nn_keep(dk_nn *nn, dk_dtype type, int64_t rows, int64_t cols);

static inline size_t dk_nn_mark(const dk_nn *nn)
{
    return nn->temp.used;
}
static inline void dk_nn_unwind(dk_nn *nn, size_t mark)
{
    nn->temp.used = mark;
}

/* Whether a wish to stop is set; NULL: there is nobody to wish. */
static inline bool dk_nn_stops(const atomic_bool *cancel)
{
    return cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
}

/* Called at the end of a pass, and between blocks in which ranks meet in any case: DK_CANCELLED
   when asked to stop, or the device's failure. On several ranks the leader's wishes count, and
   reach all of them at the same call. */
DK_MUST_USE dk_status dk_nn_check(dk_nn *nn, dk_error *err);
/* The same between the blocks of a pass, for which no rank waits for another: what was said at
   the call before counts, a failure of this rank's device too. So a rank may be a block ahead
   of one that was held up. Every pass ends with dk_nn_check, unless a check failed. */
DK_MUST_USE dk_status dk_nn_check_block(dk_nn *nn, dk_error *err);
/* Waits for the device, of all ranks: what failed on one of them has failed on all. */
DK_MUST_USE dk_status dk_nn_sync(dk_nn *nn, dk_error *err);

/* Waits for the device. *again: a block of the component was spoiled, and whoever ran it runs
   it again; what was seen is forgotten then. Its guard need not be open. */
DK_MUST_USE dk_status dk_nn_look(dk_nn *nn, dk_component component, bool *again, dk_error *err);

void dk_nn_tap(dk_nn *nn, const char *name, int index, const dk_tensor *tensor);

#endif
