/* The layers of the Wan autoencoder over one chunk of frames, and what they remember from chunk
   to chunk. */
#include <assert.h>
#include <math.h>

#include "base/alloc.h"
#include "models/wan/vae_model.h"

dk_status dk_wan_tower_prepare(dk_wan_tower *tower, dk_device *device, dk_error *err)
{
    DK_TRY(dk_nn_conv_prepare(&tower->conv_in, device, err));
    for (int i = 0; i < tower->count; i++) {
        dk_wan_layer *layer = &tower->layers[i];
        DK_TRY(dk_nn_conv_prepare(&layer->conv1, device, err));
        DK_TRY(dk_nn_conv_prepare(&layer->conv2, device, err));
        DK_TRY(dk_nn_conv_prepare(&layer->time_even, device, err));
        DK_TRY(dk_nn_conv_prepare(&layer->time_odd, device, err));
    }
    return dk_nn_conv_prepare(&tower->conv_out, device, err);
}

void dk_wan_tower_release(dk_wan_tower *tower, dk_device *device)
{
    dk_nn_conv_release(&tower->conv_in, device);
    dk_nn_conv_release(&tower->conv_out, device);
    for (int i = 0; i < tower->count; i++) {
        dk_nn_conv_release(&tower->layers[i].conv1, device);
        dk_nn_conv_release(&tower->layers[i].conv2, device);
        dk_nn_conv_release(&tower->layers[i].time_even, device);
        dk_nn_conv_release(&tower->layers[i].time_odd, device);
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

/* A 3 x 3 x 3 convolution of the stream. */
static void causal(dk_nn *nn, const dk_nn_conv *conv, dk_wan_stream *stream,
                   const dk_nn_clip *dst, const dk_nn_clip *src, const dk_nn_clip *residual)
{
    dk_nn_conv_causal(nn, conv, &stream->history[conv->slot], dst, src, residual);
}

/* A clip that a convolution with a history reads. */
static dk_nn_clip new_causal_clip(dk_nn *nn, const dk_nn_clip *like, int64_t channels)
{
    return dk_nn_clip_new_bordered(nn, like, like->frames, channels, dk_nn_history_room(nn));
}

static void norm_silu(dk_nn *nn, const float *gamma, const dk_nn_clip *dst,
                      const dk_nn_clip *src)
{
    dk_nn_norm norm = {
        .kind = DK_NORM_L2, .eps = 1e-12f, .weight = gamma, .activation = DK_ACT_SILU};
    dk_nn_clip_norm(nn, &norm, dst, src);
}

static void residual_block(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                           const dk_nn_clip *out, const dk_nn_clip *x)
{
    size_t mark = dk_nn_mark(nn);
    dk_nn_clip h = new_causal_clip(nn, x, layer->in);
    dk_nn_clip middle = new_causal_clip(nn, x, layer->out);
    norm_silu(nn, layer->norm1, &h, x);
    causal(nn, &layer->conv1, stream, &middle, &h, NULL);
    norm_silu(nn, layer->norm2, &middle, &middle);
    const dk_nn_clip *shortcut = x;
    if (layer->shortcut.weight.data != NULL) {
        dk_nn_clip_linear(nn, &layer->shortcut, out, x);
        shortcut = out;
    }
    causal(nn, &layer->conv2, stream, out, &middle, shortcut);
    dk_nn_unwind(nn, mark);
}

/* One frame of a clip without borders. */
static dk_nn_clip frame_of(const dk_nn_clip *clip, int64_t frame)
{
    dk_nn_clip one = *clip;
    one.frames = 1;
    one.room = 0;
    one.data = dk_nn_clip_rows(clip, frame);
    return one;
}

/* Self-attention of one head inside each frame. */
static void attention_block(dk_nn *nn, const dk_wan_layer *layer, const dk_nn_clip *out,
                            const dk_nn_clip *x)
{
    int64_t pixels = x->height * x->width;
    size_t mark = dk_nn_mark(nn);
    dk_nn_clip h = dk_nn_clip_new(nn, nn->type, x, 1, layer->in);
    dk_nn_clip q = dk_nn_clip_new(nn, nn->type, x, 1, layer->in);
    dk_tensor kv = dk_nn_temp(nn, nn->type, 2 * pixels, layer->in);
    dk_nn_clip k = q, v = q;
    k.data.data = kv.data;
    v.data.data = (char *)kv.data + dk_tensor_bytes(&q.data);
    const dk_nn_norm norm = {.kind = DK_NORM_L2, .eps = 1e-12f, .weight = layer->norm1};
    for (int64_t i = 0; i < x->frames; i++) {
        dk_nn_clip frame = frame_of(x, i), dst = frame_of(out, i);
        dk_nn_clip_norm(nn, &norm, &h, &frame);
        const dk_nn_clip_call qkv[] = {{&layer->q, &q}, {&layer->k, &k}, {&layer->v, &v}};
        dk_nn_clip_linear_group(nn, &h, qkv, 3);
        dk_nn_clip_attention(nn, x, &h.data, &q.data, &kv, 1.0f / sqrtf((float)layer->in));
        const dk_nn_conv_call pointwise = {
            .stride_t = 1, .stride = 1, .upsample = 1, .residual = &frame};
        dk_nn_conv_forward(nn, &layer->conv2, &dst, &h, NULL, 0, &pointwise);
    }
    dk_nn_unwind(nn, mark);
}

/* Twice the frames: channel halves of the time convolution are the even and the odd frames. */
static void double_frames(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                          const dk_nn_clip *out, const dk_nn_clip *x)
{
    static const dk_nn_conv_call call = {
        .stride_t = 1, .stride = 1, .upsample = 1, .dst_step = 2};
    dk_nn_history *history = &stream->history[layer->time_even.slot];
    dk_nn_clip odd = *out;
    odd.data.data = dk_nn_clip_frame(out, 1);
    dk_nn_conv_forward(nn, &layer->time_even, out, x, history->frame, DK_NN_HISTORY, &call);
    dk_nn_conv_forward(nn, &layer->time_odd, &odd, x, history->frame, DK_NN_HISTORY, &call);
    dk_nn_history_add(nn, history, x);
}

static void upsample(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                     const dk_nn_clip *out, const dk_nn_clip *x)
{
    static const dk_nn_conv_call enlarge = {
        .stride_t = 1, .stride = 1, .pad = 1, .upsample = 2};
    size_t mark = dk_nn_mark(nn);
    dk_nn_clip wide;
    if (layer->temporal && stream->chunk > 0) {
        wide = dk_nn_clip_new_bordered(nn, x, out->frames, layer->in, 0);
        double_frames(nn, layer, stream, &wide, x);
    } else {
        wide = dk_nn_clip_with_borders(nn, x);
    }
    dk_nn_conv_forward(nn, &layer->conv1, out, &wide, NULL, 0, &enlarge);
    dk_nn_unwind(nn, mark);
}

/* Halves the picture; rows and columns beyond the right and lower border read as zero. Halving
   time needs the frame before the chunk, so the first chunk passes unchanged. */
static void downsample(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                       const dk_nn_clip *out, const dk_nn_clip *x)
{
    static const dk_nn_conv_call halve = {.stride_t = 1, .stride = 2, .upsample = 1};
    static const dk_nn_conv_call halve_time = {.stride_t = 2, .stride = 1, .upsample = 1};
    bool in_time = layer->temporal && stream->chunk > 0;
    size_t mark = dk_nn_mark(nn);
    dk_nn_clip small = *out;
    if (in_time) {
        small.frames = x->frames;
        small = new_causal_clip(nn, &small, layer->out);
    }
    dk_nn_conv_forward(nn, &layer->conv1, &small, x, NULL, 0, &halve);
    if (layer->temporal) {
        dk_nn_history *history = &stream->history[layer->time_even.slot];
        if (in_time) {
            dk_nn_conv_forward(nn, &layer->time_even, out, &small, &history->frame[1], 1,
                               &halve_time);
        }
        dk_nn_history_add(nn, history, &small);
    }
    dk_nn_unwind(nn, mark);
}

/* Frames and sides of a layer's result; data is left to the caller. */
static dk_nn_clip result_of(const dk_wan_layer *layer, int64_t chunk, const dk_nn_clip *x)
{
    dk_nn_clip out = *x;
    bool in_time = layer->temporal && chunk > 0;
    if (layer->kind == DK_WAN_UPSAMPLE) {
        out.frames *= in_time ? 2 : 1;
        out.height *= 2;
        out.whole *= 2;
        out.begin *= 2;
        out.grain *= 2;
        out.width *= 2;
    } else if (layer->kind == DK_WAN_DOWNSAMPLE) {
        out.frames /= in_time ? 2 : 1;
        out.height /= 2;
        out.whole /= 2;
        out.width /= 2;
    }
    out.data.shape[0] = out.frames * out.height * out.width;
    out.data.shape[1] = layer->out;
    return out;
}

/* Elements of the largest clip between two layers, and of the largest frame. */
static int64_t largest_clip(const dk_wan_tower *tower, int64_t chunk, dk_nn_clip x,
                            int64_t *frame)
{
    x.data.shape[0] = x.frames * x.height * x.width;
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
    int64_t room = (dk_nn_history_room(nn) * frame + ALIGNED - 1) / ALIGNED * ALIGNED;
    void *start = dk_nn_temp(nn, nn->type, 1, room + clip).data;
    return (char *)start + (size_t)room * dk_dtype_bytes(nn->type);
}

/* Layers that keep the shape add to the clip in place; the others write to the other buffer. */
static void layer_forward(dk_nn *nn, const dk_wan_layer *layer, dk_wan_stream *stream,
                          dk_nn_clip *x, void *const buffer[2])
{
    dk_nn_clip out = result_of(layer, stream->chunk, x);
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
                               dk_wan_stream *stream, dk_nn_clip *out, const dk_nn_clip *in,
                               dk_error *err)
{
    int64_t frame, most = largest_clip(tower, stream->chunk, *in, &frame);
    void *const buffer[2] = {new_buffer(nn, most, frame), new_buffer(nn, most, frame)};
    dk_nn_clip x = *in;
    x.above = x.below = 0;
    x.room = dk_nn_history_room(nn);
    x.data =
        DK_TENSOR(buffer[0], nn->type, in->frames * in->height * in->width, tower->conv_in.out);
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
        *out = dk_nn_clip_new(nn, DK_F32, &x, x.frames, tower->conv_out.out);
        dk_nn_clip last = dk_nn_clip_bordered(nn, &x);
        dk_nn_guard_begin(guard, tower->count + 1);
        norm_silu(nn, tower->norm_out, &last, &x);
        causal(nn, &tower->conv_out, stream, out, &last, NULL);
        dk_nn_guard_end(guard, tower->count + 1, &out->data);
        status = dk_nn_check(nn, err);
    }
    stream->chunk++;
    return status;
}
