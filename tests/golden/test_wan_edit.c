/* Requests with a picture against diffusers' WanVideoToVideoPipeline, tensor by tensor: the
   files of tests/golden/wan2.1-edit, made by its make_edit.py. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "darkroom/darkroom.h"
#include "golden/golden.h"
#include "scratch.h"

#define FAMILY "wan2.1-edit"

/* As in test_wan_pipeline.c; the encoder's 1e-4 is for moments of unit spread. */
static const double LATENT = 5e-4, FRAME = 1e-3;

static const char *text_of(const json_t *one, const char *key)
{
    return json_string_value(json_object_get(one, key));
}

static int number_of(const json_t *one, const char *key)
{
    return (int)json_integer_value(json_object_get(one, key));
}

static void compare(const dk_safetensors *expected, const char *name,
                    const dk_safetensors *actual, const char *dumped, double most)
{
    const dk_tensor *wanted = golden_tensor(expected, "%s", name);
    const dk_tensor *is = golden_tensor(actual, "%s", dumped);
    assert_int_equal(dk_tensor_count(wanted), dk_tensor_count(is));
    assert_close(name, is->data, wanted->data, dk_tensor_count(is), most, 0);
}

static void compare_all(const json_t *one, const dk_safetensors *expected,
                        const dk_safetensors *actual)
{
    int kept = number_of(one, "kept"), begin = number_of(one, "num_inference_steps") - kept;
    int calls = json_number_value(json_object_get(one, "guidance_scale")) > 1 ? 2 : 1;
    char name[64], dumped[64];
    compare(expected, "image_latents", actual, "image_latents", LATENT);
    compare(expected, "noise", actual, "noise", 1e-6);
    compare(expected, "latents_init", actual, "latents_init", LATENT);
    for (int i = 0; i < kept; i++) {
        assert_true(golden_floats(expected, "timesteps")[i] ==
                    golden_floats(actual, "timesteps")[begin + i]);
        for (int k = 0; k < calls; k++) {
            snprintf(name, sizeof name, "model_out.%d", calls * i + k);
            snprintf(dumped, sizeof dumped, "model_out.%d", calls * (begin + i) + k);
            compare(expected, name, actual, dumped, LATENT);
        }
        snprintf(name, sizeof name, "latents.%d", i);
        snprintf(dumped, sizeof dumped, "latents.%d", begin + i);
        compare(expected, name, actual, dumped, LATENT);
    }
    compare(expected, "frames", actual, "frames", FRAME);
}

static void run_case(dk_engine *engine, const json_t *one, const char *dump)
{
    char file[64];
    dk_error err;
    dk_request request;
    dk_result result;
    dk_safetensors *actual = NULL;
    print_message("%s\n", text_of(one, "name"));
    dk_request_init(&request, engine);
    request.prompt = text_of(one, "prompt");
    request.negative_prompt = text_of(one, "negative_prompt");
    request.sampler = text_of(one, "sampler");
    request.width = 48;
    request.height = 32;
    request.num_frames = number_of(one, "num_frames");
    request.num_inference_steps = number_of(one, "num_inference_steps");
    request.strength = json_number_value(json_object_get(one, "strength"));
    request.guidance_scale = json_number_value(json_object_get(one, "guidance_scale"));
    request.seed = (uint64_t)number_of(one, "seed");
    request.image_path = "tests/golden/" FAMILY "/picture.png";
    request.dump_tensors = dump;
    assert_ok(dk_generate(engine, &request, NULL, NULL, &result, &err), err);
    assert_ok(dk_safetensors_open(&actual, dump, &err), err);
    snprintf(file, sizeof file, "%s.safetensors", text_of(one, "name"));
    dk_safetensors *expected = golden_open(FAMILY, file);
    compare_all(one, expected, actual);
    dk_safetensors_close(&expected);
    dk_safetensors_close(&actual);
    dk_result_release(&result);
}

static void all_cases(void **state)
{
    (void)state;
    dk_error err;
    dk_engine *engine = NULL;
    dk_engine_options options;
    char *folder = scratch_create(), *dump = scratch_path(folder, "dump.safetensors");
    json_t *cases = golden_cases(FAMILY);
    dk_engine_options_init(&options);
    options.model_path = "tests/golden/wan2.1-t2v/checkpoint";
    options.device = golden_device_name();
    options.dtype = "f32";
    options.cpu_level = golden_cpu_level();
    options.threads = 2;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        run_case(engine, json_array_get(cases, i), dump);
    }
    dk_engine_close(&engine);
    json_decref(cases);
    dk_free(dump);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_cases)};
    return golden_level_is_here() ? cmocka_run_group_tests(tests, NULL, NULL) : GOLDEN_SKIPPED;
}
