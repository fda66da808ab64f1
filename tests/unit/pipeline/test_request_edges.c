/* Requests at and beyond their limits, and first latents from files that do not fit. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "darkroom/darkroom.h"
#include "scratch.h"
#include "weights/safetensors.h"

static const char model[] = "tests/golden/wan2.1-t2v/checkpoint";

static int open_engine(void **state)
{
    dk_error err;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = model;
    options.threads = 1;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    *state = engine;
    return 0;
}

static int close_engine(void **state)
{
    dk_engine *engine = *state;
    dk_engine_close(&engine);
    return 0;
}

static dk_request small(const dk_engine *engine)
{
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "x";
    request.width = request.height = 32;
    request.num_frames = 1;
    request.num_inference_steps = 1;
    return request;
}

static void assert_invalid(dk_engine *engine, dk_request request, const char *says)
{
    dk_error err = {0};
    dk_result result, untouched;
    memset(&untouched, 0x5a, sizeof untouched);
    result = untouched;
    dk_status status = dk_generate(engine, &request, NULL, NULL, &result, &err);
    if (status != DK_INVALID || strstr(err.message, says) == NULL) {
        fail_msg("'%s' is not in: %s", says, err.message);
    }
    assert_memory_equal(&result, &untouched, sizeof result);
}

#define INVALID(field, value, says)                                                            \
    do {                                                                                       \
        dk_request request_ = small(engine);                                                   \
        request_.field = (value);                                                              \
        assert_invalid(engine, request_, says);                                                \
    } while (0)

static void test_ranges(void **state)
{
    dk_engine *engine = *state;
    INVALID(width, 0, "width");
    INVALID(width, -16, "width");
    INVALID(width, 8, "the nearest is 16");
    INVALID(width, 40, "the nearest are 32 and 48");
    INVALID(height, 8193, "height");
    INVALID(height, 24, "height is 24");
    INVALID(num_frames, -1, "num_frames");
    INVALID(num_frames, 4098, "num_frames");
    INVALID(num_inference_steps, 0, "num_inference_steps");
    INVALID(num_inference_steps, 1001, "num_inference_steps");
    INVALID(guidance_scale, -0.5, "guidance_scale");
    INVALID(guidance_scale, INFINITY, "guidance_scale");
    INVALID(flow_shift, 0, "flow_shift");
    INVALID(flow_shift, INFINITY, "flow_shift");
    INVALID(num_outputs_per_prompt, 0, "num_outputs_per_prompt");
    INVALID(num_outputs_per_prompt, 65, "num_outputs_per_prompt");
    INVALID(fps, NAN, "fps");
    INVALID(fps, 241, "fps");
    INVALID(prompt, NULL, "prompt");
    INVALID(prompt, "\xff", "");
    INVALID(negative_prompt, NULL, "negative_prompt");
    INVALID(sampler, "", "sampler");
    INVALID(noise, "", "noise");
}

static void test_long_prompt(void **state)
{
    dk_engine *engine = *state;
    dk_error err;
    dk_result result;
    dk_request request = small(engine);
    char *prompt = dk_alloc(65536 + 2);
    for (int i = 0; i < 65536; i++) {
        prompt[i] = i % 5 == 4 ? ' ' : 'a';
    }
    request.prompt = prompt;
    assert_ok(dk_generate(engine, &request, NULL, NULL, &result, &err), err); /* is cut */
    dk_result_release(&result);
    prompt[65536] = 'a';
    assert_invalid(engine, request, "prompt");
    dk_free(prompt);
    request.prompt = "";
    assert_ok(dk_generate(engine, &request, NULL, NULL, &result, &err), err);
    dk_result_release(&result);
}

static dk_status with_latents(dk_engine *engine, const char *path, const char *name,
                              dk_tensor tensor, int first, dk_error *err)
{
    dk_result result;
    dk_request request = small(engine);
    const dk_safetensors_entry entry = {name, tensor};
    assert_ok(dk_safetensors_write(path, &entry, 1, err), *err);
    request.initial_latents = path;
    request.initial_latents_first = first;
    dk_status status = dk_generate(engine, &request, NULL, NULL, &result, err);
    if (status == DK_OK) {
        dk_result_release(&result);
    }
    return status;
}

static void test_latents(void **state)
{
    dk_engine *engine = *state;
    dk_error err;
    static float values[2 * 16 * 4 * 4];
    char *folder = scratch_create(), *path = dk_path_join(folder, "l.safetensors");
    const dk_tensor good = DK_TENSOR(values, DK_F32, 2, 16, 1, 4, 4);
    assert_ok(with_latents(engine, path, "latents_init", good, 0, &err), err);
    assert_ok(with_latents(engine, path, "any", good, 1, &err), err);
    assert_ok(with_latents(engine, path, "x", DK_TENSOR(values, DK_F32, 16, 1, 4, 4), 0, &err),
              err);
    assert_int_equal(with_latents(engine, path, "x", good, 2, &err), DK_INVALID);
    assert_useful(&err, path);
    const dk_tensor bad[] = {
        DK_TENSOR(values, DK_F32, 0, 16, 1, 4, 4), DK_TENSOR(values, DK_F16, 1, 16, 1, 4, 4),
        DK_TENSOR(values, DK_F32, 16, 4, 4),       DK_TENSOR(values, DK_F32, 1, 1, 16, 1, 4, 4),
        DK_TENSOR(values, DK_F32, 1, 15, 1, 4, 4), DK_TENSOR(values, DK_F32, 1, 16, 1, 2, 8),
        dk_tensor_view(values, DK_F32, 0, NULL)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(with_latents(engine, path, "x", bad[i], 0, &err), DK_FORMAT);
        assert_non_null(strstr(err.message, "expected F32 [1, 16, 1, 4, 4]"));
        assert_useful(&err, path);
    }
    values[37] = INFINITY;
    assert_int_equal(with_latents(engine, path, "x", good, 0, &err), DK_FORMAT);
    assert_non_null(strstr(err.message, "value 37"));
    dk_result result;
    dk_request request = small(engine);
    request.initial_latents = "tests/hostile/safetensors/overlap.safetensors";
    assert_int_equal(dk_generate(engine, &request, NULL, NULL, &result, &err), DK_FORMAT);
    request.initial_latents = "/nonexistent";
    assert_int_equal(dk_generate(engine, &request, NULL, NULL, &result, &err), DK_NOT_FOUND);
    dk_free(path);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_long_prompt),
        cmocka_unit_test(test_latents),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
