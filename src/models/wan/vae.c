/* Decoding and encoding with the Wan autoencoder, chunk by chunk. */
#include "models/wan/vae.h"

#include "base/alloc.h"
#include "models/wan/vae_model.h"
#include "nn/parallel.h"

dk_status dk_wan_vae_create(dk_wan_vae **out, const dk_wan_vae_config *config,
                            dk_weights *weights, dk_device *device, unsigned parts,
                            const char *where, dk_error *err)
{
    dk_wan_vae *vae = dk_alloc(sizeof *vae);
    vae->config = *config;
    vae->weights = dk_weights_ref(weights);
    vae->device = device;
    dk_status status = dk_wan_vae_bind(vae, parts, where, err);
    if (status == DK_OK && device != NULL && (parts & DK_WAN_VAE_DECODER)) {
        status = dk_wan_tower_prepare(&vae->decoder, device, err);
    }
    if (status == DK_OK && device != NULL && (parts & DK_WAN_VAE_ENCODER)) {
        status = dk_wan_tower_prepare(&vae->encoder, device, err);
    }
    if (status != DK_OK) {
        dk_wan_vae_destroy(&vae);
        return status;
    }
    *out = vae;
    return DK_OK;
}

void dk_wan_vae_destroy(dk_wan_vae **vae)
{
    if (*vae != NULL) {
        dk_wan_tower_release(&(*vae)->encoder, (*vae)->device);
        dk_wan_tower_release(&(*vae)->decoder, (*vae)->device);
        dk_bound_release(&(*vae)->bound);
        dk_weights_unref((*vae)->weights);
        dk_free(*vae);
        *vae = NULL;
    }
}

const dk_wan_vae_config *dk_wan_vae_get_config(const dk_wan_vae *vae)
{
    return &vae->config;
}

/* Moves between [channels][all frames][all rows][width] and this rank's rows of a clip of one
   frame, or without borders, that starts at frame `first`. */
static void transpose(dk_nn *nn, const dk_tensor *planes, int64_t all_frames, int64_t first,
                      const dk_nn_clip *clip, bool to_planes)
{
    int64_t pixels = clip->height * clip->width, channels = clip->data.shape[1];
    int64_t picture = clip->whole * clip->width;
    float *start = (float *)planes->data + first * picture + clip->begin * clip->width;
    dk_permute_args args = {
        .rank = 3,
        .shape = {clip->frames, pixels, channels},
        .src_stride = {picture, 1, all_frames * picture},
        .dst_stride = {pixels * channels, channels, 1},
        .src = start,
        .src_type = DK_F32,
        .dst = clip->data.data,
        .dst_type = clip->data.dtype,
    };
    if (to_planes) {
        for (int i = 0; i < 3; i++) {
            int64_t stride = args.src_stride[i];
            args.src_stride[i] = args.dst_stride[i];
            args.dst_stride[i] = stride;
        }
        args.src = clip->data.data;
        args.src_type = clip->data.dtype;
        args.dst = start;
        args.dst_type = DK_F32;
    }
    if (pixels > 0) {
        dk_device_permute(nn->device, &args);
    }
}

/* One latent frame becomes 1 (the first) or temporal_factor frames. */
static dk_status decode_chunk(dk_nn *nn, const dk_wan_vae *vae, dk_wan_stream *stream,
                              const dk_tensor *latent, int64_t frames, const int64_t size[2],
                              dk_nn_clip *sample, dk_error *err)
{
    const dk_nn_guard *guard = &nn->guards[DK_COMPONENT_VAE];
    dk_nn_clip shape = dk_nn_clip_share(nn, 1, size[0], size[1]);
    dk_nn_clip z = dk_nn_clip_new(nn, nn->type, &shape, 1, vae->config.z_dim);
    dk_nn_clip in = dk_nn_clip_new_bordered(nn, &shape, 1, vae->config.z_dim, 0);
    transpose(nn, latent, frames, stream->chunk, &z, false);
    dk_nn_guard_begin(guard, 0); /* with the tower's first stage */
    dk_nn_clip_linear(nn, &vae->post_quant, &in, &z);
    return dk_wan_tower_forward(nn, &vae->decoder, guard, stream, sample, &in, err);
}

/* Where the leader's caller fails, all ranks do, as where another rank's rows did not come. */
static dk_status emit_chunk(dk_nn *nn, const dk_nn_clip *sample, int64_t first,
                            dk_wan_vae_emit_fn *emit, void *context, dk_error *err)
{
    dk_nn_clip whole = dk_nn_clip_collect(nn, sample);
    dk_status status = DK_OK;
    if (dk_nn_leads(nn) && !nn->device->dry) {
        status = emit(context, first, whole.frames, &whole.data, err);
    } else if (!nn->device->dry) {
        status = dk_device_sync(nn->device, err);
    }
    return dk_nn_agree_status(nn, status, err);
}

/* All chunks, or those until one was spoiled (*again): what it left in the histories is spoiled
   too. */
static dk_status decode_once(dk_nn *nn, const dk_wan_vae *vae, const dk_tensor *latent,
                             int64_t frames, const int64_t size[2], dk_wan_vae_emit_fn *emit,
                             void *context, bool *again, dk_error *err)
{
    dk_wan_stream stream;
    dk_status status = DK_OK;
    int64_t done = 0;
    size_t kept = nn->keep.used;
    *again = false;
    dk_wan_stream_init(&stream, &vae->decoder);
    for (int64_t i = 0; i < frames && status == DK_OK && !*again; i++) {
        size_t mark = dk_nn_mark(nn);
        dk_nn_clip sample;
        status = decode_chunk(nn, vae, &stream, latent, frames, size, &sample, err);
        if (status == DK_OK) {
            status = dk_nn_look(nn, DK_COMPONENT_VAE, again, err);
        }
        if (status == DK_OK && !*again) {
            status = emit_chunk(nn, &sample, done, emit, context, err);
        }
        if (status == DK_OK) {
            done += sample.frames;
        }
        dk_nn_unwind(nn, mark);
    }
    dk_wan_stream_release(&stream);
    nn->keep.used = kept;
    return status;
}

dk_status dk_wan_vae_decode(dk_nn *nn, const dk_wan_vae *vae, const dk_tensor *latent,
                            int64_t frames, int64_t height, int64_t width,
                            dk_wan_vae_emit_fn *emit, void *context, dk_error *err)
{
    dk_nn_guard *guard = &nn->guards[DK_COMPONENT_VAE];
    DK_TRY(dk_nn_guard_open(guard, nn->device, dk_wan_tower_stages(&vae->decoder), err));
    dk_nn_guard_clear(guard);
    for (bool again = true; again;) {
        DK_TRY(decode_once(nn, vae, latent, frames, (int64_t[]){height, width}, emit, context,
                           &again, err));
    }
    return DK_OK;
}

static dk_status encode_chunk(dk_nn *nn, const dk_wan_vae *vae, dk_wan_stream *stream,
                              const dk_tensor *moments, const dk_tensor *video, int64_t frames,
                              const int64_t size[2], dk_error *err)
{
    int64_t factor = vae->config.temporal_factor, chunk = stream->chunk;
    int64_t first = chunk == 0 ? 0 : 1 + (chunk - 1) * factor;
    int64_t latents = 1 + (frames - 1) / factor;
    dk_nn_clip shape = dk_nn_clip_alone(chunk == 0 ? 1 : factor, size[0], size[1]);
    dk_nn_clip in = dk_nn_clip_new(nn, nn->type, &shape, shape.frames, vae->config.in_channels);
    transpose(nn, video, frames, first, &in, false);
    dk_nn_clip raw;
    const dk_nn_guard *guard = &nn->guards[DK_COMPONENT_IMAGE_ENCODER];
    DK_TRY(dk_wan_tower_forward(nn, &vae->encoder, guard, stream, &raw, &in, err));
    dk_nn_clip out = dk_nn_clip_new(nn, DK_F32, &raw, raw.frames, raw.data.shape[1]);
    dk_nn_clip_linear(nn, &vae->quant, &out, &raw);
    transpose(nn, moments, latents, chunk, &out, true);
    return dk_nn_check(nn, err);
}

static dk_status encode_once(dk_nn *nn, const dk_wan_vae *vae, const dk_tensor *moments,
                             const dk_tensor *video, int64_t frames, const int64_t size[2],
                             dk_error *err)
{
    dk_wan_stream stream;
    dk_status status = DK_OK;
    int64_t latents = 1 + (frames - 1) / vae->config.temporal_factor;
    size_t kept = nn->keep.used;
    dk_wan_stream_init(&stream, &vae->encoder);
    for (int64_t i = 0; i < latents && status == DK_OK; i++) {
        size_t mark = dk_nn_mark(nn);
        status = encode_chunk(nn, vae, &stream, moments, video, frames, size, err);
        dk_nn_unwind(nn, mark);
    }
    dk_wan_stream_release(&stream);
    nn->keep.used = kept;
    return status;
}

dk_status dk_wan_vae_encode(dk_nn *nn, const dk_wan_vae *vae, const dk_tensor *moments,
                            const dk_tensor *video, int64_t frames, int64_t height,
                            int64_t width, dk_error *err)
{
    const dk_wan_vae_config *c = &vae->config;
    if ((frames - 1) % c->temporal_factor != 0 || height % c->spatial_factor != 0 ||
        width % c->spatial_factor != 0) {
        return dk_fail(err, DK_INVALID,
                       "a video of %lld frames of %lld x %lld pixels, accepted are 1 + a "
                       "multiple of %d frames and sides that are multiples of %d",
                       (long long)frames, (long long)width, (long long)height,
                       c->temporal_factor, c->spatial_factor);
    }
    dk_nn_guard *guard = &nn->guards[DK_COMPONENT_IMAGE_ENCODER];
    DK_TRY(dk_nn_guard_open(guard, nn->device, dk_wan_tower_stages(&vae->encoder), err));
    dk_nn_guard_clear(guard);
    for (bool again = true; again;) {
        DK_TRY(encode_once(nn, vae, moments, video, frames, (int64_t[]){height, width}, err));
        DK_TRY(dk_nn_look(nn, DK_COMPONENT_IMAGE_ENCODER, &again, err));
    }
    return DK_OK;
}
