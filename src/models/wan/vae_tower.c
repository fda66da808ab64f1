/* The layers of the Wan autoencoder over one chunk of frames, and what they remember from chunk
   to chunk. */
#include <assert.h>
#include <math.h>

#include "base/alloc.h"
#include "models/wan/vae_model.h"

enum { MAX_FRAMES = 16 }; /* of one convolution's input, history included */

static dk_status prepare_conv(dk_wan_conv *conv, dk_device *device, dk_error *err)
{
    if (conv->out == 0) {
        return DK_OK;
    }
    return dk_device_conv_prepare(device, &conv->packed, conv->weight.data, conv->weight.dtype,
                                  (int[]){conv->out, conv->in, conv->kt, conv->kh, conv->kw},
                                  err);
}

dk_status dk_wan_tower_prepare(dk_wan_tower *tower, dk_device *device, dk_error *err)
{
    DK_TRY(prepare_conv(&tower->conv_in, device, err));
    for (int i = 0; i < tower->count; i++) {
        dk_wan_layer *layer = &tower->layers[i];
        DK_TRY(prepare_conv(&layer->conv1, device, err));
        DK_TRY(prepare_conv(&layer->conv2, device, err));
        DK_TRY(prepare_conv(&layer->time_even, device, err));
        DK_TRY(prepare_conv(&layer->time_odd, device, err));
    }
    return prepare_conv(&tower->conv_out, device, err);
}

void dk_wan_tower_release(dk_wan_tower *tower, dk_device *device)
{
    dk_device_free(device, tower->conv_in.packed);
    dk_device_free(device, tower->conv_out.packed);
    for (int i = 0; i < tower->count; i++) {
        dk_device_free(device, tower->layers[i].conv1.packed);
        dk_device_free(device, tower->layers[i].conv2.packed);
        dk_device_free(device, tower->layers[i].time_even.packed);
        dk_device_free(device, tower->layers[i].time_odd.packed);
    }
    dk_free(tower->layers);
    *tower = (dk_wan_tower){0};
}

void dk_wan_stream_init(dk_wan_stream *stream, const dk_wan_tower *tower)
{
    *stream =
        (dk_wan_stream){.history = dk_alloc((size_t)tower->slots * sizeof *stream->history)};
}

void dk_wan_stream_release(dk_wan_stream *stream)
{
    dk_free(stream->history);
    *stream = (dk_wan_stream){0};
}

static dk_wan_clip new_clip(dk_nn *nn, dk_dtype type, int64_t frames, int64_t height,
                            int64_t width, int64_t channels)
{
    return (dk_wan_clip){.data = dk_nn_temp(nn, type, frames * height * width, channels),
                         .frames = frames,
                         .height = height,
                         .width = width};
}

static void *frame_of(const dk_wan_clip *clip, int64_t frame)
{
    size_t elements = (size_t)(clip->height * clip->width * clip->data.shape[1]);
    return (char *)clip->data.data +
           (size_t)frame * elements * dk_dtype_bytes(clip->data.dtype);
}

/* The frames of room that clips with a history have on this device. */
static int room_of(const dk_nn *nn)
{
    return nn->device->joins_frames ? DK_WAN_HISTORY : 0;
}

/* A clip that a convolution with a history reads. */
static dk_wan_clip new_causal_clip(dk_nn *nn, int64_t frames, int64_t height, int64_t width,
                                   int64_t channels)
{
    int room = room_of(nn);
    dk_wan_clip clip = new_clip(nn, nn->type, room + frames, height, width, channels);
    clip.data = DK_TENSOR(frame_of(&clip, room), nn->type, frames * height * width, channels);
    clip.frames = frames;
    clip.room = room;
    return clip;
}

/* Keeps the last two frames of what has passed. */
static void remember(dk_nn *nn, dk_wan_history *history, const dk_wan_clip *clip)
{
    int64_t pixels = clip->height * clip->width, channels = clip->data.shape[1];
    if (history->buffer[0] == NULL) {
        for (int i = 0; i < DK_WAN_HISTORY; i++) {
            history->buffer[i] = dk_nn_keep(nn, clip->data.dtype, pixels, channels).data;
        }
    }
    int64_t first = clip->frames > DK_WAN_HISTORY ? clip->frames - DK_WAN_HISTORY : 0;
    for (int64_t i = first; i < clip->frames; i++) {
        int spare = history->frame[1] == history->buffer[0] ? 1 : 0;
        dk_device_map(nn->device, history->buffer[spare], clip->data.dtype, frame_of(clip, i),
                      clip->data.dtype, DK_ACT_NONE, pixels * channels);
        history->frame[0] = history->frame[1];
        history->frame[1] = history->buffer[spare];
    }
}

typedef struct conv_call {
    int stride_t, stride, pad, upsample;
    const dk_tensor *residual;
    int64_t dst_frame_stride; /* elements; 0: frames lie one behind the other */
} conv_call;

/* Convolves src, preceded by `before` (kt - 1 frames, or kt - stride_t of them), into dst. */
static void convolve(dk_nn *nn, const dk_wan_conv *conv, const dk_wan_clip *dst,
                     const dk_wan_clip *src, void *const *before, int before_count,
                     const conv_call *call)
{
    const void *frames[MAX_FRAMES];
    int count = 0;
    assert(before_count + src->frames <= MAX_FRAMES && src->data.shape[1] == conv->in);
    for (int i = 0; i < before_count; i++) {
        frames[count++] = before[i];
    }
    for (int64_t i = 0; i < src->frames; i++) {
        frames[count++] = frame_of(src, i);
    }
    int64_t frame_stride = call->dst_frame_stride != 0 ? call->dst_frame_stride
                                                       : dst->height * dst->width * conv->out;
    dk_conv_args args = {
        .frames = frames,
        .room = before_count <= src->room ? before_count : 0,
        .src_type = src->data.dtype,
        .height = (int)src->height,
        .width = (int)src->width,
        .in_channels = conv->in,
        .kernel_t = conv->kt,
        .kernel_h = conv->kh,
        .kernel_w = conv->kw,
        .stride_t = call->stride_t,
        .stride = call->stride,
        .pad_top = call->pad,
        .pad_left = call->pad,
        .upsample = call->upsample,
        .packed_weight = conv->packed,
        .bias = conv->bias,
        .residual = call->residual != NULL ? call->residual->data : NULL,
        .dst = dst->data.data,
        .dst_type = dst->data.dtype,
        .dst_frame_stride = frame_stride,
        .out_frames = (count - conv->kt) / call->stride_t + 1,
        .out_height = (int)dst->height,
        .out_width = (int)dst->width,
        .out_channels = conv->out,
    };
    dk_device_conv(nn->device, &args);
}

/* A 3 x 3 x 3 causal convolution of the stream. */
static void causal(dk_nn *nn, const dk_wan_conv *conv, dk_wan_stream *stream,
                   const dk_wan_clip *dst, const dk_wan_clip *src, const dk_tensor *residual)
{
    dk_wan_history *history = &stream->history[conv->slot];
    const conv_call call = {
        .stride_t = 1, .stride = 1, .pad = 1, .upsample = 1, .residual = residual};
    convolve(nn, conv, dst, src, history->frame, DK_WAN_HISTORY, &call);
    remember(nn, history, src);
}

static void norm_silu(dk_nn *nn, const float *gamma, const dk_tensor *dst, const dk_tensor *src)
{
    dk_nn_norm norm = {
        .kind = DK_NORM_L2, .eps = 1e-12f, .weight = gamma, .activation = DK_ACT_SILU};
    dk_nn_norm_forward(nn, &norm, dst, src);
}

static void residual_block(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                           const dk_wan_clip *out, const dk_wan_clip *x)
{
    size_t mark = dk_nn_mark(nn);
    dk_wan_clip h = new_causal_clip(nn, x->frames, x->height, x->width, layer->in);
    dk_wan_clip middle = new_causal_clip(nn, x->frames, x->height, x->width, layer->out);
    norm_silu(nn, layer->norm1, &h.data, &x->data);
    causal(nn, &layer->conv1, stream, &middle, &h, NULL);
    norm_silu(nn, layer->norm2, &middle.data, &middle.data);
    const dk_tensor *shortcut = &x->data;
    if (layer->shortcut.weight.data != NULL) {
        dk_nn_linear_forward(nn, &layer->shortcut, &out->data, &x->data, NULL);
        shortcut = &out->data;
    }
    causal(nn, &layer->conv2, stream, out, &middle, shortcut);
    dk_nn_unwind(nn, mark);
}

/* Self-attention of one head inside each frame. */
static void attention_block(dk_nn *nn, const dk_wan_layer *layer, const dk_wan_clip *out,
                            const dk_wan_clip *x)
{
    static const conv_call pointwise = {.stride_t = 1, .stride = 1, .upsample = 1};
    int64_t pixels = x->height * x->width;
    size_t mark = dk_nn_mark(nn);
    dk_tensor h = dk_nn_temp(nn, nn->type, pixels, layer->in);
    dk_tensor q = dk_nn_temp(nn, nn->type, pixels, layer->in);
    dk_tensor k = dk_nn_temp(nn, nn->type, pixels, layer->in);
    dk_tensor v = dk_nn_temp(nn, nn->type, pixels, layer->in);
    const dk_nn_norm norm = {.kind = DK_NORM_L2, .eps = 1e-12f, .weight = layer->norm1};
    for (int64_t i = 0; i < x->frames; i++) {
        dk_tensor frame = DK_TENSOR(frame_of(x, i), x->data.dtype, pixels, layer->in);
        dk_nn_norm_forward(nn, &norm, &h, &frame);
        const dk_nn_linear_call qkv[] = {
            {&layer->q, &q, NULL}, {&layer->k, &k, NULL}, {&layer->v, &v, NULL}};
        dk_nn_linear_group(nn, &h, qkv, 3);
        dk_nn_attention(nn, &h, &q, &k, &v, 1, 1.0f / sqrtf((float)layer->in), NULL);
        dk_wan_clip mixed = {.data = h, .frames = 1, .height = x->height, .width = x->width};
        dk_wan_clip dst = mixed;
        dst.data.data = frame_of(out, i);
        conv_call call = pointwise;
        call.residual = &frame;
        convolve(nn, &layer->conv2, &dst, &mixed, NULL, 0, &call);
    }
    dk_nn_unwind(nn, mark);
}

/* Twice the frames: channel halves of the time convolution are the even and the odd frames. */
static void double_frames(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                          const dk_wan_clip *out, const dk_wan_clip *x)
{
    dk_wan_history *history = &stream->history[layer->time_even.slot];
    int64_t frame = x->height * x->width * layer->in;
    const conv_call call = {
        .stride_t = 1, .stride = 1, .upsample = 1, .dst_frame_stride = 2 * frame};
    dk_wan_clip odd = *out;
    odd.data.data = frame_of(out, 1);
    convolve(nn, &layer->time_even, out, x, history->frame, DK_WAN_HISTORY, &call);
    convolve(nn, &layer->time_odd, &odd, x, history->frame, DK_WAN_HISTORY, &call);
    remember(nn, history, x);
}

static void upsample(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                     const dk_wan_clip *out, const dk_wan_clip *x)
{
    static const conv_call enlarge = {.stride_t = 1, .stride = 1, .pad = 1, .upsample = 2};
    size_t mark = dk_nn_mark(nn);
    dk_wan_clip wide = *x;
    if (layer->temporal && stream->chunk > 0) {
        wide = new_clip(nn, nn->type, out->frames, x->height, x->width, layer->in);
        double_frames(nn, layer, stream, &wide, x);
    }
    convolve(nn, &layer->conv1, out, &wide, NULL, 0, &enlarge);
    dk_nn_unwind(nn, mark);
}

/* Halves the picture; rows and columns beyond the right and lower border read as zero. Halving
   time needs the frame before the chunk, so the first chunk passes unchanged. */
static void downsample(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                       const dk_wan_clip *out, const dk_wan_clip *x)
{
    static const conv_call halve = {.stride_t = 1, .stride = 2, .upsample = 1};
    static const conv_call halve_time = {.stride_t = 2, .stride = 1, .upsample = 1};
    bool in_time = layer->temporal && stream->chunk > 0;
    size_t mark = dk_nn_mark(nn);
    dk_wan_clip small = *out;
    if (in_time) {
        small = new_causal_clip(nn, x->frames, out->height, out->width, layer->out);
    }
    convolve(nn, &layer->conv1, &small, x, NULL, 0, &halve);
    if (layer->temporal) {
        dk_wan_history *history = &stream->history[layer->time_even.slot];
        if (in_time) {
            convolve(nn, &layer->time_even, out, &small, &history->frame[1], 1, &halve_time);
        }
        remember(nn, history, &small);
    }
    dk_nn_unwind(nn, mark);
}

/* Frames and sides of a layer's result; data is left to the caller. */
static dk_wan_clip result_of(const dk_wan_layer *layer, int64_t chunk, const dk_wan_clip *x)
{
    dk_wan_clip out = *x;
    bool in_time = layer->temporal && chunk > 0;
    if (layer->kind == DK_WAN_UPSAMPLE) {
        out.frames *= in_time ? 2 : 1;
        out.height *= 2;
        out.width *= 2;
    } else if (layer->kind == DK_WAN_DOWNSAMPLE) {
        out.frames /= in_time ? 2 : 1;
        out.height /= 2;
        out.width /= 2;
    }
    out.data.shape[0] = out.frames * out.height * out.width;
    out.data.shape[1] = layer->out;
    return out;
}

/* Elements of the largest clip between two layers, and of the largest frame. */
static int64_t largest_clip(const dk_wan_tower *tower, int64_t chunk, dk_wan_clip x,
                            int64_t *frame)
{
    x.data.shape[1] = tower->conv_in.out;
    int64_t most = dk_tensor_count(&x.data);
    *frame = most / x.frames;
    for (int i = 0; i < tower->count; i++) {
        x = result_of(&tower->layers[i], chunk, &x);
        int64_t count = dk_tensor_count(&x.data);
        most = count > most ? count : most;
        *frame = count / x.frames > *frame ? count / x.frames : *frame;
    }
    return most;
}

/* A buffer for clips between layers, behind the room for the history of any. */
static void *new_buffer(dk_nn *nn, int64_t clip, int64_t frame)
{
    enum { ALIGNED = 32 }; /* elements that keep a buffer's alignment, whatever their type */
    int64_t room = (room_of(nn) * frame + ALIGNED - 1) / ALIGNED * ALIGNED;
    void *start = dk_nn_temp(nn, nn->type, 1, room + clip).data;
    return (char *)start + (size_t)room * dk_dtype_bytes(nn->type);
}

/* Layers that keep the shape add to the clip in place; the others write to the other buffer. */
static void layer_forward(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                          dk_wan_clip *x, void *const buffer[2])
{
    dk_wan_clip out = result_of(layer, stream->chunk, x);
    bool in_place = layer->kind == DK_WAN_ATTENTION ||
                    (layer->kind == DK_WAN_RESIDUAL && layer->in == layer->out);
    if (!in_place) {
        out.data.data = x->data.data == buffer[0] ? buffer[1] : buffer[0];
    }
    switch (layer->kind) {
    case DK_WAN_RESIDUAL:
        residual_block(nn, layer, stream, &out, x);
        break;
    case DK_WAN_ATTENTION:
        attention_block(nn, layer, &out, x);
        break;
    case DK_WAN_UPSAMPLE:
        upsample(nn, layer, stream, &out, x);
        break;
    case DK_WAN_DOWNSAMPLE:
        downsample(nn, layer, stream, &out, x);
        break;
    }
    *x = out;
}

dk_status dk_wan_tower_forward(dk_nn *nn, const dk_wan_tower *tower, const dk_nn_guard *guard,
                               dk_wan_stream *stream, dk_wan_clip *out, const dk_wan_clip *in,
                               dk_error *err)
{
    int64_t frame, most = largest_clip(tower, stream->chunk, *in, &frame);
    void *const buffer[2] = {new_buffer(nn, most, frame), new_buffer(nn, most, frame)};
    int64_t pixels = in->frames * in->height * in->width;
    dk_wan_clip x = {.data = DK_TENSOR(buffer[0], nn->type, pixels, tower->conv_in.out),
                     .frames = in->frames,
                     .height = in->height,
                     .width = in->width,
                     .room = room_of(nn)};
    dk_nn_guard_begin(guard, 0);
    causal(nn, &tower->conv_in, stream, &x, in, NULL);
    dk_nn_guard_end(guard, 0, &x.data);
    dk_status status = dk_nn_check(nn, err);
    for (int i = 0; i < tower->count && status == DK_OK; i++) {
        dk_nn_guard_begin(guard, i + 1);
        layer_forward(nn, &tower->layers[i], stream, &x, buffer);
        dk_nn_guard_end(guard, i + 1, &x.data);
        status = dk_nn_check(nn, err);
    }
    if (status == DK_OK) {
        *out = new_clip(nn, DK_F32, x.frames, x.height, x.width, tower->conv_out.out);
        dk_nn_guard_begin(guard, tower->count + 1);
        norm_silu(nn, tower->norm_out, &x.data, &x.data);
        causal(nn, &tower->conv_out, stream, out, &x, NULL);
        dk_nn_guard_end(guard, tower->count + 1, &out->data);
        status = dk_nn_check(nn, err);
    }
    stream->chunk++;
    return status;
}
