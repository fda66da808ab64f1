/* T5 and UMT5 encoders: pre-norm blocks of attention with relative position bias (no scaling of
   the scores) and a gated feed-forward. */
#include "models/t5/encoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "nn/layers.h"
#include "weights/binder.h"

typedef struct t5_layer {
    const float *attention_norm, *ffn_norm; /* [d_model] */
    dk_nn_linear q, k, v, o;
    const float *relative_bias; /* [buckets][heads]; NULL: the first layer's */
    dk_nn_linear wi_0, wi_1, wo;
} t5_layer;

struct dk_t5_encoder {
    dk_t5_config config;
    dk_weights *weights;
    dk_bound bound;           /* owns the f32 parameters */
    dk_weight_part heads, ff; /* this rank's */
    dk_tensor embedding;
    const float *final_norm;
    t5_layer *layers; /* [num_layers] */
};

dk_status dk_t5_config_parse(dk_t5_config *out, const json_t *json, const char *where,
                             dk_error *err)
{
    dk_t5_config c = {.vocab_size = 32128,
                      .d_model = 512,
                      .d_kv = 64,
                      .d_ff = 2048,
                      .num_layers = 6,
                      .num_heads = 8,
                      .num_buckets = 32,
                      .max_distance = 128,
                      .layer_norm_epsilon = 1e-6};
    const char *model_type = "t5", *projection = "relu";
    static const char *const types[] = {"t5", "umt5", NULL};
    DK_TRY(dk_json_choice(json, "model_type", types, where, err));
    DK_TRY(dk_json_string(json, "model_type", 0, &model_type, where, err));
    c.bias_per_layer = strcmp(model_type, "umt5") == 0;
    if (c.bias_per_layer) {
        c.vocab_size = 250112;
        c.d_ff = 1024;
        c.num_layers = 8;
        c.num_heads = 6;
        projection = "gated-gelu";
    }
    DK_TRY(dk_json_string(json, "feed_forward_proj", 0, &projection, where, err));
    DK_TRY(dk_json_int(json, "vocab_size", 1, 1 << 24, 0, &c.vocab_size, where, err));
    DK_TRY(dk_json_int(json, "d_model", 1, 1 << 16, 0, &c.d_model, where, err));
    DK_TRY(dk_json_int(json, "d_kv", 1, 512, 0, &c.d_kv, where, err));
    DK_TRY(dk_json_int(json, "d_ff", 1, 1 << 18, 0, &c.d_ff, where, err));
    DK_TRY(dk_json_int(json, "num_layers", 1, 1024, 0, &c.num_layers, where, err));
    DK_TRY(dk_json_int(json, "num_heads", 1, 1024, 0, &c.num_heads, where, err));
    DK_TRY(dk_json_int(json, "relative_attention_num_buckets", 4, 1 << 16, 0, &c.num_buckets,
                       where, err));
    DK_TRY(dk_json_int(json, "relative_attention_max_distance", 2, 1 << 20, 0, &c.max_distance,
                       where, err));
    DK_TRY(
        dk_json_double(json, "layer_norm_epsilon", 0, 1, 0, &c.layer_norm_epsilon, where, err));
    if (strcmp(projection, "gated-gelu") != 0) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: feed_forward_proj '%s' is not supported, accepted is 'gated-gelu'",
                       where, projection);
    }
    if (c.num_buckets % 4 != 0 || c.max_distance <= c.num_buckets / 4) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: %lld relative position buckets up to distance %lld, accepted is a "
                       "multiple of 4 and a distance above a quarter of it",
                       where, (long long)c.num_buckets, (long long)c.max_distance);
    }
    *out = c;
    return DK_OK;
}

static void bind_layer(dk_binder *b, const dk_t5_config *c, t5_layer *layer, int i)
{
    int64_t inner = c->num_heads * c->d_kv;
    struct {
        dk_nn_linear *linear;
        const char *name;
        int64_t rows, cols;
        dk_nn_split split;
        int64_t unit;
    } linears[] = {
        {&layer->q, "layer.0.SelfAttention.q", inner, c->d_model, DK_NN_OUTPUTS, c->d_kv},
        {&layer->k, "layer.0.SelfAttention.k", inner, c->d_model, DK_NN_OUTPUTS, c->d_kv},
        {&layer->v, "layer.0.SelfAttention.v", inner, c->d_model, DK_NN_OUTPUTS, c->d_kv},
        {&layer->o, "layer.0.SelfAttention.o", c->d_model, inner, DK_NN_INPUTS, c->d_kv},
        {&layer->wi_0, "layer.1.DenseReluDense.wi_0", c->d_ff, c->d_model, DK_NN_OUTPUTS, 1},
        {&layer->wi_1, "layer.1.DenseReluDense.wi_1", c->d_ff, c->d_model, DK_NN_OUTPUTS, 1},
        {&layer->wo, "layer.1.DenseReluDense.wo", c->d_model, c->d_ff, DK_NN_INPUTS, 1},
    };
    for (size_t n = 0; n < sizeof linears / sizeof *linears; n++) {
        char name[96];
        snprintf(name, sizeof name, "encoder.block.%d.%s", i, linears[n].name);
        dk_nn_bind_linear(b, linears[n].linear, linears[n].rows, linears[n].cols,
                          linears[n].split, linears[n].unit, false, name);
    }
    dk_bind_f32(b, &layer->attention_norm, c->d_model,
                "encoder.block.%d.layer.0.layer_norm.weight", i);
    dk_bind_f32(b, &layer->ffn_norm, c->d_model, "encoder.block.%d.layer.1.layer_norm.weight",
                i);
    if (c->bias_per_layer || i == 0) {
        dk_bind_f32_table(
            b, &layer->relative_bias, c->num_buckets, c->num_heads,
            "encoder.block.%d.layer.0.SelfAttention.relative_attention_bias.weight", i);
    }
}

dk_status dk_t5_encoder_create(dk_t5_encoder **out, const dk_t5_config *config,
                               dk_weights *weights, const char *where, dk_error *err)
{
    static const char *const extras[] = {"decoder.*", "lm_head.weight",
                                         "encoder.embed_tokens.weight", "shared.weight", NULL};
    dk_t5_encoder *encoder = dk_alloc(sizeof *encoder);
    encoder->config = *config;
    encoder->weights = dk_weights_ref(weights);
    encoder->layers = dk_alloc((size_t)config->num_layers * sizeof *encoder->layers);
    dk_binder b;
    dk_binder_init(&b, weights, &encoder->bound, where);
    encoder->heads = dk_weight_part_of(b.comm, config->num_heads, 1);
    encoder->ff = dk_weight_part_of(b.comm, config->d_ff, 1);
    const char *table = "shared.weight", *other = "encoder.embed_tokens.weight";
    table = !dk_binder_has(&b, table) && dk_binder_has(&b, other) ? other : table;
    dk_bind_tensor(&b, &encoder->embedding, 2, (int64_t[]){config->vocab_size, config->d_model},
                   "%s", table);
    for (int i = 0; i < config->num_layers; i++) {
        bind_layer(&b, config, &encoder->layers[i], i);
    }
    dk_bind_f32(&b, &encoder->final_norm, config->d_model, "encoder.final_layer_norm.weight");
    dk_status status = dk_binder_finish(&b, extras, err);
    if (status != DK_OK) {
        dk_t5_encoder_destroy(&encoder);
        return status;
    }
    *out = encoder;
    return DK_OK;
}

void dk_t5_encoder_destroy(dk_t5_encoder **encoder)
{
    if (*encoder != NULL) {
        dk_bound_release(&(*encoder)->bound);
        dk_weights_unref((*encoder)->weights);
        dk_free((*encoder)->layers);
        dk_free(*encoder);
        *encoder = NULL;
    }
}

const dk_t5_config *dk_t5_encoder_config(const dk_t5_encoder *encoder)
{
    return &encoder->config;
}

/* The bucket of a key `distance` places after the query: half the buckets for each direction,
   exact up to a quarter, then logarithmic; float steps as the reference takes them. */
static int bucket_of(const dk_t5_config *c, int distance)
{
    int half = (int)c->num_buckets / 2, exact = half / 2;
    int offset = distance > 0 ? half : 0;
    int n = distance < 0 ? -distance : distance;
    if (n < exact) {
        return offset + n;
    }
    float scale = (float)log((double)c->max_distance / exact);
    int large = exact + (int)(logf((float)n / (float)exact) / scale * (float)(half - exact));
    return offset + (large < half - 1 ? large : half - 1);
}

/* table: [this rank's heads][2 count - 1], distance -(count - 1) first. */
static dk_nn_bias position_bias(dk_nn *nn, const dk_t5_encoder *encoder, const float *weight,
                                int count, const dk_tensor *table, float *host)
{
    const dk_t5_config *c = &encoder->config;
    int64_t width = 2 * (int64_t)count - 1;
    if (!nn->device->dry) {
        for (int d = 1 - count; d < count; d++) {
            const float *row = &weight[bucket_of(c, d) * c->num_heads + encoder->heads.begin];
            for (int64_t h = 0; h < encoder->heads.count; h++) {
                host[h * width + d + count - 1] = row[h];
            }
        }
    }
    dk_device_write(nn->device, table->data, host, dk_tensor_bytes(table));
    return (dk_nn_bias){
        .values = (const float *)table->data + count - 1, .head = width, .q = -1, .k = 1};
}

static void attention(dk_nn *nn, const dk_t5_encoder *encoder, const t5_layer *layer,
                      const dk_tensor *x, const dk_tensor *h, const dk_nn_bias *bias)
{
    int64_t rows = x->shape[0], inner = encoder->heads.count * encoder->config.d_kv;
    dk_tensor q = dk_nn_temp(nn, nn->type, rows, inner);
    dk_tensor k = dk_nn_temp(nn, nn->type, rows, inner);
    dk_tensor v = dk_nn_temp(nn, nn->type, rows, inner);
    dk_tensor mixed = dk_nn_temp(nn, nn->type, rows, inner);
    const dk_nn_linear_call qkv[] = {
        {&layer->q, &q, NULL}, {&layer->k, &k, NULL}, {&layer->v, &v, NULL}};
    dk_nn_linear_group(nn, h, qkv, 3);
    dk_nn_attention(nn, &mixed, &q, &k, &v, (int)encoder->heads.count, 1.0f, bias);
    dk_nn_linear_forward(nn, &layer->o, x, &mixed, &(dk_nn_epilogue){.residual = true});
}

static void feed_forward(dk_nn *nn, const dk_t5_encoder *encoder, const t5_layer *layer,
                         const dk_tensor *x, const dk_tensor *h)
{
    dk_tensor up = dk_nn_temp(nn, nn->type, x->shape[0], encoder->ff.count);
    dk_tensor gated = dk_nn_temp(nn, nn->type, x->shape[0], encoder->ff.count);
    const dk_nn_epilogue gate = {.activation = DK_ACT_GELU_TANH, .multiply = &up};
    const dk_nn_linear_call in[] = {{&layer->wi_1, &up, NULL}, {&layer->wi_0, &gated, &gate}};
    dk_nn_linear_group(nn, h, in, 2);
    dk_nn_linear_forward(nn, &layer->wo, x, &gated, &(dk_nn_epilogue){.residual = true});
}

static dk_status pass(dk_nn *nn, const dk_t5_encoder *encoder, const dk_tensor *dst,
                      const int32_t *ids, int count, dk_error *err)
{
    const dk_t5_config *c = &encoder->config;
    const dk_nn_guard *guard = &nn->guards[DK_COMPONENT_TEXT_ENCODER];
    size_t mark = dk_nn_mark(nn);
    dk_tensor h = dk_nn_temp(nn, nn->type, count, c->d_model);
    dk_tensor table = dk_nn_temp(nn, DK_F32, encoder->heads.count, 2 * (int64_t)count - 1);
    void *host;
    DK_TRY(dk_try_alloc(&host, dk_tensor_bytes(&table), "position bias", err));
    dk_nn_norm norm = {.kind = DK_NORM_RMS, .eps = (float)c->layer_norm_epsilon};
    dk_device_embedding(nn->device, &(dk_embedding_args){.rows = count,
                                                         .cols = c->d_model,
                                                         .ids = ids,
                                                         .table = encoder->embedding.data,
                                                         .table_type = encoder->embedding.dtype,
                                                         .dst = dst->data});
    dk_nn_bias bias = {0};
    dk_status status = DK_OK;
    for (int i = 0; i < c->num_layers && status == DK_OK; i++) {
        const t5_layer *layer = &encoder->layers[i];
        size_t inner = dk_nn_mark(nn);
        if (layer->relative_bias != NULL) {
            bias = position_bias(nn, encoder, layer->relative_bias, count, &table, host);
        }
        dk_nn_guard_begin(guard, i);
        norm.weight = layer->attention_norm;
        dk_nn_norm_forward(nn, &norm, &h, dst);
        attention(nn, encoder, layer, dst, &h, &bias);
        dk_nn_unwind(nn, inner);
        norm.weight = layer->ffn_norm;
        dk_nn_norm_forward(nn, &norm, &h, dst);
        feed_forward(nn, encoder, layer, dst, &h);
        dk_nn_unwind(nn, inner);
        dk_nn_guard_end(guard, i, dst);
        status = dk_nn_check(nn, err);
    }
    if (status == DK_OK) { /* a failure is reported, and with that forgotten by the device */
        norm.weight = encoder->final_norm;
        dk_nn_norm_forward(nn, &norm, dst, dst);
    }
    dk_free(host);
    dk_nn_unwind(nn, mark);
    return status;
}

dk_status dk_t5_encoder_forward(dk_nn *nn, const dk_t5_encoder *encoder, const dk_tensor *dst,
                                const int32_t *ids, int count, dk_error *err)
{
    dk_nn_guard *guard = &nn->guards[DK_COMPONENT_TEXT_ENCODER];
    DK_TRY(dk_nn_guard_open(guard, nn->device, (int)encoder->config.num_layers, err));
    dk_nn_guard_clear(guard);
    for (bool again = true; again;) {
        DK_TRY(pass(nn, encoder, dst, ids, count, err));
        DK_TRY(dk_nn_look(nn, DK_COMPONENT_TEXT_ENCODER, &again, err));
    }
    return DK_OK;
}
