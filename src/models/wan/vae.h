/* The causal video autoencoder of Wan 2.1 (AutoencoderKLWan without residual shortcuts): Wan
   Team, "Wan: Open and Advanced Large-Scale Video Generative Models" (2025), section 4.1;
   behaviour as in diffusers 0.42.

   The first frame passes alone, every later latent frame stands for temporal_factor frames. The
   time axis is streamed: causal convolutions keep the last two frames they saw, so memory does
   not grow with the clip. */
#ifndef DK_MODELS_WAN_VAE_H
#define DK_MODELS_WAN_VAE_H

#include <jansson.h>

#include "nn/context.h"
#include "weights/weights.h"

enum { DK_WAN_VAE_MAX_LEVELS = 8, DK_WAN_VAE_MAX_CHANNELS = 64 };

typedef struct dk_wan_vae_config {
    int64_t base_dim, decoder_base_dim, z_dim, in_channels, out_channels, num_res_blocks;
    int levels;
    int64_t dim_mult[DK_WAN_VAE_MAX_LEVELS];
    bool temporal[DK_WAN_VAE_MAX_LEVELS]; /* [levels - 1]: that downsampling halves time too */
    double latents_mean[DK_WAN_VAE_MAX_CHANNELS], latents_std[DK_WAN_VAE_MAX_CHANNELS];
    int spatial_factor, temporal_factor;
} dk_wan_vae_config;

DK_MUST_USE dk_status dk_wan_vae_config_parse(dk_wan_vae_config *out, const json_t *json,
                                              const char *where, dk_error *err);

typedef struct dk_wan_vae dk_wan_vae;

/* Binds the weights and packs those of one direction for the device (NULL: none are packed, for
   dry runs). Owned; destroyed before the device is closed. */
typedef enum dk_wan_vae_part { DK_WAN_VAE_DECODER = 1, DK_WAN_VAE_ENCODER = 2 } dk_wan_vae_part;
DK_MUST_USE dk_status dk_wan_vae_create(dk_wan_vae **out, const dk_wan_vae_config *config,
                                        dk_weights *weights, dk_device *device, unsigned parts,
                                        const char *where, dk_error *err);
void dk_wan_vae_destroy(dk_wan_vae **vae);
const dk_wan_vae_config *dk_wan_vae_get_config(const dk_wan_vae *vae);

/* Receives decoded frames in order: sample is F32 [count * height * width][channels] in device
   memory, not yet clamped to [-1, 1]. Not called in a dry run, nor by ranks that do not lead,
   which fail where it fails. Where a stage was spoiled and is
   computed again (nn/guard.h), frames come once more from the first one on. */
typedef dk_status dk_wan_vae_emit_fn(void *context, int64_t first_frame, int64_t count,
                                     const dk_tensor *sample, dk_error *err);

/* latent: F32 [z_dim][frames * height * width], already denormalised (z std + mean). The ranks
   of a replica, which all have the latent, share out its rows; without nn->parallel this one
   decodes alone. */
DK_MUST_USE dk_status dk_wan_vae_decode(dk_nn *nn, const dk_wan_vae *vae,
                                        const dk_tensor *latent, int64_t frames, int64_t height,
                                        int64_t width, dk_wan_vae_emit_fn *emit, void *context,
                                        dk_error *err);

/* Tiles in pixels; neighbours overlap by size - stride and are blended linearly. */
typedef struct dk_wan_vae_tiling {
    int64_t height, width, stride_height, stride_width;
} dk_wan_vae_tiling;

/* The same tile by tile, for pictures too large to decode whole: the latent is in host memory,
   and so is the finished clip, which is emitted at once. The context must have been measured
   with one tile (dk_wan_vae_decode, dry) of tiling->height x width. */
DK_MUST_USE dk_status dk_wan_vae_decode_tiled(dk_nn *nn, const dk_wan_vae *vae,
                                              const dk_tensor *latent, int64_t frames,
                                              int64_t height, int64_t width,
                                              const dk_wan_vae_tiling *tiling,
                                              dk_wan_vae_emit_fn *emit, void *context,
                                              dk_error *err);

/* video: F32 [in_channels][frames * height * width] in [-1, 1], frames = 1 + a multiple of
   temporal_factor, sides multiples of spatial_factor. moments: F32 [2 z_dim][latent pixels],
   mean then log-variance, not normalised. Every rank encodes all of it. */
DK_MUST_USE dk_status dk_wan_vae_encode(dk_nn *nn, const dk_wan_vae *vae,
                                        const dk_tensor *moments, const dk_tensor *video,
                                        int64_t frames, int64_t height, int64_t width,
                                        dk_error *err);

#endif
