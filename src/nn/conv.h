/* Convolutions of clips, in space, in time or both: models say what a layer is, not who
   computes which rows. In time they are causal: a clip comes in chunks, and each convolution
   remembers the last frames of what has passed. */
#ifndef DK_NN_CONV_H
#define DK_NN_CONV_H

#include "nn/clip.h"

enum { DK_NN_HISTORY = 2 }; /* frames that a causal convolution looks back */

typedef struct dk_nn_conv {
    dk_tensor weight; /* [out][in][kt][kh][kw] as stored; kh at most 3 */
    const float *bias;
    int out, in, kt, kh, kw;
    void *packed; /* owned device memory */
    int slot;     /* of its history, where its model keeps them; -1: kt = 1, none needed */
} dk_nn_conv;

/* Packs the weight for the device; does nothing for a layer that the model does not have. */
DK_MUST_USE dk_status dk_nn_conv_prepare(dk_nn_conv *conv, dk_device *device, dk_error *err);
void dk_nn_conv_release(dk_nn_conv *conv, dk_device *device);

/* What a convolution remembers of the frames before: NULL stands for zeros. They lie in the
   keep stack. */
typedef struct dk_nn_history {
    void *frame[DK_NN_HISTORY], *buffer[DK_NN_HISTORY];
} dk_nn_history;

/* The frames of room that clips with a history have on this device. */
int dk_nn_history_room(const dk_nn *nn);
/* Keeps the last two frames of what has passed, borders included. */
void dk_nn_history_add(dk_nn *nn, dk_nn_history *history, const dk_nn_clip *clip);

typedef struct dk_nn_conv_call {
    int stride_t, stride, pad, upsample;
    const dk_nn_clip *residual; /* like dst, may be dst, or NULL: added last */
    int dst_step;               /* frames of dst from one result to the next; 0: one */
} dk_nn_conv_call;

/* Convolves src, preceded by `before` (kt - 1 frames, or kt - stride_t of them), into dst. src
   is bordered where kh > 1, and its borders are filled here. */
void dk_nn_conv_forward(dk_nn *nn, const dk_nn_conv *conv, const dk_nn_clip *dst,
                        const dk_nn_clip *src, void *const *before, int before_count,
                        const dk_nn_conv_call *call);

/* A 3 x 3 x 3 causal convolution, which remembers src; residual may be NULL. */
void dk_nn_conv_causal(dk_nn *nn, const dk_nn_conv *conv, dk_nn_history *history,
                       const dk_nn_clip *dst, const dk_nn_clip *src,
                       const dk_nn_clip *residual);

#endif
