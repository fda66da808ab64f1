/* The Wan transformer's configuration and binding table: every tensor of the checkpoint by
   name and shape. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "models/wan/dit_model.h"

static dk_status refuse_variants(const json_t *json, const char *where, dk_error *err)
{
    static const char *const unsupported[] = {"image_dim", "added_kv_proj_dim",
                                              "pos_embed_seq_len"};
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const json_t *value = json_object_get(json, unsupported[i]);
        if (value != NULL && !json_is_null(value)) {
            return dk_fail(err, DK_UNSUPPORTED,
                           "%s: '%s' is set: image-to-video transformers are not supported, "
                           "accepted is null",
                           where, unsupported[i]);
        }
    }
    static const char *const classes[] = {"WanTransformer3DModel", NULL};
    static const char *const norms[] = {"rms_norm_across_heads", NULL};
    DK_TRY(dk_json_choice(json, "_class_name", classes, where, err));
    return dk_json_choice(json, "qk_norm", norms, where, err);
}

dk_status dk_wan_dit_config_parse(dk_wan_dit_config *out, const json_t *json, const char *where,
                                  dk_error *err)
{
    dk_wan_dit_config c = {.patch = {1, 2, 2},
                           .heads = 40,
                           .head_dim = 128,
                           .in_channels = 16,
                           .text_dim = 4096,
                           .freq_dim = 256,
                           .ffn_dim = 13824,
                           .layers = 40,
                           .rope_positions = 1024,
                           .cross_attn_norm = true};
    double eps = 1e-6;
    int count = 3;
    const unsigned maybe_null = DK_JSON_NULL_IS_ABSENT;
    DK_TRY(refuse_variants(json, where, err));
    DK_TRY(dk_json_ints(json, "patch_size", 3, 3, 1, 64, 0, c.patch, &count, where, err));
    DK_TRY(dk_json_int(json, "num_attention_heads", 1, 1024, 0, &c.heads, where, err));
    DK_TRY(dk_json_int(json, "attention_head_dim", 2, 512, 0, &c.head_dim, where, err));
    DK_TRY(dk_json_int(json, "in_channels", 1, 4096, 0, &c.in_channels, where, err));
    c.out_channels = c.in_channels;
    DK_TRY(dk_json_int(json, "out_channels", 1, 4096, maybe_null, &c.out_channels, where, err));
    DK_TRY(dk_json_int(json, "text_dim", 1, 1 << 16, 0, &c.text_dim, where, err));
    DK_TRY(dk_json_int(json, "freq_dim", 2, 4096, 0, &c.freq_dim, where, err));
    DK_TRY(dk_json_int(json, "ffn_dim", 1, 1 << 18, 0, &c.ffn_dim, where, err));
    DK_TRY(dk_json_int(json, "num_layers", 1, 1024, 0, &c.layers, where, err));
    DK_TRY(dk_json_int(json, "rope_max_seq_len", 1, 1 << 20, 0, &c.rope_positions, where, err));
    DK_TRY(dk_json_bool(json, "cross_attn_norm", 0, &c.cross_attn_norm, where, err));
    DK_TRY(dk_json_double(json, "eps", 0, 1, 0, &eps, where, err));
    if (c.head_dim % 2 != 0 || c.freq_dim % 2 != 0 || c.in_channels != c.out_channels) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: head dimension %lld, freq_dim %lld, %lld channels in and %lld out: "
                       "the first two must be even, the others equal",
                       where, (long long)c.head_dim, (long long)c.freq_dim,
                       (long long)c.in_channels, (long long)c.out_channels);
    }
    c.eps = (float)eps;
    *out = c;
    return DK_OK;
}

dk_status dk_wan_dit_check_layout(const dk_wan_dit_config *config, const dk_layout *layout,
                                  const char *where, dk_error *err)
{
    int tp = layout->tp, ulysses = layout->ulysses;
    long long heads = (long long)config->heads;
    if (heads < tp) {
        return dk_fail(err, DK_INVALID,
                       "%s: tp_size is %d, but the transformer has %lld heads to share out, "
                       "accepted are 1 to %lld",
                       where, tp, heads, heads);
    }
    if (heads / tp < ulysses) {
        return dk_fail(err, DK_INVALID,
                       "%s: ulysses_degree is %d, but with tp_size %d a rank has %lld heads to "
                       "share out, accepted are 1 to %lld; ring_degree has no such limit",
                       where, ulysses, tp, heads / tp, heads / tp);
    }
    return DK_OK;
}

static void bind_split(dk_binder *b, dk_nn_linear *linear, int64_t out, int64_t in,
                       dk_nn_split split, int64_t unit, const char *prefix, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    dk_nn_bind_linear(b, linear, out, in, split, unit, true, full);
}

static void bind_linear(dk_binder *b, dk_nn_linear *linear, int64_t out, int64_t in,
                        const char *prefix, const char *name)
{
    bind_split(b, linear, out, in, DK_NN_WHOLE, 1, prefix, name);
}

static void bind_attention(dk_binder *b, dk_wan_attention *attention,
                           const dk_wan_dit_config *c, int block, const char *name)
{
    int64_t dim = c->heads * c->head_dim, head = c->head_dim;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "blocks.%d.%s.", block, name);
    bind_split(b, &attention->to_q, dim, dim, DK_NN_OUTPUTS, head, prefix, "to_q");
    bind_split(b, &attention->to_k, dim, dim, DK_NN_OUTPUTS, head, prefix, "to_k");
    bind_split(b, &attention->to_v, dim, dim, DK_NN_OUTPUTS, head, prefix, "to_v");
    bind_split(b, &attention->to_out, dim, dim, DK_NN_INPUTS, head, prefix, "to_out.0");
    dk_bind_f32_part(b, &attention->norm_q, dim, head, "%snorm_q.weight", prefix);
    dk_bind_f32_part(b, &attention->norm_k, dim, head, "%snorm_k.weight", prefix);
}

static void bind_block(dk_binder *b, const dk_wan_dit_config *c, dk_wan_block *block, int i)
{
    int64_t dim = c->heads * c->head_dim;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "blocks.%d.", i);
    bind_attention(b, &block->attn1, c, i, "attn1");
    bind_attention(b, &block->attn2, c, i, "attn2");
    if (c->cross_attn_norm) {
        dk_bind_f32(b, &block->norm2, dim, "%snorm2.weight", prefix);
        dk_bind_f32(b, &block->norm2_bias, dim, "%snorm2.bias", prefix);
    }
    bind_split(b, &block->ffn_in, c->ffn_dim, dim, DK_NN_OUTPUTS, 1, prefix, "ffn.net.0.proj");
    bind_split(b, &block->ffn_out, dim, c->ffn_dim, DK_NN_INPUTS, 1, prefix, "ffn.net.2");
    dk_bind_f32_table(b, &block->scale_shift, 6, dim, "%sscale_shift_table", prefix);
}

dk_status dk_wan_dit_quantize(dk_wan_dit *dit, const dk_nn_quantizer *quantizer, dk_error *err)
{
    dk_nn_quantizer q = *quantizer;
    q.out = &dit->quantized;
    for (int64_t i = 0; i < dit->config.layers; i++) {
        dk_wan_block *block = &dit->blocks[i];
        const struct {
            dk_nn_linear *layer;
            const char *name;
        } layers[] = {
            {&block->attn1.to_q, "attn1.to_q"}, {&block->attn1.to_k, "attn1.to_k"},
            {&block->attn1.to_v, "attn1.to_v"}, {&block->attn1.to_out, "attn1.to_out.0"},
            {&block->attn2.to_q, "attn2.to_q"}, {&block->attn2.to_k, "attn2.to_k"},
            {&block->attn2.to_v, "attn2.to_v"}, {&block->attn2.to_out, "attn2.to_out.0"},
            {&block->ffn_in, "ffn.net.0.proj"}, {&block->ffn_out, "ffn.net.2"},
        };
        for (size_t n = 0; n < sizeof layers / sizeof *layers; n++) {
            char name[64];
            snprintf(name, sizeof name, "blocks.%lld.%s", (long long)i, layers[n].name);
            DK_TRY(dk_nn_quantize(&q, layers[n].layer, name, err));
        }
    }
    return DK_OK;
}

const dk_nn_quantized *dk_wan_dit_quantized(const dk_wan_dit *dit)
{
    return &dit->quantized;
}

dk_status dk_wan_dit_bind(dk_wan_dit *dit, const char *where, dk_error *err)
{
    /* norm_added_q is stored by some writers and used by none. */
    static const char *const extras[] = {"*.norm_added_q.weight", NULL};
    const dk_wan_dit_config *c = &dit->config;
    int64_t dim = c->heads * c->head_dim;
    int64_t patch = c->patch[0] * c->patch[1] * c->patch[2];
    const char *condition = "condition_embedder.";
    dk_binder b;
    dk_binder_init(&b, dit->weights, &dit->bound, where);
    dit->tp = b.comm;
    dit->heads = dk_weight_part_of(b.comm, c->heads, 1).count;
    dit->ffn_dim = dk_weight_part_of(b.comm, c->ffn_dim, 1).count;
    dk_bind_tensor(&b, &dit->patch_embedding.weight, 5,
                   (int64_t[]){dim, c->in_channels, c->patch[0], c->patch[1], c->patch[2]},
                   "patch_embedding.weight");
    dk_bind_f32(&b, &dit->patch_embedding.bias, dim, "patch_embedding.bias");
    bind_linear(&b, &dit->time_1, dim, c->freq_dim, condition, "time_embedder.linear_1");
    bind_linear(&b, &dit->time_2, dim, dim, condition, "time_embedder.linear_2");
    bind_linear(&b, &dit->time_proj, 6 * dim, dim, condition, "time_proj");
    bind_linear(&b, &dit->text_1, dim, c->text_dim, condition, "text_embedder.linear_1");
    bind_linear(&b, &dit->text_2, dim, dim, condition, "text_embedder.linear_2");
    for (int i = 0; i < c->layers; i++) {
        bind_block(&b, c, &dit->blocks[i], i);
    }
    dk_bind_f32_table(&b, &dit->scale_shift, 2, dim, "scale_shift_table");
    bind_linear(&b, &dit->proj_out, c->out_channels * patch, dim, "", "proj_out");
    return dk_binder_finish(&b, extras, err);
}
