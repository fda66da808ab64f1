/* The shape of a transformer from its config.json. Keys and defaults are those of the classes
   in diffusers 0.37. */
#include <string.h>

#include "base/json.h"
#include "scaling/geometry.h"

enum { MOST_LAYERS = 1024, MOST_HEADS = 1024, MOST_WIDTH = 1 << 20 };

typedef struct reader {
    const json_t *config;
    const char *where;
    dk_error *err;
} reader;

static dk_status number(const reader *r, const char *key, int64_t most, int64_t *out)
{
    return dk_json_int(r->config, key, 1, most, DK_JSON_REQUIRED, out, r->where, r->err);
}

static dk_status heads(dk_model_shape *s, const reader *r)
{
    DK_TRY(number(r, "num_layers", MOST_LAYERS, &s->layers));
    DK_TRY(number(r, "num_attention_heads", MOST_HEADS, &s->heads));
    return number(r, "attention_head_dim", MOST_WIDTH, &s->head_dim);
}

static dk_status read_wan(dk_model_shape *s, const reader *r)
{
    int64_t patch[3] = {1, 2, 2}, channels = 16, image = 0;
    int count = 0;
    const unsigned absent = DK_JSON_NULL_IS_ABSENT;
    DK_TRY(heads(s, r));
    DK_TRY(number(r, "ffn_dim", MOST_WIDTH, &s->ffn_dim));
    DK_TRY(
        dk_json_int(r->config, "out_channels", 1, 4096, absent, &channels, r->where, r->err));
    DK_TRY(
        dk_json_int(r->config, "image_dim", 1, MOST_WIDTH, absent, &image, r->where, r->err));
    DK_TRY(dk_json_ints(r->config, "patch_size", 3, 3, 1, 64, absent, patch, &count, r->where,
                        r->err));
    if (patch[0] != 1 || patch[1] != patch[2]) {
        return dk_fail(r->err, DK_UNSUPPORTED,
                       "%s: patch_size is [%lld, %lld, %lld], accepted are [1, n, n]", r->where,
                       (long long)patch[0], (long long)patch[1], (long long)patch[2]);
    }
    s->image_rows = image > 0 ? dk_model_preset_find("wan2.1-i2v-14b")->image_rows : 0;
    s->token_side = 8 * patch[1];
    s->token_values = channels * patch[1] * patch[2];
    return DK_OK;
}

static dk_status read_flux(dk_model_shape *s, const reader *r)
{
    double ratio = 4; /* FLUX.1 has no such key */
    DK_TRY(heads(s, r));
    DK_TRY(number(r, "num_single_layers", MOST_LAYERS, &s->single_layers));
    DK_TRY(number(r, "in_channels", 4096, &s->token_values));
    DK_TRY(dk_json_double(r->config, "mlp_ratio", 0.25, 64, 0, &ratio, r->where, r->err));
    s->ffn_dim = (int64_t)((double)(s->heads * s->head_dim) * ratio);
    return DK_OK;
}

static dk_status read_qwen_image(dk_model_shape *s, const reader *r)
{
    DK_TRY(heads(s, r));
    DK_TRY(number(r, "in_channels", 4096, &s->token_values));
    s->ffn_dim = 4 * s->heads * s->head_dim;
    return DK_OK;
}

static dk_status read_z_image(dk_model_shape *s, const reader *r)
{
    int64_t dim = 0, channels = 0;
    DK_TRY(number(r, "n_layers", MOST_LAYERS, &s->layers));
    DK_TRY(number(r, "n_refiner_layers", MOST_LAYERS, &s->refiner_layers));
    DK_TRY(number(r, "n_heads", MOST_HEADS, &s->heads));
    DK_TRY(number(r, "dim", MOST_WIDTH, &dim));
    DK_TRY(number(r, "in_channels", 4096, &channels));
    if (dim % s->heads != 0) {
        return dk_fail(r->err, DK_FORMAT, "%s: dim %lld is no multiple of n_heads %lld",
                       r->where, (long long)dim, (long long)s->heads);
    }
    s->head_dim = dim / s->heads;
    s->ffn_dim = dim / 3 * 8;
    s->token_values = 4 * channels;
    return DK_OK;
}

static const struct {
    const char *class_name, *usual; /* preset that tells what the file does not */
    dk_status (*read)(dk_model_shape *s, const reader *r);
} classes[] = {
    {"WanTransformer3DModel", "wan2.1-1.3b", read_wan},
    {"FluxTransformer2DModel", "flux1-dev", read_flux},
    {"Flux2Transformer2DModel", "flux2-klein-4b", read_flux},
    {"QwenImageTransformer2DModel", "qwen-image", read_qwen_image},
    {"ZImageTransformer2DModel", "z-image", read_z_image},
};

/* Wan's autoencoders: how far they shrink, in their own words or by their levels. */
static dk_status read_vae(dk_model_shape *s, const json_t *vae, const reader *r)
{
    int64_t side = 8, frames = 4, multipliers[16];
    bool temporal[16];
    int levels = 0, steps = 0;
    const unsigned absent = DK_JSON_NULL_IS_ABSENT;
    const int64_t patch = s->token_side / 8;
    DK_TRY(dk_json_ints(vae, "dim_mult", 1, 16, 1, 1024, absent, multipliers, &levels, r->where,
                        r->err));
    DK_TRY(dk_json_bools(vae, "temperal_downsample", 1, 16, absent, temporal, &steps, r->where,
                         r->err));
    if (levels > 0 && steps > 0) {
        side = (int64_t)1 << (levels - 1);
        frames = 1;
        for (int i = 0; i < steps; i++) {
            frames *= temporal[i] ? 2 : 1;
        }
    }
    DK_TRY(dk_json_int(vae, "scale_factor_spatial", 1, 64, absent, &side, r->where, r->err));
    DK_TRY(dk_json_int(vae, "scale_factor_temporal", 1, 64, absent, &frames, r->where, r->err));
    s->token_side = side * patch;
    s->token_frames = frames;
    return DK_OK;
}

dk_status dk_model_shape_read(dk_model_shape *out, const json_t *transformer, const json_t *vae,
                              const char *where, dk_error *err)
{
    const char *name = NULL;
    const reader r = {transformer, where, err};
    DK_TRY(dk_json_string(transformer, "_class_name", DK_JSON_REQUIRED, &name, where, err));
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (strcmp(classes[i].class_name, name) == 0) {
            dk_model_shape shape = *dk_model_preset_find(classes[i].usual);
            shape.name = name;
            DK_TRY(classes[i].read(&shape, &r));
            if (shape.family == DK_FAMILY_WAN && vae != NULL) {
                DK_TRY(read_vae(&shape, vae, &r));
            }
            *out = shape;
            return DK_OK;
        }
    }
    return dk_fail(err, DK_UNSUPPORTED,
                   "%s: the blocks of '%.80s' are not known; known are Wan, FLUX.1, FLUX.2, "
                   "Qwen-Image and Z-Image transformers of diffusers",
                   where, name);
}
