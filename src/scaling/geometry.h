/* What a step of a diffusion transformer consists of, in numbers: which rows pass which
   weights, who attends to whom, how much memory that is. Made from a model's shape (a preset,
   or the config.json of a folder) and the size of a picture or clip; no weights are read. */
#ifndef DK_SCALING_GEOMETRY_H
#define DK_SCALING_GEOMETRY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef enum dk_family {
    DK_FAMILY_WAN,
    DK_FAMILY_FLUX1,
    DK_FAMILY_FLUX2,
    DK_FAMILY_QWEN_IMAGE,
    DK_FAMILY_Z_IMAGE,
    DK_FAMILY_HUNYUAN
} dk_family;

/* A model without a picture. */
typedef struct dk_model_shape {
    const char *name; /* "wan2.1-14b"; of a folder: its class */
    dk_family family;
    int64_t layers;         /* blocks; of two streams where there are single ones too */
    int64_t single_layers;  /* blocks in which text and picture are one stream */
    int64_t refiner_layers; /* Z-Image: that see the picture alone, and the text alone */
    int64_t heads, head_dim;
    int64_t ffn_dim;    /* hidden width of the feed-forward */
    int64_t text_rows;  /* prompt tokens, padding included where it is computed */
    int64_t image_rows; /* tokens of an image encoder that are attended to as well; or 0 */
    int64_t token_side, token_frames; /* pixels and frames under one token */
    int64_t token_values;             /* numbers of the latent that a token stands for */
    int experts;                      /* transformers that take turns */
    int passes;                       /* forward passes per step: 2 with guidance */
    int64_t width, height, frames;    /* usual ones */
    int steps;
    double other_weights; /* elements outside of the blocks */
    double text_weights;  /* elements of the text encoders, embeddings included */
    double text_flops;    /* of encoding one prompt */
    double vae_weights;
    double vae_pixel_flops; /* of decoding, per pixel and frame */
    double vae_pixel_bytes; /* working memory of decoding, per pixel of a frame */
} dk_model_shape;

/* Published models, see model_presets.c. NULL when there is none of that name. */
const dk_model_shape *dk_model_preset_find(const char *name);

/* The shape that a transformer's config.json tells, of the classes whose blocks are known:
   WanTransformer3DModel, FluxTransformer2DModel, Flux2Transformer2DModel,
   QwenImageTransformer2DModel, ZImageTransformer2DModel; others are DK_UNSUPPORTED. `vae`: the
   autoencoder's, or NULL. Text encoder and autoencoder have the family's usual weights; names
   are borrowed from `transformer`. */
DK_MUST_USE dk_status dk_model_shape_read(dk_model_shape *out, const json_t *transformer,
                                          const json_t *vae, const char *where, dk_error *err);

/* Equal blocks, one behind the other. */
typedef struct dk_block_group {
    const char *name;
    int64_t count;
    int64_t rows;       /* through the linear layers, and in self-attention */
    int64_t cross_rows; /* further keys, whose projections are made once per generation */
    double row_weights; /* elements that a row is multiplied by: 2 operations each */
    double weights;     /* elements stored, text stream and modulation included */
    double row_bytes;   /* memory traffic per row of norms, rotary embedding and residuals */
    int reductions;     /* sums over tp ranks of [rows][dim]: one per row-split layer */
    int norm_calls;     /* sums over tp ranks for norms across heads ... */
    int norm_values;    /* ... of that many numbers per row, in all */
} dk_block_group;

enum { DK_GEOMETRY_GROUPS = 3 };

typedef struct dk_geometry {
    dk_model_shape shape;
    int64_t width, height, frames;
    int passes;
    int64_t dim;    /* heads * head_dim */
    int64_t tokens; /* of the latent */
    dk_block_group groups[DK_GEOMETRY_GROUPS];
    int group_count;
    double weights;       /* elements of one transformer */
    double latent_values; /* numbers of the latent */
    double vae_flops;     /* of decoding all frames */
    double vae_bytes;     /* its working memory */
} dk_geometry;

/* Zero width, height, frames or passes: the shape's. Sizes that the model cannot have are
   DK_INVALID. */
DK_MUST_USE dk_status dk_geometry_init(dk_geometry *out, const dk_model_shape *shape,
                                       int64_t width, int64_t height, int64_t frames,
                                       int passes, dk_error *err);

/* Operations of one forward pass (multiply and add: two). */
double dk_geometry_linear_flops(const dk_geometry *geometry);
double dk_geometry_attention_flops(const dk_geometry *geometry);
/* Bytes that the operations between them read and write. */
double dk_geometry_row_bytes(const dk_geometry *geometry);

#endif
