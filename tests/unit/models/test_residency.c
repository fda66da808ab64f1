/* Published checkpoints stay in their files: opening one and using a layer makes no copy of its
   matrices. The files are sparse and take no room. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint.h"
#include "device/cpu/cpu_device.h"
#include "models/t5/encoder.h"
#include "models/wan/dit.h"
#include "nn/layers.h"
#include "scratch.h"

#define CONFIGS "tests/configs/wan2.1-t2v-1.3b/"
#define KEYS    "tests/configs/keys/wan2.1-t2v-1.3b."

/* Anonymous memory of this process, in bytes. */
static size_t anonymous_bytes(void)
{
    char line[256];
    size_t kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0) {
            kib = strtoul(line + 8, NULL, 10);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib * 1024;
}

/* One linear layer over two rows, with the weights as they are stored. */
static void use_layer(const dk_weights *weights, const char *name)
{
    dk_error err;
    dk_device *device;
    dk_nn nn;
    const dk_weight *weight = dk_weights_find(weights, name);
    assert_non_null(weight);
    dk_nn_linear layer = {.weight = weight->tensor};
    assert_ok(dk_cpu_device_open(&device, &(dk_device_options){.threads = 1}, &err), err);
    dk_nn_init(&nn, device, DK_BF16, NULL);
    for (int dry = 1; dry >= 0; dry--) {
        if (dry) {
            dk_nn_dry_begin(&nn);
        }
        dk_tensor src = dk_nn_temp(&nn, DK_BF16, 2, layer.weight.shape[1]);
        dk_tensor dst = dk_nn_temp(&nn, DK_F32, 2, layer.weight.shape[0]);
        dk_device_zero(device, src.data, dk_tensor_bytes(&src));
        dk_nn_linear_forward(&nn, &layer, &dst, &src, NULL);
        if (dry) {
            assert_ok(dk_nn_dry_end(&nn, &err), err);
        } else {
            assert_ok(dk_device_sync(device, &err), err);
            assert_true(((const float *)dst.data)[1] == 0);
        }
    }
    dk_nn_release(&nn);
    dk_device_close(&device);
}

static void check(const char *component, const char *layer,
                  void (*use)(const json_t *config, dk_weights *weights, const char *layer))
{
    dk_error err;
    checkpoint list;
    json_t *config;
    char path[128], *folder = scratch_create();
    snprintf(path, sizeof path, KEYS "%s.txt", component);
    checkpoint_read(&list, path);
    snprintf(path, sizeof path, CONFIGS "%s/config.json", component);
    assert_ok(dk_json_load(&config, path, DK_JSON_CONFIG_BYTES, &err), err);
    size_t before = anonymous_bytes();
    dk_weights *weights = checkpoint_open(&list, folder);
    if (weights == NULL) {
        print_message("%s is left out: no room for so large a sparse file\n", component);
    } else {
        use(config, weights, layer);
        size_t grown = anonymous_bytes() - before, whole = checkpoint_bytes(&list);
        print_message("%s: %.1f MB anonymous of %.1f GB\n", component, (double)grown / 1e6,
                      (double)whole / 1e9);
    }
    dk_weights_unref(weights);
    json_decref(config);
    checkpoint_release(&list);
    scratch_remove(folder);
}

enum { MOST_PERCENT = 5 };

static void assert_small(size_t before, const dk_weights *weights, const char *layer)
{
    size_t whole = 0, after = anonymous_bytes();
    for (int i = 0; i < dk_weights_count(weights); i++) {
        whole += dk_tensor_bytes(&dk_weights_at(weights, i)->tensor);
    }
    use_layer(weights, layer);
    after = anonymous_bytes();
    if (after > before && after - before > whole / 100 * MOST_PERCENT) {
        fail_msg("%zu bytes of anonymous memory for %zu of weights", after - before, whole);
    }
}

static void use_t5(const json_t *json, dk_weights *weights, const char *layer)
{
    dk_error err;
    dk_t5_config config;
    dk_t5_encoder *encoder;
    size_t before = anonymous_bytes();
    assert_ok(dk_t5_config_parse(&config, json, "config", &err), err);
    assert_ok(dk_t5_encoder_create(&encoder, &config, weights, "text_encoder", &err), err);
    assert_small(before, weights, layer);
    dk_t5_encoder_destroy(&encoder);
}

static void use_dit(const json_t *json, dk_weights *weights, const char *layer)
{
    dk_error err;
    dk_wan_dit_config config;
    dk_wan_dit *dit;
    size_t before = anonymous_bytes();
    assert_ok(dk_wan_dit_config_parse(&config, json, "config", &err), err);
    assert_ok(dk_wan_dit_create(&dit, &config, weights, "transformer", &err), err);
    assert_small(before, weights, layer);
    dk_wan_dit_destroy(&dit);
}

static void test_text_encoder(void **state)
{
    (void)state;
    check("text_encoder", "encoder.block.3.layer.0.SelfAttention.q.weight", use_t5);
}

static void test_transformer(void **state)
{
    (void)state;
    check("transformer", "blocks.7.ffn.net.0.proj.weight", use_dit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_encoder),
        cmocka_unit_test(test_transformer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
