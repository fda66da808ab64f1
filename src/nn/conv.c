/* Convolutions of clips, and what they remember. */
#include "nn/conv.h"

#include <assert.h>

enum { MAX_FRAMES = 16 }; /* of one convolution's input, history included */

dk_status dk_nn_conv_prepare(dk_nn_conv *conv, dk_device *device, dk_error *err)
{
    if (conv->out == 0) {
        return DK_OK;
    }
    return dk_device_conv_prepare(device, &conv->packed, conv->weight.data, conv->weight.dtype,
                                  (int[]){conv->out, conv->in, conv->kt, conv->kh, conv->kw},
                                  err);
}

void dk_nn_conv_release(dk_nn_conv *conv, dk_device *device)
{
    dk_device_free(device, conv->packed);
    conv->packed = NULL;
}

int dk_nn_history_room(const dk_nn *nn)
{
    return nn->device->joins_frames ? DK_NN_HISTORY : 0;
}

void dk_nn_history_add(dk_nn *nn, dk_nn_history *history, const dk_nn_clip *clip)
{
    int64_t elements = dk_nn_clip_frame_elements(clip);
    if (elements == 0) {
        return;
    }
    if (history->buffer[0] == NULL) {
        for (int i = 0; i < DK_NN_HISTORY; i++) {
            history->buffer[i] = dk_nn_keep(nn, clip->data.dtype, 1, elements).data;
        }
    }
    int64_t first = clip->frames > DK_NN_HISTORY ? clip->frames - DK_NN_HISTORY : 0;
    for (int64_t i = first; i < clip->frames; i++) {
        int spare = history->frame[1] == history->buffer[0] ? 1 : 0;
        dk_device_map(nn->device, history->buffer[spare], clip->data.dtype,
                      dk_nn_clip_frame(clip, i), clip->data.dtype, DK_ACT_NONE, elements);
        history->frame[0] = history->frame[1];
        history->frame[1] = history->buffer[spare];
    }
}

/* Rows that the picture's own border reads as zeros; a row of the neighbour's takes the place
   of one, and more than that where it is enlarged. */
static int pad_top(const dk_nn_clip *src, const dk_nn_conv_call *call)
{
    return call->pad - src->above * call->upsample;
}

void dk_nn_conv_forward(dk_nn *nn, const dk_nn_conv *conv, const dk_nn_clip *dst,
                        const dk_nn_clip *src, void *const *before, int before_count,
                        const dk_nn_conv_call *call)
{
    const void *frames[MAX_FRAMES];
    int count = 0, step = call->dst_step > 0 ? call->dst_step : 1;
    assert(before_count + src->frames <= MAX_FRAMES && src->data.shape[1] == conv->in);
    if (conv->kh > 1) {
        dk_nn_clip_meet(nn, src);
    }
    if (dst->height == 0) {
        return;
    }
    for (int i = 0; i < before_count; i++) {
        frames[count++] = before[i];
    }
    for (int64_t i = 0; i < src->frames; i++) {
        frames[count++] = dk_nn_clip_frame(src, i);
    }
    const dk_conv_args args = {
        .frames = frames,
        .room = before_count <= src->room ? before_count : 0,
        .src_type = src->data.dtype,
        .height = (int)(src->above + src->height + src->below),
        .width = (int)src->width,
        .in_channels = conv->in,
        .kernel_t = conv->kt,
        .kernel_h = conv->kh,
        .kernel_w = conv->kw,
        .stride_t = call->stride_t,
        .stride = call->stride,
        .pad_top = pad_top(src, call),
        .pad_left = call->pad,
        .upsample = call->upsample,
        .packed_weight = conv->packed,
        .bias = conv->bias,
        .residual = call->residual != NULL ? dk_nn_clip_rows(call->residual, 0).data : NULL,
        .dst = dk_nn_clip_rows(dst, 0).data,
        .dst_type = dst->data.dtype,
        .dst_frame_stride = step * dk_nn_clip_frame_elements(dst),
        .out_frames = (count - conv->kt) / call->stride_t + 1,
        .out_height = (int)dst->height,
        .out_width = (int)dst->width,
        .out_channels = conv->out,
    };
    dk_device_conv(nn->device, &args);
}

void dk_nn_conv_causal(dk_nn *nn, const dk_nn_conv *conv, dk_nn_history *history,
                       const dk_nn_clip *dst, const dk_nn_clip *src, const dk_nn_clip *residual)
{
    const dk_nn_conv_call call = {
        .stride_t = 1, .stride = 1, .pad = 1, .upsample = 1, .residual = residual};
    dk_nn_conv_forward(nn, conv, dst, src, history->frame, DK_NN_HISTORY, &call);
    dk_nn_history_add(nn, history, src);
}
