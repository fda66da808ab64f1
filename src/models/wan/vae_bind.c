/* The Wan autoencoder's configuration and binding table. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "models/wan/vae_model.h"

static dk_status refuse_variants(const json_t *json, const char *where, dk_error *err)
{
    bool residual = false;
    double scales[DK_WAN_VAE_MAX_LEVELS];
    int scale_count = 0;
    static const char *const classes[] = {"AutoencoderKLWan", NULL};
    DK_TRY(dk_json_choice(json, "_class_name", classes, where, err));
    DK_TRY(dk_json_bool(json, "is_residual", 0, &residual, where, err));
    DK_TRY(dk_json_doubles(json, "attn_scales", 0, DK_WAN_VAE_MAX_LEVELS,
                           DK_JSON_NULL_IS_ABSENT, scales, &scale_count, where, err));
    const json_t *patch = json_object_get(json, "patch_size");
    if (residual || scale_count > 0 || (patch != NULL && !json_is_null(patch))) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: is_residual, attn_scales and patch_size (the Wan 2.2 autoencoder) "
                       "are not supported, accepted are false, [] and null",
                       where);
    }
    return DK_OK;
}

enum { PUBLISHED_CHANNELS = 16 };

/* What the class takes when a configuration has no statistics. */
static const double published_mean[PUBLISHED_CHANNELS] = {
    -0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
    0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921};
static const double published_std[PUBLISHED_CHANNELS] = {
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916};

static dk_status parse_statistics(dk_wan_vae_config *c, const json_t *json, const char *where,
                                  dk_error *err)
{
    int mean_count = PUBLISHED_CHANNELS, std_count = PUBLISHED_CHANNELS;
    memcpy(c->latents_mean, published_mean, sizeof published_mean);
    memcpy(c->latents_std, published_std, sizeof published_std);
    DK_TRY(dk_json_doubles(json, "latents_mean", 1, DK_WAN_VAE_MAX_CHANNELS, 0, c->latents_mean,
                           &mean_count, where, err));
    DK_TRY(dk_json_doubles(json, "latents_std", 1, DK_WAN_VAE_MAX_CHANNELS, 0, c->latents_std,
                           &std_count, where, err));
    if (mean_count != c->z_dim || std_count != c->z_dim) {
        return dk_fail(err, DK_FORMAT,
                       "%s: %d latents_mean and %d latents_std values, expected z_dim = %lld",
                       where, mean_count, std_count, (long long)c->z_dim);
    }
    for (int i = 0; i < std_count; i++) {
        if (!(c->latents_std[i] > 0)) {
            return dk_fail(err, DK_FORMAT, "%s: latents_std[%d] is %g, expected above 0", where,
                           i, c->latents_std[i]);
        }
    }
    return DK_OK;
}

dk_status dk_wan_vae_config_parse(dk_wan_vae_config *out, const json_t *json, const char *where,
                                  dk_error *err)
{
    dk_wan_vae_config c = {.base_dim = 96,
                           .z_dim = 16,
                           .in_channels = 3,
                           .out_channels = 3,
                           .num_res_blocks = 2,
                           .levels = 4,
                           .dim_mult = {1, 2, 4, 4},
                           .temporal = {false, true, true},
                           .spatial_factor = 1,
                           .temporal_factor = 1};
    int temporal_count = 3;
    const unsigned maybe_null = DK_JSON_NULL_IS_ABSENT;
    DK_TRY(refuse_variants(json, where, err));
    DK_TRY(dk_json_int(json, "base_dim", 1, 4096, 0, &c.base_dim, where, err));
    c.decoder_base_dim = c.base_dim;
    DK_TRY(dk_json_int(json, "decoder_base_dim", 1, 4096, maybe_null, &c.decoder_base_dim,
                       where, err));
    DK_TRY(dk_json_int(json, "z_dim", 1, DK_WAN_VAE_MAX_CHANNELS, 0, &c.z_dim, where, err));
    DK_TRY(dk_json_int(json, "in_channels", 3, 3, 0, &c.in_channels, where, err));
    DK_TRY(dk_json_int(json, "out_channels", 3, 3, 0, &c.out_channels, where, err));
    DK_TRY(dk_json_int(json, "num_res_blocks", 1, 64, 0, &c.num_res_blocks, where, err));
    DK_TRY(dk_json_ints(json, "dim_mult", 1, DK_WAN_VAE_MAX_LEVELS, 1, 64, 0, c.dim_mult,
                        &c.levels, where, err));
    DK_TRY(dk_json_bools(json, "temperal_downsample", 0, DK_WAN_VAE_MAX_LEVELS, 0, c.temporal,
                         &temporal_count, where, err));
    if (temporal_count != c.levels - 1) {
        return dk_fail(err, DK_FORMAT,
                       "%s: %d temperal_downsample values, expected %d: one less than dim_mult",
                       where, temporal_count, c.levels - 1);
    }
    DK_TRY(parse_statistics(&c, json, where, err));
    for (int i = 0; i + 1 < c.levels; i++) {
        c.spatial_factor *= 2;
        c.temporal_factor *= c.temporal[i] ? 2 : 1;
    }
    *out = c;
    return DK_OK;
}

typedef struct naming {
    dk_binder *binder;
    dk_wan_tower *tower;
    char prefix[96]; /* of the layer being bound, with its final '.' */
} naming;

static void name_layer(naming *n, const char *format, ...) DK_PRINTF(2, 3);
static void name_layer(naming *n, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(n->prefix, sizeof n->prefix, format, args);
    va_end(args);
}

/* A causal convolution (kt > 1) gets a history of its own. 2-D ones are stored without kt. */
static void bind_conv(naming *n, dk_nn_conv *conv, int out, int in, int kt, int kh, bool flat,
                      const char *name)
{
    *conv = (dk_nn_conv){.out = out, .in = in, .kt = kt, .kh = kh, .kw = kh, .slot = -1};
    const int64_t clip[] = {out, in, kt, kh, kh}, picture[] = {out, in, kh, kh};
    dk_bind_tensor(n->binder, &conv->weight, flat ? 4 : 5, flat ? picture : clip, "%s%s.weight",
                   n->prefix, name);
    dk_bind_f32(n->binder, &conv->bias, out, "%s%s.bias", n->prefix, name);
    if (kt > 1) {
        conv->slot = n->tower->slots++;
    }
}

/* 1 x 1 convolutions that need no residual run as linear layers. */
static void bind_pointwise(naming *n, dk_nn_linear *linear, int64_t out, int64_t in, int rank,
                           const char *name)
{
    const int64_t shape[] = {out, in, 1, 1, 1};
    dk_bind_tensor(n->binder, &linear->weight, rank, shape, "%s%s.weight", n->prefix, name);
    dk_bind_f32(n->binder, &linear->bias, out, "%s%s.bias", n->prefix, name);
}

static void bind_residual(naming *n, dk_wan_layer *layer, int in, int out)
{
    *layer = (dk_wan_layer){.kind = DK_WAN_RESIDUAL, .in = in, .out = out};
    dk_bind_f32(n->binder, &layer->norm1, in, "%snorm1.gamma", n->prefix);
    bind_conv(n, &layer->conv1, out, in, 3, 3, false, "conv1");
    dk_bind_f32(n->binder, &layer->norm2, out, "%snorm2.gamma", n->prefix);
    bind_conv(n, &layer->conv2, out, out, 3, 3, false, "conv2");
    if (in != out) {
        bind_pointwise(n, &layer->shortcut, out, in, 5, "conv_shortcut");
    }
}

/* Rows [part * out, …) of a tensor that holds several parts along its first axis. */
static dk_tensor rows_of(const dk_tensor *whole, int64_t out, int64_t part)
{
    dk_tensor view = *whole;
    if (whole->data != NULL) {
        int64_t count = dk_tensor_count(whole) / whole->shape[0] * out * part;
        view.data = (char *)whole->data + (size_t)count * dk_dtype_bytes(whole->dtype);
    }
    view.shape[0] = out;
    return view;
}

static const float *offset(const float *values, int64_t count)
{
    return values != NULL ? values + count : NULL;
}

static void bind_attention(naming *n, dk_wan_layer *layer, int dim)
{
    *layer = (dk_wan_layer){.kind = DK_WAN_ATTENTION, .in = dim, .out = dim};
    dk_nn_linear qkv = {0};
    dk_bind_f32(n->binder, &layer->norm1, dim, "%snorm.gamma", n->prefix);
    bind_pointwise(n, &qkv, 3 * (int64_t)dim, dim, 4, "to_qkv");
    dk_nn_linear *parts[] = {&layer->q, &layer->k, &layer->v};
    for (int i = 0; i < 3; i++) {
        parts[i]->weight = rows_of(&qkv.weight, dim, i);
        parts[i]->bias = offset(qkv.bias, (int64_t)i * dim);
    }
    bind_conv(n, &layer->conv2, dim, dim, 1, 1, true, "proj");
}

static void bind_resample(naming *n, dk_wan_layer *layer, bool up, int dim, bool temporal)
{
    int out = up ? dim / 2 : dim;
    *layer = (dk_wan_layer){.kind = up ? DK_WAN_UPSAMPLE : DK_WAN_DOWNSAMPLE,
                            .in = dim,
                            .out = out,
                            .temporal = temporal};
    bind_conv(n, &layer->conv1, out, dim, 1, 3, true, "resample.1");
    if (!temporal) {
        return;
    }
    /* time_conv: [dim or 2 dim][dim][3][1][1]. */
    dk_nn_conv both;
    int64_t halves = up ? 2 : 1;
    bind_conv(n, &both, (int)halves * dim, dim, 3, 1, false, "time_conv");
    both.out = dim;
    layer->time_even = both;
    layer->time_even.weight = rows_of(&both.weight, dim, 0);
    if (up) {
        layer->time_odd = both;
        layer->time_odd.weight = rows_of(&both.weight, dim, 1);
        layer->time_odd.bias = offset(both.bias, dim);
    }
}

static void bind_middle(naming *n, dk_wan_layer **next, const char *part, int dim)
{
    name_layer(n, "%s.mid_block.resnets.0.", part);
    bind_residual(n, (*next)++, dim, dim);
    name_layer(n, "%s.mid_block.attentions.0.", part);
    bind_attention(n, (*next)++, dim);
    name_layer(n, "%s.mid_block.resnets.1.", part);
    bind_residual(n, (*next)++, dim, dim);
}

static void bind_ends(naming *n, const char *part, int in, int first, int last, int out)
{
    name_layer(n, "%s.", part);
    bind_conv(n, &n->tower->conv_in, first, in, 3, 3, false, "conv_in");
    dk_bind_f32(n->binder, &n->tower->norm_out, last, "%snorm_out.gamma", n->prefix);
    bind_conv(n, &n->tower->conv_out, out, last, 3, 3, false, "conv_out");
}

static void bind_encoder(dk_wan_vae *vae, dk_binder *b)
{
    const dk_wan_vae_config *c = &vae->config;
    naming n = {.binder = b, .tower = &vae->encoder};
    int64_t most = c->levels * (c->num_res_blocks + 1) + 3;
    vae->encoder.layers = dk_alloc((size_t)most * sizeof *vae->encoder.layers);
    dk_wan_layer *next = vae->encoder.layers;
    int dim = (int)c->base_dim, index = 0;
    for (int level = 0; level < c->levels; level++) {
        int out = (int)(c->base_dim * c->dim_mult[level]);
        for (int64_t i = 0; i < c->num_res_blocks; i++, dim = out) {
            name_layer(&n, "encoder.down_blocks.%d.", index++);
            bind_residual(&n, next++, dim, out);
        }
        if (level + 1 < c->levels) {
            name_layer(&n, "encoder.down_blocks.%d.", index++);
            bind_resample(&n, next++, false, out, c->temporal[level]);
        }
    }
    bind_middle(&n, &next, "encoder", dim);
    bind_ends(&n, "encoder", (int)c->in_channels, (int)c->base_dim, dim, 2 * (int)c->z_dim);
    vae->encoder.count = (int)(next - vae->encoder.layers);
    n.prefix[0] = '\0';
    bind_pointwise(&n, &vae->quant, 2 * c->z_dim, 2 * c->z_dim, 5, "quant_conv");
}

static void bind_decoder(dk_wan_vae *vae, dk_binder *b)
{
    const dk_wan_vae_config *c = &vae->config;
    naming n = {.binder = b, .tower = &vae->decoder};
    int64_t most = c->levels * (c->num_res_blocks + 2) + 3;
    vae->decoder.layers = dk_alloc((size_t)most * sizeof *vae->decoder.layers);
    dk_wan_layer *next = vae->decoder.layers;
    int first = (int)(c->decoder_base_dim * c->dim_mult[c->levels - 1]), out = first;
    bind_middle(&n, &next, "decoder", first);
    for (int block = 0, in = first; block < c->levels; block++) {
        int level = c->levels - 1 - block;
        out = (int)(c->decoder_base_dim * c->dim_mult[level]);
        for (int i = 0; i <= c->num_res_blocks; i++, in = out) {
            name_layer(&n, "decoder.up_blocks.%d.resnets.%d.", block, i);
            bind_residual(&n, next++, in, out);
        }
        if (level > 0) {
            name_layer(&n, "decoder.up_blocks.%d.upsamplers.0.", block);
            bind_resample(&n, next++, true, out, c->temporal[level - 1]);
            in = out / 2;
        }
    }
    bind_ends(&n, "decoder", (int)c->z_dim, first, out, (int)c->out_channels);
    vae->decoder.count = (int)(next - vae->decoder.layers);
    n.prefix[0] = '\0';
    bind_pointwise(&n, &vae->post_quant, c->z_dim, c->z_dim, 5, "post_quant_conv");
}

dk_status dk_wan_vae_bind(dk_wan_vae *vae, unsigned parts, const char *where, dk_error *err)
{
    static const char *const decoder_only[] = {"encoder.*", "quant_conv.*", NULL};
    static const char *const encoder_only[] = {"decoder.*", "post_quant_conv.*", NULL};
    static const char *const none[] = {NULL};
    dk_binder b;
    dk_binder_init(&b, vae->weights, &vae->bound, where);
    vae->bound.device = vae->device != NULL ? vae->bound.device : NULL;
    if (parts & DK_WAN_VAE_DECODER) {
        bind_decoder(vae, &b);
    }
    if (parts & DK_WAN_VAE_ENCODER) {
        bind_encoder(vae, &b);
    }
    const char *const *extras = parts == DK_WAN_VAE_DECODER   ? decoder_only
                                : parts == DK_WAN_VAE_ENCODER ? encoder_only
                                                              : none;
    return dk_binder_finish(&b, extras, err);
}
