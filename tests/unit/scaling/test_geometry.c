/* Shapes against published counts of weights, and operations against hand arithmetic. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "scaling/geometry.h"

/* Elements of the published transformers. */
static void test_weights(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        double elements;
    } of[] = {{"wan2.1-1.3b", 1418996800},     {"wan2.1-14b", 14288491584},
              {"wan2.1-i2v-14b", 16394878784}, {"wan2.2-5b", 4999787712},
              {"wan2.2-a14b", 14288491584},    {"flux1-dev", 11901408320},
              {"flux1-schnell", 11891178560},  {"flux2-klein-4b", 3875544576},
              {"flux2-klein-9b", 9078581248},  {"qwen-image", 20430401088},
              {"z-image", 6154908736}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        dk_error err;
        dk_geometry g;
        const dk_model_shape *shape = dk_model_preset_find(of[i].model);
        assert_non_null(shape);
        assert_ok(dk_geometry_init(&g, shape, 0, 0, 0, 0, &err), err);
        assert_true(fabs(g.weights / of[i].elements - 1) < 0.001);
    }
    assert_null(dk_model_preset_find("wan2.1"));
}

static dk_geometry geometry_of(const char *model, int64_t side)
{
    dk_error err;
    dk_geometry g;
    assert_ok(dk_geometry_init(&g, dk_model_preset_find(model), side, side, 0, 0, &err), err);
    return g;
}

static void assert_tflops(const dk_geometry *g, double linear, double attention)
{
    assert_true(fabs(dk_geometry_linear_flops(g) * 1e-12 / linear - 1) < 0.005);
    assert_true(fabs(dk_geometry_attention_flops(g) * 1e-12 / attention - 1) < 0.005);
}

/* Wan 1.3B, 81 x 480 x 832: N = 21 * 30 * 52. Per block q, k, v, o 8 N d^2 = 0.618, cross 0.309
   and 0.103 in attention, feed-forward 4 N d f = 1.803, self-attention 4 N^2 d = 6.594 TFLOP.
   FLUX.1: N = 4608; 57 times 24 N d^2 = 1.044 and 4 N^2 d = 0.261. */
static void test_operations(void **state)
{
    (void)state;
    dk_geometry wan = geometry_of("wan2.1-1.3b", 0);
    assert_int_equal(wan.tokens, 32760);
    assert_int_equal(wan.latent_values, 16 * 21 * 60 * 104);
    assert_tflops(&wan, 30 * (0.618 + 0.309 + 1.803), 30 * (6.594 + 0.103));
    dk_geometry flux = geometry_of("flux1-dev", 0);
    assert_int_equal(flux.tokens, 4096);
    assert_tflops(&flux, 57 * 1.0437, 57 * 0.2609);
    dk_geometry klein = geometry_of("flux2-klein-4b", 0);
    assert_true(fabs((dk_geometry_linear_flops(&klein) + dk_geometry_attention_flops(&klein)) /
                         34.8e12 -
                     1) < 0.02);
    dk_geometry z = geometry_of("z-image", 0);
    double flops = dk_geometry_linear_flops(&z) + dk_geometry_attention_flops(&z);
    assert_true(flops > 55.6e12 && flops < 62.5e12);
}

static void test_sizes(void **state)
{
    (void)state;
    dk_error err;
    dk_geometry g;
    const dk_model_shape *wan = dk_model_preset_find("wan2.1-1.3b");
    const dk_model_shape *flux = dk_model_preset_find("flux1-dev");
    assert_int_equal(dk_geometry_init(&g, wan, 833, 480, 81, 0, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "multiples of 16"));
    assert_int_equal(dk_geometry_init(&g, wan, 832, 480, 80, 0, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "1 + a multiple of 4"));
    assert_int_equal(dk_geometry_init(&g, flux, 0, 0, 5, 0, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "accepted is 1"));
}

static dk_status read(dk_model_shape *out, const char *transformer, const char *vae,
                      dk_error *err)
{
    json_t *config = NULL, *of_vae = NULL;
    assert_ok(dk_json_parse(&config, transformer, strlen(transformer), "config", err), *err);
    if (vae != NULL) {
        assert_ok(dk_json_parse(&of_vae, vae, strlen(vae), "vae", err), *err);
    }
    dk_status status = dk_model_shape_read(out, config, of_vae, "config.json", err);
    out->name = "read";
    json_decref(config);
    json_decref(of_vae);
    return status;
}

static void test_folders(void **state)
{
    (void)state;
    static const struct {
        const char *config, *vae, *preset;
    } of[] = {
        {"{\"_class_name\": \"WanTransformer3DModel\", \"attention_head_dim\": 128, "
         "\"ffn_dim\": "
         "13824, \"num_attention_heads\": 40, \"num_layers\": 40, \"out_channels\": 16, "
         "\"image_dim\": null, \"patch_size\": [1, 2, 2]}",
         "{\"dim_mult\": [1, 2, 4, 4], \"temperal_downsample\": [false, true, true]}",
         "wan2.1-14b"},
        {"{\"_class_name\": \"WanTransformer3DModel\", \"attention_head_dim\": 128, "
         "\"ffn_dim\": "
         "14336, \"num_attention_heads\": 24, \"num_layers\": 30, \"out_channels\": 48}",
         "{\"scale_factor_spatial\": 16, \"scale_factor_temporal\": 4}", "wan2.2-5b"},
        {"{\"_class_name\": \"FluxTransformer2DModel\", \"attention_head_dim\": 128, "
         "\"in_channels\": 64, \"num_attention_heads\": 24, \"num_layers\": 19, "
         "\"num_single_layers\": 38}",
         NULL, "flux1-dev"},
        {"{\"_class_name\": \"Flux2Transformer2DModel\", \"attention_head_dim\": 128, "
         "\"in_channels\": 128, \"mlp_ratio\": 3.0, \"num_attention_heads\": 32, "
         "\"num_layers\": 8, \"num_single_layers\": 24}",
         NULL, "flux2-klein-9b"},
        {"{\"_class_name\": \"QwenImageTransformer2DModel\", \"attention_head_dim\": 128, "
         "\"in_channels\": 64, \"num_attention_heads\": 24, \"num_layers\": 60}",
         NULL, "qwen-image"},
        {"{\"_class_name\": \"ZImageTransformer2DModel\", \"dim\": 3840, \"in_channels\": 16, "
         "\"n_heads\": 30, \"n_layers\": 30, \"n_refiner_layers\": 2}",
         NULL, "z-image"},
    };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        dk_error err;
        dk_model_shape got;
        dk_geometry a, b;
        const dk_model_shape *preset = dk_model_preset_find(of[i].preset);
        assert_ok(read(&got, of[i].config, of[i].vae, &err), err);
        assert_ok(dk_geometry_init(&a, &got, preset->width, preset->height, 1, 0, &err), err);
        assert_ok(dk_geometry_init(&b, preset, 0, 0, 1, 0, &err), err);
        assert_int_equal(a.tokens, b.tokens);
        assert_true(a.latent_values == b.latent_values);
        assert_true(dk_geometry_linear_flops(&a) == dk_geometry_linear_flops(&b));
        assert_true(fabs(a.weights / b.weights - 1) < 0.05);
    }
}

static void test_foreign_folders(void **state)
{
    (void)state;
    dk_error err;
    dk_model_shape got;
    assert_int_equal(read(&got, "{\"_class_name\": \"UNet2DConditionModel\"}", NULL, &err),
                     DK_UNSUPPORTED);
    assert_int_equal(read(&got, "{\"_class_name\": \"WanTransformer3DModel\"}", NULL, &err),
                     DK_FORMAT);
    assert_non_null(strstr(err.message, "num_layers"));
    assert_int_equal(read(&got,
                          "{\"_class_name\": \"ZImageTransformer2DModel\", \"dim\": 3841, "
                          "\"in_channels\": 16, \"n_heads\": 30, \"n_layers\": 30, "
                          "\"n_refiner_layers\": 2}",
                          NULL, &err),
                     DK_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),         cmocka_unit_test(test_operations),
        cmocka_unit_test(test_sizes),           cmocka_unit_test(test_folders),
        cmocka_unit_test(test_foreign_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
