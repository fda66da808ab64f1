/* Starting from a picture: what a mask keeps is kept to the bit, and what cannot be done is
   told before anything is computed. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "darkroom/darkroom.h"
#include "media/image.h"
#include "media/media.h"
#include "media/resize.h"
#include "scratch.h"
#include "test.h"

enum { SIDE = 96, SOURCE = 64 }; /* of the output, of the pictures: they are scaled */

static char *folder, *picture, *mask;
static dk_engine *engine;

static void write_png(const char *path, const uint8_t *rgb, int height, int width)
{
    dk_error err;
    const dk_frames frames = {1, height, width, rgb};
    assert_ok(dk_media_write(path, &frames, &(dk_media_options){0}, &err), err);
}

/* White from column `white` on. */
static void write_mask(int white)
{
    static uint8_t rgb[SOURCE * SOURCE * 3];
    for (int i = 0; i < SOURCE * SOURCE * 3; i++) {
        rgb[i] = i / 3 % SOURCE >= white ? 255 : 0;
    }
    write_png(mask, rgb, SOURCE, SOURCE);
}

static int setup(void **state)
{
    (void)state;
    dk_error err;
    dk_engine_options options;
    static uint8_t rgb[SOURCE * SOURCE * 3];
    folder = scratch_create();
    picture = scratch_path(folder, "picture.png");
    mask = scratch_path(folder, "mask.png");
    for (int i = 0; i < SOURCE * SOURCE; i++) {
        rgb[3 * i] = (uint8_t)(3 * (i % SOURCE));
        rgb[3 * i + 1] = (uint8_t)(2 * (i / SOURCE));
        rgb[3 * i + 2] = 90;
    }
    write_png(picture, rgb, SOURCE, SOURCE);
    dk_engine_options_init(&options);
    options.model_path = "models/tiny-wan";
    options.threads = 2;
    return dk_engine_open(&engine, &options, &err) == DK_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    dk_engine_close(&engine);
    dk_free(picture);
    dk_free(mask);
    scratch_remove(folder);
    return 0;
}

static dk_request request_of(void)
{
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "a red star on a blue background";
    request.width = request.height = SIDE;
    request.num_frames = 5;
    request.num_inference_steps = 6;
    request.image_path = picture;
    return request;
}

static dk_result generate(const dk_request *request)
{
    dk_error err;
    dk_result result;
    assert_ok(dk_generate(engine, request, NULL, NULL, &result, &err), err);
    return result;
}

/* The picture as the request scales it. */
static void scaled(uint8_t *dst)
{
    dk_error err;
    dk_image image;
    assert_ok(dk_media_read_image(&image, picture, NULL, &err), err);
    const dk_samples samples = {image.height, image.width, 3, image.rgb};
    assert_ok(dk_resize(dst, SIDE, SIDE, &samples, DK_RESIZE_CUBIC, &err), err);
    dk_image_release(&image);
}

static size_t bytes_of(const dk_result *result)
{
    return (size_t)result->frames * SIDE * SIDE * 3;
}

/* Black keeps the picture in every frame, white changes it, between them it is one or the
   other. */
static void test_mask_keeps(void **state)
{
    (void)state;
    static uint8_t kept[SIDE * SIDE * 3];
    dk_request request = request_of();
    request.mask_path = mask;
    write_mask(SOURCE / 2);
    scaled(kept);
    dk_result result = generate(&request);
    int64_t changed = 0;
    for (size_t i = 0; i < bytes_of(&result); i++) {
        size_t at = i % sizeof kept, x = at / 3 % SIDE;
        if (x < SIDE / 2) {
            assert_int_equal(result.rgb[i], kept[at]);
        } else {
            changed += abs((int)result.rgb[i] - (int)kept[at]) > 8 ? 1 : 0;
        }
    }
    assert_true(changed > (int64_t)bytes_of(&result) / 8);
    dk_result_release(&result);

    write_mask(SOURCE); /* all is kept */
    result = generate(&request);
    for (size_t i = 0; i < bytes_of(&result); i++) {
        assert_int_equal(result.rgb[i], kept[i % sizeof kept]);
    }
    dk_result_release(&result);

    write_mask(0); /* all may change: as without a mask */
    result = generate(&request);
    request.mask_path = NULL;
    dk_result without = generate(&request);
    assert_memory_equal(result.rgb, without.rgb, bytes_of(&result));
    dk_result_release(&without);
    dk_result_release(&result);
}

static double distance(const dk_result *result, const uint8_t *kept)
{
    double sum = 0;
    for (size_t i = 0; i < bytes_of(result); i++) {
        sum += abs((int)result->rgb[i] - (int)kept[i % (SIDE * SIDE * 3)]);
    }
    return sum / (double)bytes_of(result);
}

static void test_strength(void **state)
{
    (void)state;
    static uint8_t kept[SIDE * SIDE * 3];
    dk_request request = request_of();
    double last = 0;
    scaled(kept);
    for (int i = 1; i <= 3; i++) {
        request.strength = i / 3.0;
        dk_result result = generate(&request);
        double far = distance(&result, kept);
        assert_int_equal(result.step_count, 2 * i);
        assert_true(far > last);
        last = far;
        dk_result_release(&result);
    }
}

static void stop(void *context, const dk_event *event)
{
    if (event->kind == DK_EVENT_STEP) {
        dk_cancel_request(context);
    }
}

/* With a mask and two outputs; stopped after the first step of four. */
static void test_resume(void **state)
{
    (void)state;
    char *path = scratch_path(folder, "checkpoint");
    dk_cancel *cancel = dk_cancel_create();
    dk_request request = request_of();
    request.mask_path = mask;
    request.num_outputs_per_prompt = 2;
    write_mask(20);
    dk_result expected = generate(&request);
    dk_generation one = {.request = &request,
                         .events = stop,
                         .context = cancel,
                         .cancel = cancel,
                         .checkpoint = path};
    dk_generate_together(engine, &one, 1);
    assert_int_equal(one.status, DK_CANCELLED);
    dk_generation again = {.request = &request, .checkpoint = path};
    dk_generate_together(engine, &again, 1);
    assert_ok(again.status, again.error);
    assert_int_equal(again.result.step_count, 4 + 4 - 1);
    assert_memory_equal(again.result.rgb, expected.rgb, 2 * bytes_of(&expected));
    dk_result_release(&again.result);

    write_mask(30); /* another mask under the same name: the checkpoint is not its own */
    dk_generate_together(engine, &again, 1);
    assert_ok(again.status, again.error);
    assert_int_equal(again.result.step_count, 8);
    dk_result_release(&again.result);
    dk_result_release(&expected);
    dk_cancel_destroy(&cancel);
    dk_free(path);
}

static void assert_refused(dk_request request, dk_status status, const char *words)
{
    dk_error err = {0};
    assert_int_equal(dk_request_check(&request, engine, NULL, NULL, &err), status);
    assert_useful(&err, words);
}

static void test_refused(void **state)
{
    (void)state;
    dk_request request = request_of();
    request.strength = 0;
    assert_refused(request, DK_INVALID, "strength");
    request.strength = 0.1; /* of six steps none */
    assert_refused(request, DK_INVALID, "strength");
    request.strength = 1.5;
    assert_refused(request, DK_INVALID, "strength");
    request = request_of();
    request.image_path = "tests/no-such.png";
    assert_refused(request, DK_NOT_FOUND, "tests/no-such.png");
    request.image_path = "tests/test.h";
    assert_refused(request, DK_FORMAT, "tests/test.h");
    request.image_path = NULL;
    request.mask_path = mask;
    assert_refused(request, DK_INVALID, "mask_path");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask_keeps),
        cmocka_unit_test(test_strength),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
