/* Rows of pictures on several ranks. */
#include "nn/clip.h"

#include <assert.h>

#include "nn/parallel.h"

dk_nn_clip dk_nn_clip_alone(int64_t frames, int64_t height, int64_t width)
{
    return (dk_nn_clip){
        .frames = frames, .height = height, .width = width, .whole = height, .grain = 1};
}

dk_nn_clip dk_nn_clip_share(const dk_nn *nn, int64_t frames, int64_t height, int64_t width)
{
    dk_nn_clip clip = dk_nn_clip_alone(frames, height, width);
    if (nn->parallel != NULL) {
        dk_nn_part part = dk_nn_picture_part(nn, height);
        clip.among = nn->parallel->groups->replica;
        clip.begin = part.begin;
        clip.height = part.count;
    }
    return clip;
}

static int64_t frame_rows(const dk_nn_clip *clip)
{
    return clip->above + clip->height + clip->below;
}

dk_nn_clip dk_nn_clip_new(dk_nn *nn, dk_dtype type, const dk_nn_clip *like, int64_t frames,
                          int64_t channels)
{
    dk_nn_clip clip = *like;
    clip.frames = frames;
    clip.above = clip.below = clip.room = 0;
    clip.data = dk_nn_temp(nn, type, frames * clip.height * clip.width, channels);
    return clip;
}

dk_nn_clip dk_nn_clip_new_bordered(dk_nn *nn, const dk_nn_clip *like, int64_t frames,
                                   int64_t channels, int room)
{
    dk_nn_clip clip = *like;
    clip.frames = frames;
    clip.above = clip.height > 0 && clip.begin > 0;
    clip.below = clip.height > 0 && clip.begin + clip.height < clip.whole;
    clip.room = room;
    int64_t pixels = frame_rows(&clip) * clip.width;
    clip.data = dk_nn_temp(nn, nn->type, (room + frames) * pixels, channels);
    clip.data.data = dk_nn_clip_frame(&clip, room);
    clip.data.shape[0] = frames * pixels;
    return clip;
}

dk_nn_clip dk_nn_clip_bordered(dk_nn *nn, const dk_nn_clip *x)
{
    return x->among == NULL
               ? *x
               : dk_nn_clip_new_bordered(nn, x, x->frames, x->data.shape[1], x->room);
}

int64_t dk_nn_clip_frame_elements(const dk_nn_clip *clip)
{
    return frame_rows(clip) * clip->width * clip->data.shape[1];
}

/* The first pixel of a row of the memory of a frame. */
static void *row_at(const dk_nn_clip *clip, int64_t frame, int64_t row)
{
    int64_t at = (frame * frame_rows(clip) + row) * clip->width * clip->data.shape[1];
    return (char *)clip->data.data + (size_t)at * dk_dtype_bytes(clip->data.dtype);
}

void *dk_nn_clip_frame(const dk_nn_clip *clip, int64_t frame)
{
    return row_at(clip, frame, 0);
}

dk_tensor dk_nn_clip_rows(const dk_nn_clip *clip, int64_t frame)
{
    return DK_TENSOR(row_at(clip, frame, clip->above), clip->data.dtype,
                     clip->height * clip->width, clip->data.shape[1]);
}

/* One row of every frame, to or from memory where they lie one behind the other. */
static void move_rows(dk_nn *nn, const dk_nn_clip *clip, int64_t row, void *dense, bool in)
{
    int64_t elements = clip->width * clip->data.shape[1];
    int64_t frame = dk_nn_clip_frame_elements(clip);
    void *rows = row_at(clip, 0, row);
    const dk_permute_args args = {.rank = 2,
                                  .shape = {clip->frames, elements},
                                  .src_stride = {in ? elements : frame, 1},
                                  .dst_stride = {in ? frame : elements, 1},
                                  .src = in ? dense : rows,
                                  .src_type = clip->data.dtype,
                                  .dst = in ? rows : dense,
                                  .dst_type = clip->data.dtype};
    dk_device_permute(nn->device, &args);
}

/* What goes to a neighbour is as large as what comes from it. */
void dk_nn_clip_meet(dk_nn *nn, const dk_nn_clip *clip)
{
    size_t bytes[DK_COMM_MOST_RANKS] = {0};
    if (clip->among == NULL) {
        return;
    }
    size_t mark = dk_nn_mark(nn);
    int rank = dk_comm_rank(clip->among), sides = clip->above + clip->below;
    int64_t elements = clip->frames * clip->width * clip->data.shape[1];
    size_t side = (size_t)elements * dk_dtype_bytes(clip->data.dtype);
    dk_tensor out = dk_nn_temp(nn, clip->data.dtype, sides, elements);
    dk_tensor in = dk_nn_temp(nn, clip->data.dtype, sides, elements);
    size_t behind = clip->above ? side : 0; /* where the lower neighbour's part lies */
    if (clip->above) {
        bytes[rank - 1] = side;
        move_rows(nn, clip, clip->above, out.data, false);
    }
    if (clip->below) {
        bytes[rank + 1] = side;
        move_rows(nn, clip, clip->above + clip->height - 1, (char *)out.data + behind, false);
    }
    dk_nn_transfer transfer =
        dk_nn_start_all_to_all(nn, clip->among, in.data, bytes, out.data, bytes);
    dk_nn_finish(nn, &transfer);
    if (clip->above) {
        move_rows(nn, clip, 0, in.data, true);
    }
    if (clip->below) {
        move_rows(nn, clip, clip->above + clip->height, (char *)in.data + behind, true);
    }
    dk_nn_unwind(nn, mark);
}

static bool is_dense(const dk_nn_clip *clip)
{
    return clip->above + clip->below == 0;
}

dk_nn_clip dk_nn_clip_with_borders(dk_nn *nn, const dk_nn_clip *x)
{
    dk_nn_clip clip = dk_nn_clip_bordered(nn, x);
    for (int64_t i = 0; i < x->frames && x->height > 0 && x->among != NULL; i++) {
        dk_tensor to = dk_nn_clip_rows(&clip, i), from = dk_nn_clip_rows(x, i);
        dk_device_map(nn->device, to.data, to.dtype, from.data, from.dtype, DK_ACT_NONE,
                      dk_tensor_count(&from));
    }
    return clip;
}

void dk_nn_clip_norm(dk_nn *nn, const dk_nn_norm *norm, const dk_nn_clip *dst,
                     const dk_nn_clip *src)
{
    if (src->height == 0) {
        return;
    }
    if (is_dense(dst) && is_dense(src)) {
        dk_nn_norm_forward(nn, norm, &dst->data, &src->data);
        return;
    }
    for (int64_t i = 0; i < src->frames; i++) {
        dk_tensor to = dk_nn_clip_rows(dst, i), from = dk_nn_clip_rows(src, i);
        dk_nn_norm_forward(nn, norm, &to, &from);
    }
}

/* What a linear layer computes in place of this rank's pixels, so that its sums are those of a
   layer over the whole pictures: the order of few rows' depends on their number and place, and
   differs from that of many. rows 0: these pixels will do. */
typedef struct stand_in {
    int64_t rows;
    int64_t begin, frame; /* where the pixels lie: the first one's row, rows of a frame */
} stand_in;

static stand_in stand_in_of(const dk_nn *nn, const dk_nn_clip *src)
{
    int64_t few = nn->device->direct_rows, row = src->frames * src->width;
    int64_t mine = row * src->height, all = row * src->whole;
    if (mine == all || mine > few || few == INT64_MAX) {
        return (stand_in){0};
    }
    if (all > few) {
        return (stand_in){.rows = few + 1, .frame = src->height * src->width};
    }
    return (stand_in){
        .rows = all, .begin = src->begin * src->width, .frame = src->whole * src->width};
}

/* Each frame's pixels, [pixels][channels], from or to where they lie in the stand-in. */
static void move_pixels(dk_nn *nn, const stand_in *s, const dk_tensor *in_place,
                        const dk_tensor *pixels, int64_t frames, bool in)
{
    int64_t count = pixels->shape[0] / frames, channels = pixels->shape[1];
    size_t bytes = (size_t)channels * dk_dtype_bytes(pixels->dtype);
    for (int64_t i = 0; i < frames; i++) {
        void *there = (char *)in_place->data + (size_t)(i * s->frame + s->begin) * bytes;
        void *here = (char *)pixels->data + (size_t)(i * count) * bytes;
        dk_device_map(nn->device, in ? there : here, pixels->dtype, in ? here : there,
                      pixels->dtype, DK_ACT_NONE, count * channels);
    }
}

static void linear_as_of_whole(dk_nn *nn, const dk_nn_linear *layer, const dk_tensor *dst,
                               const dk_tensor *src, int64_t frames, const stand_in *s)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor from = dk_nn_temp(nn, src->dtype, s->rows, src->shape[1]);
    dk_tensor to = dk_nn_temp(nn, dst->dtype, s->rows, dst->shape[1]);
    dk_device_zero(nn->device, from.data, dk_tensor_bytes(&from));
    move_pixels(nn, s, &from, src, frames, true);
    dk_nn_linear_forward(nn, layer, &to, &from, NULL);
    move_pixels(nn, s, &to, dst, frames, false);
    dk_nn_unwind(nn, mark);
}

/* This rank's pixels of all frames. */
static dk_tensor pixels_of(const dk_nn_clip *clip)
{
    dk_tensor pixels = dk_nn_clip_rows(clip, 0);
    assert(clip->frames == 1 || is_dense(clip));
    pixels.shape[0] = clip->frames * clip->height * clip->width;
    return pixels;
}

void dk_nn_clip_linear(dk_nn *nn, const dk_nn_linear *layer, const dk_nn_clip *dst,
                       const dk_nn_clip *src)
{
    dk_tensor to = pixels_of(dst), from = pixels_of(src);
    stand_in other = stand_in_of(nn, src);
    if (src->height > 0 && other.rows > 0) {
        linear_as_of_whole(nn, layer, &to, &from, src->frames, &other);
    } else if (src->height > 0) {
        dk_nn_linear_forward(nn, layer, &to, &from, NULL);
    }
}

void dk_nn_clip_linear_group(dk_nn *nn, const dk_nn_clip *src, const dk_nn_clip_call *calls,
                             int count)
{
    dk_nn_linear_call linear[DK_NN_MOST_CALLS];
    dk_tensor to[DK_NN_MOST_CALLS], from = pixels_of(src);
    bool apart = stand_in_of(nn, src).rows > 0;
    assert(count <= DK_NN_MOST_CALLS);
    for (int i = 0; i < count; i++) {
        to[i] = pixels_of(calls[i].dst);
        linear[i] = (dk_nn_linear_call){calls[i].layer, &to[i], NULL};
        if (apart) {
            dk_nn_clip_linear(nn, calls[i].layer, calls[i].dst, src);
        }
    }
    if (src->height > 0 && !apart) {
        dk_nn_linear_group(nn, &from, linear, count);
    }
}

/* Rows as they were shared out. */
static dk_nn_pictures pictures_of(const dk_nn_clip *clip, int64_t count)
{
    return (dk_nn_pictures){
        .count = count, .rows = clip->whole / clip->grain, .width = clip->width * clip->grain};
}

void dk_nn_clip_attention(dk_nn *nn, const dk_nn_clip *clip, const dk_tensor *dst,
                          const dk_tensor *q, const dk_tensor *kv, float scale)
{
    size_t mark = dk_nn_mark(nn);
    int64_t pixels = clip->whole * clip->width, width = kv->shape[1];
    dk_tensor all = *kv;
    if (clip->among != NULL) {
        all = dk_nn_temp(nn, kv->dtype, 2 * pixels, width);
        const dk_nn_pictures both = pictures_of(clip, 2);
        dk_nn_gather_rows(nn, &all, kv, &both);
    }
    dk_tensor k = DK_TENSOR(all.data, all.dtype, pixels, width), v = k;
    v.data = (char *)k.data + dk_tensor_bytes(&k);
    if (clip->height > 0) {
        dk_nn_attention(nn, dst, q, &k, &v, 1, scale, NULL);
    }
    dk_nn_unwind(nn, mark);
}

dk_nn_clip dk_nn_clip_collect(dk_nn *nn, const dk_nn_clip *x)
{
    dk_nn_clip all = dk_nn_clip_alone(x->frames, x->whole, x->width);
    if (x->among == NULL) {
        return *x;
    }
    int64_t rows = dk_nn_leads(nn) ? x->frames * x->whole * x->width : 0;
    assert(is_dense(x));
    all.data = dk_nn_temp(nn, x->data.dtype, rows, x->data.shape[1]);
    const dk_nn_pictures pictures = pictures_of(x, x->frames);
    dk_nn_gather_rows_to_leader(nn, &all.data, &x->data, &pictures);
    return all;
}
