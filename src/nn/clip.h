/* Frames of pictures, rows of pixels, whose rows the ranks of a replica share out: a rank has
   some rows of every frame. What looks at a pixel's neighbours reads rows of the neighbouring
   ranks too; clips that are read so have memory for them around their own rows, which
   dk_nn_clip_meet fills. On one rank a clip is what it was, all rows and no borders, and every
   function is one operation of the device. */
#ifndef DK_NN_CLIP_H
#define DK_NN_CLIP_H

#include "nn/layers.h"

typedef struct dk_nn_clip {
    dk_tensor data;                /* [frames * (above + height + below) * width][channels] */
    int64_t frames, height, width; /* height: this rank's rows, which may be none */
    int64_t begin, whole;          /* its first row, of so many in the whole pictures */
    int64_t grain;    /* rows that stay together: they were one when they were shared out */
    dk_comm *among;   /* borrowed: the ranks that have the other rows; NULL: all are here */
    int above, below; /* the neighbours' rows in front of and behind those of every frame */
    int room;         /* frames of memory in front of data, for a convolution's history */
} dk_nn_clip;

/* The shape of this rank's rows of pictures that all ranks of the replica share out; no data
   and no channels yet. */
dk_nn_clip dk_nn_clip_share(const dk_nn *nn, int64_t frames, int64_t height, int64_t width);
/* The same where this rank has all rows, whoever else there is. */
dk_nn_clip dk_nn_clip_alone(int64_t frames, int64_t height, int64_t width);

/* New clips in the temp stack, of the shape of `like` but so many frames. A bordered one may be
   read by convolutions that look at neighbours, behind `room` frames of memory. */
dk_nn_clip dk_nn_clip_new(dk_nn *nn, dk_dtype type, const dk_nn_clip *like, int64_t frames,
                          int64_t channels);
dk_nn_clip dk_nn_clip_new_bordered(dk_nn *nn, const dk_nn_clip *like, int64_t frames,
                                   int64_t channels, int room);
/* A bordered clip like x, or x with borders: x itself on one rank, which needs none. */
dk_nn_clip dk_nn_clip_bordered(dk_nn *nn, const dk_nn_clip *x);
dk_nn_clip dk_nn_clip_with_borders(dk_nn *nn, const dk_nn_clip *x);

/* Where a frame starts, borders included, and its elements. */
void *dk_nn_clip_frame(const dk_nn_clip *clip, int64_t frame);
int64_t dk_nn_clip_frame_elements(const dk_nn_clip *clip);
/* This rank's rows of a frame: [height * width][channels]. */
dk_tensor dk_nn_clip_rows(const dk_nn_clip *clip, int64_t frame);

/* Fills the borders of every frame with the neighbours' rows. All ranks call it. */
void dk_nn_clip_meet(dk_nn *nn, const dk_nn_clip *clip);

/* Pixel by pixel, of clips of one shape but for borders; dst may be src. */
void dk_nn_clip_norm(dk_nn *nn, const dk_nn_norm *norm, const dk_nn_clip *dst,
                     const dk_nn_clip *src);
/* Pixel by pixel, of clips without borders or of one frame. The bits are those of a layer over
   the whole pictures, where the device's are the same for any large number of rows. */
void dk_nn_clip_linear(dk_nn *nn, const dk_nn_linear *layer, const dk_nn_clip *dst,
                       const dk_nn_clip *src);
/* Layers of one src; see dk_nn_linear_group. */
typedef struct dk_nn_clip_call {
    const dk_nn_linear *layer;
    const dk_nn_clip *dst;
} dk_nn_clip_call;
void dk_nn_clip_linear_group(dk_nn *nn, const dk_nn_clip *src, const dk_nn_clip_call *calls,
                             int count);

/* Self-attention of one head inside a frame: q and dst are this rank's pixels [pixels][width],
   kv its keys and, behind them, its values. clip: what they were made of. */
void dk_nn_clip_attention(dk_nn *nn, const dk_nn_clip *clip, const dk_tensor *dst,
                          const dk_tensor *q, const dk_tensor *kv, float scale);

/* Whole frames on the leader, in the temp stack: x itself on one rank, no data on the others.
 */
dk_nn_clip dk_nn_clip_collect(dk_nn *nn, const dk_nn_clip *x);

#endif
