/* Decoding tile by tile: tiles overlap, and each fades into the neighbours above and to its
   left, as AutoencoderKLWan.tiled_decode does. */
#include <string.h>

#include "base/alloc.h"
#include "models/wan/vae.h"

enum { CHANNELS = 3 };

/* One decoded tile in host memory: [frames][height][width][3]. */
typedef struct tile {
    float *values; /* owned */
    int64_t frames, height, width;
    int64_t filled; /* frames that arrived */
    dk_device *device;
} tile;

typedef struct tiles {
    tile *all; /* [rows][columns] */
    int64_t rows, columns;
} tiles;

static dk_status keep_frames(void *context, int64_t first_frame, int64_t count,
                             const dk_tensor *sample, dk_error *err)
{
    tile *t = context;
    int64_t frame = t->height * t->width * CHANNELS;
    dk_device_read(t->device, t->values + first_frame * frame, sample->data,
                   (size_t)(count * frame) * sizeof(float));
    t->filled = first_frame + count;
    return dk_device_sync(t->device, err);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The latent's window [channels][frames][rows y0..][columns x0..], contiguous. */
static void cut(float *dst, const dk_tensor *latent, int64_t frames, int64_t height,
                int64_t width, const int64_t window[4])
{
    int64_t planes = latent->shape[0] * frames;
    for (int64_t plane = 0; plane < planes; plane++) {
        for (int64_t y = 0; y < window[2]; y++, dst += window[3]) {
            const float *row = (const float *)latent->data +
                               (plane * height + window[0] + y) * width + window[1];
            memcpy(dst, row, (size_t)window[3] * sizeof *dst);
        }
    }
}

static dk_status decode_tile(dk_nn *nn, const dk_wan_vae *vae, tile *out,
                             const dk_tensor *latent, int64_t frames, int64_t height,
                             int64_t width, const int64_t window[4], dk_error *err)
{
    const dk_wan_vae_config *c = dk_wan_vae_get_config(vae);
    void *part = NULL, *values = NULL; /* part: the window on the host */
    dk_tensor piece = DK_TENSOR(NULL, DK_F32, latent->shape[0], frames * window[2] * window[3]);
    *out = (tile){.frames = 1 + (frames - 1) * c->temporal_factor,
                  .height = window[2] * c->spatial_factor,
                  .width = window[3] * c->spatial_factor,
                  .device = nn->device};
    size_t bytes = (size_t)(out->frames * out->height * out->width * CHANNELS) * sizeof(float);
    DK_TRY(dk_try_alloc(&values, bytes, "a decoded tile", err));
    out->values = values;
    DK_TRY(dk_try_alloc(&part, dk_tensor_bytes(&piece), "a tile's latent", err));
    dk_status status = dk_device_alloc(nn->device, &piece.data, dk_tensor_bytes(&piece),
                                       "a tile's latent", err);
    if (status == DK_OK) {
        cut(part, latent, frames, height, width, window);
        dk_device_write(nn->device, piece.data, part, dk_tensor_bytes(&piece));
        status = dk_wan_vae_decode(nn, vae, &piece, frames, window[2], window[3], keep_frames,
                                   out, err);
    }
    dk_device_free(nn->device, piece.data);
    dk_free(part);
    return status;
}

/* Fades b's first rows from a's last ones (b lies below a). */
static void blend_rows(tile *b, const tile *a, int64_t extent)
{
    extent = smaller(extent, smaller(a->height, b->height));
    for (int64_t f = 0; f < b->frames; f++) {
        for (int64_t y = 0; y < extent; y++) {
            float share = (float)y / (float)extent;
            float *to = b->values + (f * b->height + y) * b->width * CHANNELS;
            const float *from =
                a->values + (f * a->height + a->height - extent + y) * a->width * CHANNELS;
            for (int64_t i = 0; i < b->width * CHANNELS; i++) {
                to[i] = from[i] * (1.0f - share) + to[i] * share;
            }
        }
    }
}

/* Fades b's first columns from a's last ones (b lies right of a). */
static void blend_columns(tile *b, const tile *a, int64_t extent)
{
    extent = smaller(extent, smaller(a->width, b->width));
    for (int64_t row = 0; row < b->frames * b->height; row++) {
        for (int64_t x = 0; x < extent; x++) {
            float share = (float)x / (float)extent;
            float *to = b->values + (row * b->width + x) * CHANNELS;
            const float *from = a->values + (row * a->width + a->width - extent + x) * CHANNELS;
            for (int i = 0; i < CHANNELS; i++) {
                to[i] = from[i] * (1.0f - share) + to[i] * share;
            }
        }
    }
}

/* Copies the part of a tile that no later neighbour replaces. */
static void place(float *clip, int64_t height, int64_t width, const tile *t, int64_t y0,
                  int64_t x0, const dk_wan_vae_tiling *tiling)
{
    int64_t rows = smaller(smaller(t->height, tiling->stride_height), height - y0);
    int64_t columns = smaller(smaller(t->width, tiling->stride_width), width - x0);
    for (int64_t f = 0; f < t->frames; f++) {
        for (int64_t y = 0; y < rows; y++) {
            memcpy(clip + ((f * height + y0 + y) * width + x0) * CHANNELS,
                   t->values + (f * t->height + y) * t->width * CHANNELS,
                   (size_t)(columns * CHANNELS) * sizeof *clip);
        }
    }
}

static void join(float *clip, int64_t height, int64_t width, const tiles *t,
                 const dk_wan_vae_tiling *tiling)
{
    for (int64_t row = 0; row < t->rows; row++) {
        for (int64_t column = 0; column < t->columns; column++) {
            tile *here = &t->all[row * t->columns + column];
            if (row > 0) {
                blend_rows(here, here - t->columns, tiling->height - tiling->stride_height);
            }
            if (column > 0) {
                blend_columns(here, here - 1, tiling->width - tiling->stride_width);
            }
            place(clip, height, width, here, row * tiling->stride_height,
                  column * tiling->stride_width, tiling);
        }
    }
}

static dk_status check_tiling(const dk_wan_vae_tiling *t, int factor, dk_error *err)
{
    bool fits = t->stride_height > 0 && t->stride_width > 0 && t->height >= t->stride_height &&
                t->width >= t->stride_width && t->height % factor == 0 &&
                t->width % factor == 0 && t->stride_height % factor == 0 &&
                t->stride_width % factor == 0;
    return fits ? DK_OK
                : dk_fail(err, DK_INVALID,
                          "tiles of %lld x %lld pixels every %lld x %lld: sizes must be "
                          "multiples of %d and strides no larger than them",
                          (long long)t->width, (long long)t->height, (long long)t->stride_width,
                          (long long)t->stride_height, factor);
}

dk_status dk_wan_vae_decode_tiled(dk_nn *nn, const dk_wan_vae *vae, const dk_tensor *latent,
                                  int64_t frames, int64_t height, int64_t width,
                                  const dk_wan_vae_tiling *tiling, dk_wan_vae_emit_fn *emit,
                                  void *context, dk_error *err)
{
    const dk_wan_vae_config *c = dk_wan_vae_get_config(vae);
    int factor = c->spatial_factor;
    DK_TRY(check_tiling(tiling, factor, err));
    int64_t step_y = tiling->stride_height / factor, step_x = tiling->stride_width / factor;
    tiles t = {.rows = (height + step_y - 1) / step_y,
               .columns = (width + step_x - 1) / step_x};
    t.all = dk_alloc((size_t)(t.rows * t.columns) * sizeof *t.all);
    int64_t out_frames = 1 + (frames - 1) * c->temporal_factor;
    int64_t out_height = height * factor, out_width = width * factor;
    void *clip = NULL;
    dk_status status = DK_OK;
    for (int64_t i = 0; i < t.rows * t.columns && status == DK_OK; i++) {
        int64_t y = i / t.columns * step_y, x = i % t.columns * step_x;
        const int64_t window[4] = {y, x, smaller(tiling->height / factor, height - y),
                                   smaller(tiling->width / factor, width - x)};
        status = decode_tile(nn, vae, &t.all[i], latent, frames, height, width, window, err);
    }
    dk_tensor sample =
        DK_TENSOR(NULL, DK_F32, out_frames * out_height * out_width, (int64_t)CHANNELS);
    if (status == DK_OK) {
        status = dk_try_alloc(&clip, dk_tensor_bytes(&sample), "the decoded clip", err);
    }
    if (status == DK_OK) {
        join(clip, out_height, out_width, &t, tiling);
        sample.data = clip;
        status = emit(context, 0, out_frames, &sample, err);
    }
    for (int64_t i = 0; i < t.rows * t.columns; i++) {
        dk_free(t.all[i].values);
    }
    dk_free(t.all);
    dk_free(clip);
    return status;
}
