/* Fuzz target: the configurations of every component and model_index.json. What a model's
   parser accepts is also bound to the weights of the small golden model (the working directory
   is the root of the tree). */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "fuzz_folder.h"
#include "models/t5/encoder.h"
#include "models/wan/dit.h"
#include "models/wan/vae_model.h"
#include "samplers/sampler.h"
#include "weights/model_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MODEL "tests/golden/wan2.1-t2v/checkpoint/"

enum { STEPS = 4 };

static const char *const names[] = {"model_index.json", NULL};

static dk_weights *dit_weights, *t5_weights, *vae_weights;

static void end(void)
{
    dk_weights_unref(dit_weights);
    dk_weights_unref(t5_weights);
    dk_weights_unref(vae_weights);
    fuzz_folder_remove(names);
}

static void begin(void)
{
    if (dit_weights == NULL) {
        if (dk_weights_open(&dit_weights, MODEL "transformer", NULL) != DK_OK ||
            dk_weights_open(&t5_weights, MODEL "text_encoder", NULL) != DK_OK ||
            dk_weights_open(&vae_weights, MODEL "vae", NULL) != DK_OK) {
            abort();
        }
        fuzz_folder_open(end);
    }
}

static void try_dit(const json_t *json)
{
    dk_wan_dit_config config;
    dk_wan_dit *dit;
    if (dk_wan_dit_config_parse(&config, json, "input", NULL) == DK_OK &&
        dk_wan_dit_create(&dit, &config, dit_weights, "input", NULL) == DK_OK) {
        dk_wan_dit_destroy(&dit);
    }
}

static void try_t5(const json_t *json)
{
    dk_t5_config config;
    dk_t5_encoder *encoder;
    if (dk_t5_config_parse(&config, json, "input", NULL) == DK_OK &&
        dk_t5_encoder_create(&encoder, &config, t5_weights, "input", NULL) == DK_OK) {
        dk_t5_encoder_destroy(&encoder);
    }
}

/* Only bound: packing would need a device. */
static void try_vae(const json_t *json)
{
    dk_wan_vae vae = {.weights = vae_weights};
    if (dk_wan_vae_config_parse(&vae.config, json, "input", NULL) == DK_OK) {
        unsigned parts = DK_WAN_VAE_DECODER | DK_WAN_VAE_ENCODER;
        if (dk_wan_vae_bind(&vae, parts, "input", NULL) == DK_OK && vae.decoder.count < 1) {
            abort();
        }
        dk_bound_release(&vae.bound);
        dk_free(vae.encoder.layers);
        dk_free(vae.decoder.layers);
    }
}

static void try_sampler(const json_t *json)
{
    static const char *const kinds[] = {NULL, "euler", "unipc", "dpm++"};
    for (int i = 0; i < 4; i++) {
        const dk_sampler_options options = {
            .name = kinds[i], .flow_shift = i == 0 ? 3 : NAN, .mu = NAN, .steps = STEPS};
        dk_sampler *sampler;
        if (dk_sampler_create(&sampler, json, &options, "input", NULL) == DK_OK) {
            if (dk_sampler_steps(sampler) < 1) {
                abort();
            }
            dk_sampler_destroy(&sampler);
        }
    }
}

static void try_index(const uint8_t *data, size_t size)
{
    dk_model_folder *folder;
    fuzz_put(names[0], data, size);
    if (dk_model_folder_open(&folder, fuzz_folder, NULL) == DK_OK) {
        if (dk_model_folder_class(folder) == NULL) {
            abort();
        }
        dk_model_folder_has(folder, "transformer_2");
        dk_model_folder_close(&folder);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json;
    begin();
    if (dk_json_parse(&json, (const char *)data, size, "input", NULL) == DK_OK) {
        try_dit(json);
        try_t5(json);
        try_vae(json);
        try_sampler(json);
        json_decref(json);
    }
    try_index(data, size);
    return 0;
}
