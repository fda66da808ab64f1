/* The Wan 2.1 diffusion transformer (WanTransformer3DModel): Wan Team, "Wan: Open and Advanced
   Large-Scale Video Generative Models" (2025); behaviour as in diffusers 0.42. */
#ifndef DK_MODELS_WAN_DIT_H
#define DK_MODELS_WAN_DIT_H

#include <jansson.h>

#include "comm/groups.h"
#include "nn/context.h"
#include "nn/layers.h"
#include "nn/quantize.h"
#include "weights/weights.h"

typedef struct dk_wan_dit_config {
    int64_t patch[3]; /* frames, rows, columns */
    int64_t heads, head_dim, in_channels, out_channels, text_dim, freq_dim, ffn_dim, layers;
    int64_t rope_positions; /* longest axis, in patches */
    bool cross_attn_norm;
    float eps;
} dk_wan_dit_config;

DK_MUST_USE dk_status dk_wan_dit_config_parse(dk_wan_dit_config *out, const json_t *json,
                                              const char *where, dk_error *err);

/* Whether every tensor-parallel rank gets a head, and of those every Ulysses rank. */
DK_MUST_USE dk_status dk_wan_dit_check_layout(const dk_wan_dit_config *config,
                                              const dk_layout *layout, const char *where,
                                              dk_error *err);

typedef struct dk_wan_dit dk_wan_dit;

/* Binds the weights (which the model keeps a reference to). Owned. */
DK_MUST_USE dk_status dk_wan_dit_create(dk_wan_dit **out, const dk_wan_dit_config *config,
                                        dk_weights *weights, const char *where, dk_error *err);
/* The linear layers of all blocks in int8; what conditions them (embeddings, modulation) and
   the final projection, which err most, stay as stored. The model keeps the results itself:
   `out` of the quantizer is not used. */
DK_MUST_USE dk_status dk_wan_dit_quantize(dk_wan_dit *dit, const dk_nn_quantizer *quantizer,
                                          dk_error *err);
const dk_nn_quantized *dk_wan_dit_quantized(const dk_wan_dit *dit);
void dk_wan_dit_destroy(dk_wan_dit **dit);
const dk_wan_dit_config *dk_wan_dit_get_config(const dk_wan_dit *dit);

/* A latent's geometry and its rotary tables, which lie in the keep stack. */
typedef struct dk_wan_dit_grid {
    int64_t frames, height, width; /* of the latent */
    int64_t tokens;
    int64_t first, rows; /* this rank's tokens: all, unless a sequence is shared out */
    dk_nn_rope rope;     /* of this rank's */
} dk_wan_dit_grid;

DK_MUST_USE dk_status dk_wan_dit_grid_init(dk_nn *nn, const dk_wan_dit *dit,
                                           dk_wan_dit_grid *out, int64_t frames, int64_t height,
                                           int64_t width, dk_error *err);

/* Keys and values of one prompt for every block, computed once per generation (keep stack). */
typedef struct dk_wan_dit_text {
    dk_tensor *k, *v; /* [layers], each [rows][dim]; owned */
    dk_nn_bias bias;  /* of the folded padding row; values NULL when there is none */
} dk_wan_dit_text;

/* embeds: [rows][text_dim] F32. The prompt is followed by padding_rows rows of zeros, which
   take part in attention; as they are all alike, one stands for all, its score raised by
   log(padding_rows). */
DK_MUST_USE dk_status dk_wan_dit_text_init(dk_nn *nn, const dk_wan_dit *dit,
                                           dk_wan_dit_text *out, const dk_tensor *embeds,
                                           int64_t padding_rows, dk_error *err);
void dk_wan_dit_text_release(dk_wan_dit_text *text);

/* One latent of a batch: what it is, what comes out, who may take it out. */
typedef struct dk_wan_dit_item {
    const dk_wan_dit_text *text; /* borrowed */
    dk_tensor latent, out;       /* F32 [channels][frames * height * width] */
    int wish;                    /* whose wish to stop takes it out: a number of nn->wishes */
    bool stopped;                /* comes back: taken out, nothing was written */
} dk_wan_dit_item;
enum { DK_WAN_DIT_MOST_ITEMS = 16 };

/* Latents of one geometry and one timestep in one pass: their tokens lie one behind the other
   in every layer but attention. Where each has more than device->direct_rows tokens, the bits
   that come out are those of a pass for each alone. Wishes to stop are looked at between
   blocks: of everything (nn's) it is DK_CANCELLED, of an item it takes that out. count may be 0
   on a rank of several whose others have items: it looks where they look. */
DK_MUST_USE dk_status dk_wan_dit_forward_batch(dk_nn *nn, const dk_wan_dit *dit,
                                               const dk_wan_dit_grid *grid,
                                               dk_wan_dit_item *items, int count,
                                               float timestep, dk_error *err);

/* The same for one. out, latent: F32 [channels][frames * height * width]. */
DK_MUST_USE dk_status dk_wan_dit_forward(dk_nn *nn, const dk_wan_dit *dit,
                                         const dk_wan_dit_grid *grid,
                                         const dk_wan_dit_text *text, const dk_tensor *out,
                                         const dk_tensor *latent, float timestep,
                                         dk_error *err);

#endif
