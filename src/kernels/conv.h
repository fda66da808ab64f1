/* Convolutions of channels-last pictures and clips as implicit matrix multiplies: a task packs
   the pixels under its block of the output once per frame, with a border, and every kernel tap
   reads them from another first row. No im2col copy. A clip's frames come as a list of
   pointers, so that a causal cache of earlier frames needs no concatenation. */
#ifndef DK_KERNELS_CONV_H
#define DK_KERNELS_CONV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/decode.h"
#include "kernels/gemm.h"
#include "kernels/linear.h"
#include "tensor/dtype.h"

/* Output frame t, pixel (y, x) sums over taps (a, b, c):
     in[t * stride_t + a][(y * stride + b - pad_top)][(x * stride + c - pad_left)],
   pixels outside the picture read as zero; with pad_top < 0 its first rows are not read; with
   upsample = 2 the picture is first enlarged twice in both directions by nearest neighbour,
   without being stored, and pads are of the enlarged one. */
typedef struct dk_conv_args {
    const void *const *frames; /* [(out_frames - 1) * stride_t + kernel_t] input frames, each
                                  [height][width][in_channels]; NULL reads as zeros */
    int room; /* that many frames at the list's start may be copied to where they would lie
                 right in front of frames[room], which is memory of the caller's to be written;
                 for devices that want their frames in one piece. 0: there is no such memory */
    dk_dtype src_type; /* F32 or BF16 */
    int height, width, in_channels;
    int kernel_t, kernel_h, kernel_w;
    int stride_t, stride, pad_top, pad_left, upsample;
    const void *packed_weight; /* from dk_conv_pack_weight */
    const float *bias;         /* [out_channels] or NULL */
    dk_activation activation;  /* after the bias, before the residual */
    const void *residual;      /* like dst, may be dst, or NULL: added last */
    void *dst;                 /* frame t at dst + t * dst_frame_stride elements, each
                                  [out_height][out_width][out_channels], F32 or BF16 */
    dk_dtype dst_type;
    int64_t dst_frame_stride;
    int out_frames, out_height, out_width, out_channels;
} dk_conv_args;

typedef struct dk_conv_plan {
    const dk_gemm_kernel *kernel;
    int block_width, block_height,
        block_cols; /* output of one task; tasks never cross a frame */
    int blocks_x, blocks_y, col_blocks;
    int tasks;            /* out_frames * blocks_y * blocks_x * col_blocks */
    int pitch;            /* packed rows from one line of the block to the next */
    int phase_rows;       /* packed rows of one of the stride * stride phases */
    int64_t ld;           /* packed rows in all */
    size_t scratch_bytes; /* per thread, aligned to 64 */
} dk_conv_plan;

typedef struct dk_conv_weight {
    const void *data; /* [out_channels][in_channels][kt][kh][kw], as stored */
    dk_dtype type;    /* any that decode.h lists */
    int out_channels, in_channels, taps;
} dk_conv_weight;

/* Packed weights: [col panel][tap][B panel over in_channels]. Their layout depends on the
   kernel, so they are made once by the same process that uses them. */
size_t dk_conv_packed_bytes(const dk_gemm_kernel *kernel, int out_channels, int in_channels,
                            int taps);
void dk_conv_pack_weight(void *packed, const dk_gemm_kernel *kernel,
                         const dk_decode_kernels *decoders, const dk_conv_weight *weight);

/* threads: how many will share the work; how it is cut changes no sum. */
void dk_conv_plan_init(dk_conv_plan *plan, const dk_gemm_kernel *kernel,
                       const dk_conv_args *args, int threads);
void dk_conv_block(const dk_conv_plan *plan, const dk_linear_kernels *kernels,
                   const dk_conv_args *args, int task, void *scratch);

#endif
