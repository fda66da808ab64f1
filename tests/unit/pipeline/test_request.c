/* The public API around a generation: checking requests, and stopping. */
#include <math.h>
#include <string.h>

#include "darkroom/darkroom.h"
#include "test.h"

static const char model[] = "tests/golden/wan2.1-t2v/checkpoint";

static dk_engine *open_engine(dk_cancel *cancel)
{
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_error err;
    dk_engine_options_init(&options);
    options.model_path = model;
    options.threads = 1;
    options.cancel = cancel;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    return engine;
}

static dk_request small_request(const dk_engine *engine)
{
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "x";
    request.width = request.height = 32;
    request.num_frames = 1;
    request.num_inference_steps = 2;
    return request;
}

static void count_warnings(void *context, const dk_event *event)
{
    *(int *)context += event->kind == DK_EVENT_WARNING;
}

static void requests_are_checked(void **state)
{
    (void)state;
    dk_engine *engine = open_engine(NULL);
    dk_error err;
    int warnings = 0;
    dk_request request = small_request(engine);
    request.num_frames = 6;
    assert_ok(dk_request_check(&request, engine, count_warnings, &warnings, &err), err);
    assert_true(request.num_frames == 5 && warnings == 1);
    assert_ok(dk_request_check(&request, engine, count_warnings, &warnings, &err), err);
    assert_int_equal(warnings, 1);
    dk_request bad[9];
    for (int i = 0; i < 9; i++) {
        bad[i] = small_request(engine);
    }
    bad[0].prompt = NULL;
    bad[1].width = 33;
    bad[2].num_frames = 0;
    bad[3].guidance_scale = NAN;
    bad[4].fps = 0;
    bad[5].noise = "white";
    bad[6].sampler = "ddim";
    bad[7].initial_latents_first = -1;
    bad[8].vae_tile_size = 40;
    for (int i = 0; i < 9; i++) {
        dk_request before = bad[i];
        assert_int_equal(dk_request_check(&bad[i], engine, NULL, NULL, &err), DK_INVALID);
        assert_memory_equal(&before, &bad[i], sizeof before);
    }
    dk_engine_close(&engine);
}

static void cancelling(void **state)
{
    (void)state;
    dk_cancel *cancel = dk_cancel_create();
    dk_engine *engine = NULL, *open = open_engine(cancel);
    dk_engine_options options;
    dk_request request = small_request(open);
    dk_result result;
    dk_error err;
    dk_cancel_request(cancel);
    dk_engine_options_init(&options);
    options.model_path = model;
    options.cancel = cancel;
    assert_int_equal(dk_engine_open(&engine, &options, &err), DK_CANCELLED);
    assert_null(engine);
    assert_int_equal(dk_generate(open, &request, NULL, NULL, &result, &err), DK_CANCELLED);
    assert_ok(dk_generate(open, &request, NULL, NULL, &result, &err),
              err); /* the wish is spent */
    dk_result_release(&result);
    dk_engine_cancel(open);
    assert_int_equal(dk_generate(open, &request, NULL, NULL, &result, &err), DK_CANCELLED);
    dk_engine_close(&open);
    dk_cancel_destroy(&cancel);
    assert_null(cancel);
}

static void options_are_checked(void **state)
{
    (void)state;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_error err;
    dk_engine_options_init(&options);
    options.model_path = model;
    options.dtype = "fp8";
    assert_int_equal(dk_engine_open(&engine, &options, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "dtype is 'fp8', accepted are bf16, f32"));
    options.dtype = "f32";
    options.threads = 5000;
    assert_int_equal(dk_engine_open(&engine, &options, &err), DK_INVALID);
}

/* Whole frames against tiles of two thirds of the side; borders of a tile see zeros instead of
   their neighbours, so pixels differ a little. */
static void tiles_change_little(void **state)
{
    (void)state;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_error err;
    dk_result whole, tiled, large;
    dk_engine_options_init(&options);
    options.model_path = "models/tiny-wan";
    options.threads = 2;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "a big green star over the sea";
    request.width = request.height = 96;
    request.num_frames = 5;
    request.num_inference_steps = 8;
    assert_ok(dk_generate(engine, &request, NULL, NULL, &whole, &err), err);
    request.vae_tile_size = 64;
    assert_ok(dk_generate(engine, &request, NULL, NULL, &tiled, &err), err);
    request.vae_tile_size = 96;
    assert_ok(dk_generate(engine, &request, NULL, NULL, &large, &err), err);
    size_t bytes = (size_t)whole.frames * (size_t)whole.height * (size_t)whole.width * 3;
    double squares = 0;
    for (size_t i = 0; i < bytes; i++) {
        double difference = (double)whole.rgb[i] - (double)tiled.rgb[i];
        squares += difference * difference;
    }
    double rms = sqrt(squares / (double)bytes);
    assert_true(rms > 0 && rms < 10); /* 7 seen; tiles that change places differ by 40 */
    assert_memory_equal(whole.rgb, large.rgb, bytes);
    dk_result_release(&whole);
    dk_result_release(&tiled);
    dk_result_release(&large);
    dk_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_checked),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(tiles_change_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
