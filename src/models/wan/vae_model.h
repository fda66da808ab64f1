/* Inside of the Wan autoencoder: its parameters, bound by vae_bind.c, and the tower of layers
   that encoder and decoder both are (vae_tower.c). */
#ifndef DK_MODELS_WAN_VAE_MODEL_H
#define DK_MODELS_WAN_VAE_MODEL_H

#include "models/wan/vae.h"
#include "nn/conv.h"
#include "weights/binder.h"

typedef enum dk_wan_layer_kind {
    DK_WAN_RESIDUAL,
    DK_WAN_ATTENTION,
    DK_WAN_UPSAMPLE,
    DK_WAN_DOWNSAMPLE
} dk_wan_layer_kind;

typedef struct dk_wan_layer {
    dk_wan_layer_kind kind;
    int in, out;
    const float *norm1, *norm2;     /* RESIDUAL both, ATTENTION the first */
    dk_nn_conv conv1, conv2;        /* RESIDUAL; ATTENTION: conv2 is proj; resampling: conv1 */
    dk_nn_linear shortcut;          /* RESIDUAL with in != out */
    dk_nn_linear q, k, v;           /* ATTENTION: thirds of to_qkv */
    bool temporal;                  /* resampling also in time, by: */
    dk_nn_conv time_even, time_odd; /* upsampling: the halves of time_conv, one per new frame;
                                        downsampling: the first alone */
} dk_wan_layer;

typedef struct dk_wan_tower {
    dk_nn_conv conv_in, conv_out;
    dk_wan_layer *layers; /* [count] */
    int count;
    const float *norm_out;
    int slots; /* histories in use */
} dk_wan_tower;

struct dk_wan_vae {
    dk_wan_vae_config config;
    dk_weights *weights;
    dk_bound bound; /* owns the f32 parameters */
    dk_device *device;
    dk_wan_tower encoder, decoder;
    dk_nn_linear quant, post_quant;
};

DK_MUST_USE dk_status dk_wan_vae_bind(dk_wan_vae *vae, unsigned parts, const char *where,
                                      dk_error *err);
/* Packs (or frees) every convolution of a tower. */
DK_MUST_USE dk_status dk_wan_tower_prepare(dk_wan_tower *tower, dk_device *device,
                                           dk_error *err);
void dk_wan_tower_release(dk_wan_tower *tower, dk_device *device);

typedef struct dk_wan_stream {
    dk_nn_history *history; /* [slots], owned; frames lie in the keep stack */
    int64_t chunk;          /* 0 for the first frame alone */
} dk_wan_stream;

void dk_wan_stream_init(dk_wan_stream *stream, const dk_wan_tower *tower);
void dk_wan_stream_release(dk_wan_stream *stream);

/* Stages that a tower is guarded in: conv_in, each layer, conv_out. */
static inline int dk_wan_tower_stages(const dk_wan_tower *tower)
{
    return tower->count + 2;
}

/* Passes one chunk through a tower, under a guard that may be closed; the result is F32, in the
   temp stack, unwound by the caller. */
DK_MUST_USE dk_status dk_wan_tower_forward(dk_nn *nn, const dk_wan_tower *tower,
                                           const dk_nn_guard *guard, dk_wan_stream *stream,
                                           dk_nn_clip *out, const dk_nn_clip *in,
                                           dk_error *err);

#endif
