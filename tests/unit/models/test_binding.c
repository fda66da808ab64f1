/* Binding checkpoints to models: what is missing, left over, misshapen or of another type is an
   error that names it; what published files are known to carry besides is accepted. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint.h"
#include "device/cpu/cpu_device.h"
#include "models/t5/encoder.h"
#include "models/wan/dit.h"
#include "models/wan/vae_model.h"
#include "scratch.h"

#define SMALL     "tests/golden/wan2.1-t2v/checkpoint/"
#define PUBLISHED "tests/configs/"

/* Creates (and destroys) the model that `config` describes from the weights. */
typedef dk_status try_model(const json_t *config, dk_weights *weights, dk_error *err);

static dk_status try_dit(const json_t *json, dk_weights *weights, dk_error *err)
{
    dk_wan_dit_config config;
    dk_wan_dit *dit = NULL;
    DK_TRY(dk_wan_dit_config_parse(&config, json, "transformer/config.json", err));
    dk_status status = dk_wan_dit_create(&dit, &config, weights, "transformer", err);
    assert_true((status == DK_OK) == (dit != NULL));
    dk_wan_dit_destroy(&dit);
    return status;
}

static dk_status try_t5(const json_t *json, dk_weights *weights, dk_error *err)
{
    dk_t5_config config;
    dk_t5_encoder *encoder = NULL;
    DK_TRY(dk_t5_config_parse(&config, json, "text_encoder/config.json", err));
    dk_status status = dk_t5_encoder_create(&encoder, &config, weights, "text_encoder", err);
    assert_true((status == DK_OK) == (encoder != NULL));
    dk_t5_encoder_destroy(&encoder);
    return status;
}

/* Only the binding: packing a published VAE takes half a gigabyte. */
static dk_status bind_vae(const json_t *json, dk_weights *weights, unsigned parts,
                          dk_error *err)
{
    dk_wan_vae vae = {.weights = weights};
    DK_TRY(dk_wan_vae_config_parse(&vae.config, json, "vae/config.json", err));
    dk_status status = dk_wan_vae_bind(&vae, parts, "vae", err);
    dk_bound_release(&vae.bound);
    dk_free(vae.encoder.layers);
    dk_free(vae.decoder.layers);
    return status;
}

static dk_status try_vae(const json_t *json, dk_weights *weights, dk_error *err)
{
    return bind_vae(json, weights, DK_WAN_VAE_DECODER | DK_WAN_VAE_ENCODER, err);
}

static dk_status try_decoder(const json_t *json, dk_weights *weights, dk_error *err)
{
    return bind_vae(json, weights, DK_WAN_VAE_DECODER, err);
}

typedef struct component {
    const char *name;
    try_model *create;
} component;

static const component components[] = {
    {"transformer", try_dit}, {"text_encoder", try_t5}, {"vae", try_vae}};
enum { COMPONENTS = sizeof components / sizeof *components };

static json_t *load_config(const char *folder, const char *name)
{
    dk_error err;
    char path[256];
    json_t *config;
    snprintf(path, sizeof path, "%s%s/config.json", folder, name);
    assert_ok(dk_json_load(&config, path, DK_JSON_CONFIG_BYTES, &err), err);
    return config;
}

/* The small model's component as a list that can be changed. */
static json_t *load_small(checkpoint *list, const char *name)
{
    dk_error err;
    dk_weights *weights;
    char *path = dk_path_join(SMALL, name);
    assert_ok(dk_weights_open(&weights, path, &err), err);
    checkpoint_copy(list, weights);
    dk_weights_unref(weights);
    dk_free(path);
    return load_config(SMALL, name);
}

static dk_status try_list(const checkpoint *list, const json_t *config, try_model *create,
                          dk_error *err)
{
    char *folder = scratch_create();
    dk_weights *weights = checkpoint_open(list, folder);
    assert_non_null(weights);
    dk_status status = create(config, weights, err);
    dk_weights_unref(weights);
    scratch_remove(folder);
    return status;
}

static void assert_says(const dk_error *err, const char *text)
{
    if (strstr(err->message, text) == NULL) {
        fail_msg("'%s' is not in: %s", text, err->message);
    }
}

static void assert_mismatch(const checkpoint *list, const json_t *config, const component *c,
                            const char *text, const char *more)
{
    dk_error err = {0};
    assert_int_equal(try_list(list, config, c->create, &err), DK_MISMATCH);
    assert_says(&err, c->name);
    assert_says(&err, text);
    assert_says(&err, more);
}

/* Every tensor in turn is missing, then has an axis more, then a type that is no float. */
static void damage_each(const component *c)
{
    dk_error err;
    checkpoint list;
    json_t *config = load_small(&list, c->name);
    assert_ok(try_list(&list, config, c->create, &err), err);
    for (int i = 0; i < list.count; i++) {
        char quoted[256], *name = (char *)list.entries[i].name, *other = dk_strdup(name);
        dk_tensor kept = list.entries[i].tensor;
        snprintf(quoted, sizeof quoted, "'%s'", name);
        other[0] = '_';
        list.entries[i].name = other;
        assert_mismatch(&list, config, c, quoted, "is missing");
        list.entries[i].name = name;
        dk_free(other);
        list.entries[i].tensor.shape[0] += 1;
        assert_mismatch(&list, config, c, quoted, "expected [");
        list.entries[i].tensor = kept;
        list.entries[i].tensor.dtype = DK_I32;
        assert_mismatch(&list, config, c, quoted, "type I32, expected a float");
        list.entries[i].tensor = kept;
    }
    checkpoint_release(&list);
    json_decref(config);
}

static void test_damage(void **state)
{
    (void)state;
    for (int i = 0; i < COMPONENTS; i++) {
        damage_each(&components[i]);
    }
}

/* A matrix that lies on its side, and a vector folded into one. */
static void test_same_count(void **state)
{
    (void)state;
    static const struct {
        int component;
        const char *name;
    } cases[] = {
        {0, "blocks.0.ffn.net.2.weight"},
        {0, "blocks.1.scale_shift_table"},
        {0, "blocks.1.attn1.to_q.bias"},
        {1, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
        {2, "decoder.norm_out.gamma"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const component *c = &components[cases[i].component];
        checkpoint list;
        json_t *config = load_small(&list, c->name);
        dk_tensor *tensor = checkpoint_find(&list, cases[i].name);
        assert_non_null(tensor);
        int64_t count = dk_tensor_count(tensor);
        if (tensor->rank == 2) {
            *tensor = DK_TENSOR(NULL, DK_F32, tensor->shape[1], tensor->shape[0]);
        } else {
            *tensor = DK_TENSOR(NULL, DK_F32, 2, count / 2);
        }
        assert_mismatch(&list, config, c, cases[i].name, "expected [");
        checkpoint_release(&list);
        json_decref(config);
    }
}

/* The first problems are named with both shapes, the others counted. */
static void test_many_problems(void **state)
{
    (void)state;
    dk_error err = {0};
    checkpoint list;
    json_t *config = load_small(&list, "transformer");
    dk_tensor *q = checkpoint_find(&list, "blocks.0.attn1.to_q.weight");
    q->shape[0] -= 1;
    checkpoint_find(&list, "proj_out.weight")->dtype = DK_U8;
    for (int i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%d.attn%d.norm_q.weight", i / 2, 1 + i % 2);
        checkpoint_drop(&list, name);
    }
    checkpoint_add(&list, "surplus.weight", DK_F32, 1, (int64_t[]){3});
    checkpoint_add(&list, "surplus.bias", DK_F32, 1, (int64_t[]){3});
    assert_int_equal(try_list(&list, config, try_dit, &err), DK_MISMATCH);
    assert_says(&err, "transformer: 10 of its tensors do not fit the configuration");
    assert_says(&err, "'blocks.0.attn1.to_q.weight' is [41, 42], expected [42, 42]");
    assert_says(&err, "'blocks.2.attn2.norm_q.weight' is missing");
    assert_says(&err, "'proj_out.weight' has type U8, expected a float type");
    assert_says(&err, "; and 2 more");
    checkpoint_release(&list);
    json_decref(config);
}

static void test_surplus(void **state)
{
    (void)state;
    for (int i = 0; i < COMPONENTS; i++) {
        checkpoint list;
        json_t *config = load_small(&list, components[i].name);
        checkpoint_add(&list, "bogus.weight", DK_F32, 1, (int64_t[]){3});
        assert_mismatch(&list, config, &components[i], "'bogus.weight'", "not a tensor of");
        checkpoint_release(&list);
        json_decref(config);
    }
}

static void test_known_extras(void **state)
{
    (void)state;
    dk_error err;
    checkpoint list;
    const int64_t any[] = {5};
    json_t *config = load_small(&list, "transformer");
    checkpoint_add(&list, "blocks.0.attn2.norm_added_q.weight", DK_F32, 1, any);
    assert_ok(try_list(&list, config, try_dit, &err), err);
    checkpoint_release(&list);
    json_decref(config);

    config = load_small(&list, "text_encoder");
    dk_tensor table = *checkpoint_find(&list, "shared.weight");
    checkpoint_add(&list, "encoder.embed_tokens.weight", DK_F32, 2, table.shape);
    checkpoint_add(&list, "decoder.block.0.layer.0.layer_norm.weight", DK_F32, 1, any);
    checkpoint_add(&list, "lm_head.weight", DK_F32, 2, table.shape);
    assert_ok(try_list(&list, config, try_t5, &err), err);
    checkpoint_drop(&list, "shared.weight");
    assert_ok(try_list(&list, config, try_t5, &err), err);
    checkpoint_drop(&list, "encoder.embed_tokens.weight");
    assert_mismatch(&list, config, &components[1], "'shared.weight' is missing", "");
    checkpoint_release(&list);
    json_decref(config);

    config = load_small(&list, "vae");
    checkpoint_find(&list, "encoder.conv_in.weight")->shape[0] = 1;
    assert_ok(try_list(&list, config, try_decoder, &err), err);
    checkpoint_drop(&list, "encoder.conv_in.weight");
    checkpoint_drop(&list, "quant_conv.bias");
    assert_ok(try_list(&list, config, try_decoder, &err), err);
    checkpoint_release(&list);
    json_decref(config);
}

/* Keys that a class does not know are ignored; those that are absent have its default. */
static void test_config_keys(void **state)
{
    (void)state;
    dk_error err;
    json_t *empty = json_pack("{s:i, s:{}, s:n}", "pooled_projection_dim", 768, "odd",
                              "scalable_attention"),
           *umt5 = json_pack("{s:s, s:b}", "model_type", "umt5", "output_past", 1),
           *z8 = json_pack("{s:i}", "z_dim", 8);
    dk_wan_dit_config dit;
    dk_wan_vae_config vae;
    dk_t5_config t5;
    assert_ok(dk_wan_dit_config_parse(&dit, empty, "c", &err), err);
    assert_true(dit.heads == 40 && dit.head_dim == 128 && dit.layers == 40 &&
                dit.patch[1] == 2);
    assert_true(dit.text_dim == 4096 && dit.ffn_dim == 13824 && dit.freq_dim == 256 &&
                dit.in_channels == 16 && dit.out_channels == 16 && dit.rope_positions == 1024);
    assert_ok(dk_wan_vae_config_parse(&vae, empty, "c", &err), err);
    assert_true(vae.base_dim == 96 && vae.decoder_base_dim == 96 && vae.z_dim == 16 &&
                vae.levels == 4 && vae.spatial_factor == 8 && vae.temporal_factor == 4);
    assert_true(vae.latents_mean[0] == -0.7571 && vae.latents_std[15] == 1.916);
    assert_int_equal(dk_wan_vae_config_parse(&vae, z8, "c", &err), DK_FORMAT);
    assert_ok(dk_t5_config_parse(&t5, umt5, "c", &err), err);
    assert_true(t5.bias_per_layer && t5.vocab_size == 250112 && t5.d_model == 512 &&
                t5.d_ff == 1024 && t5.num_layers == 8 && t5.num_heads == 6);
    assert_int_equal(dk_t5_config_parse(&t5, empty, "c", &err), DK_UNSUPPORTED);
    assert_says(&err, "feed_forward_proj 'relu' is not supported");
    json_decref(empty);
    json_decref(umt5);
    json_decref(z8);
}

/* The published checkpoints, tensor by tensor: nothing asked for that is not there, nothing
   there that is not used. */
static void test_published(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        int component, tensors;
    } cases[] = {
        {"wan2.1-t2v-1.3b", 0, 825},
        {"wan2.1-t2v-1.3b", 1, 242},
        {"wan2.1-t2v-1.3b", 2, 194},
        {"wan2.1-t2v-14b", 0, 1095},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_error err;
        checkpoint list;
        const component *c = &components[cases[i].component];
        char path[256], folder[128], *scratch = scratch_create();
        snprintf(path, sizeof path, PUBLISHED "keys/%s.%s.txt", cases[i].model, c->name);
        snprintf(folder, sizeof folder, PUBLISHED "%s/", cases[i].model);
        checkpoint_read(&list, path);
        assert_int_equal(list.count, cases[i].tensors);
        json_t *config = load_config(folder, c->name);
        dk_weights *weights = checkpoint_open(&list, scratch);
        if (weights == NULL) {
            print_message("%s is left out: no room for so large a sparse file\n", path);
        } else {
            assert_ok(c->create(config, weights, &err), err);
        }
        dk_weights_unref(weights);
        json_decref(config);
        checkpoint_release(&list);
        scratch_remove(scratch);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage),        cmocka_unit_test(test_same_count),
        cmocka_unit_test(test_many_problems), cmocka_unit_test(test_surplus),
        cmocka_unit_test(test_known_extras),  cmocka_unit_test(test_config_keys),
        cmocka_unit_test(test_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
