/* Previews: small pictures that resemble what the generation ends with. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "darkroom/darkroom.h"
#include "pipeline/preview.h"
#include "test.h"

enum { SIDE = 128, FACTOR = 8, SMALL = SIDE / FACTOR, STEPS = 30 };

static dk_engine *open_engine(void)
{
    dk_error err;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = "models/tiny-wan";
    options.threads = 2;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    return engine;
}

typedef struct seen {
    int count, last_step, steps;
    double last_ms, shortest_ms;
    uint8_t rgb[SMALL * SMALL * 3];
} seen;

static void note(void *context, const dk_event *event)
{
    seen *s = context;
    s->steps += event->kind == DK_EVENT_STEP ? 1 : 0;
    if (event->kind != DK_EVENT_PREVIEW) {
        return;
    }
    double now = dk_now_ms();
    assert_int_equal(event->preview_width, SMALL);
    assert_int_equal(event->preview_height, SMALL);
    assert_int_equal(event->steps, STEPS);
    assert_int_equal(event->step, s->steps);
    if (s->count++ > 0 && now - s->last_ms < s->shortest_ms) {
        s->shortest_ms = now - s->last_ms;
    }
    s->last_ms = now;
    s->last_step = event->step;
    memcpy(s->rgb, event->preview, sizeof s->rgb);
}

/* Pearson's correlation of the preview with the means of the frame's blocks. */
static double correlation(const uint8_t *preview, const uint8_t *frame)
{
    double n = SMALL * SMALL * 3, a = 0, b = 0, aa = 0, bb = 0, ab = 0;
    for (int i = 0; i < SMALL * SMALL * 3; i++) {
        int y = i / 3 / SMALL * FACTOR, x = i / 3 % SMALL * FACTOR;
        double mean = 0;
        for (int k = 0; k < FACTOR * FACTOR; k++) {
            mean += frame[((y + k / FACTOR) * SIDE + x + k % FACTOR) * 3 + i % 3];
        }
        mean /= FACTOR * FACTOR;
        a += preview[i];
        b += mean;
        aa += preview[i] * preview[i];
        bb += mean * mean;
        ab += preview[i] * mean;
    }
    return (ab - a * b / n) / sqrt((aa - a * a / n) * (bb - b * b / n));
}

static void test_resembles(void **state)
{
    (void)state;
    static const char *const prompts[] = {"a red star on a blue background",
                                          "a big yellow circle over the sea"};
    dk_engine *engine = open_engine();
    double sum = 0;
    for (int frames = 1; frames <= 9; frames += 8) {
        for (int i = 0; i < 2; i++) {
            seen s = {.shortest_ms = 1e9};
            dk_request request;
            dk_request_init(&request, engine);
            request.prompt = prompts[i];
            request.width = request.height = SIDE;
            request.num_frames = frames;
            request.num_inference_steps = STEPS;
            dk_generation one = {
                .request = &request, .events = note, .context = &s, .previews = true};
            dk_generate_together(engine, &one, 1);
            assert_ok(one.status, one.error);
            assert_true(s.count >= 1 && s.last_step < STEPS);
            assert_true(s.count == 1 || s.shortest_ms >= DK_PREVIEW_INTERVAL_MS - 1);
            const uint8_t *middle = one.result.rgb + (size_t)(frames / 2) * SIDE * SIDE * 3;
            double like = correlation(s.rgb, middle);
            print_message("%d frames, %s: step %d of %d, correlation %.3f\n", frames,
                          prompts[i], s.last_step, STEPS, like);
            assert_true(like > 0.85);
            sum += like;
            dk_result_release(&one.result);
        }
    }
    assert_true(sum / 4 > 0.9);
    dk_engine_close(&engine);
}

static void test_pixels_stay(void **state)
{
    (void)state;
    dk_error err;
    dk_result without;
    seen s = {0};
    dk_engine *engine = open_engine();
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "a ring";
    request.num_frames = 1;
    request.num_inference_steps = STEPS;
    assert_ok(dk_generate(engine, &request, note, &s, &without, &err), err);
    assert_int_equal(s.count, 0); /* nobody asked */
    dk_generation one = {.request = &request, .events = note, .context = &s, .previews = true};
    s = (seen){0};
    dk_generate_together(engine, &one, 1);
    assert_ok(one.status, one.error);
    assert_memory_equal(one.result.rgb, without.rgb, SIDE * SIDE * 3);
    dk_result_release(&one.result);
    dk_result_release(&without);
    dk_engine_close(&engine);
}

/* The size of a published model's preview takes less than a millisecond. */
static void test_fast(void **state)
{
    (void)state;
    enum { CHANNELS = 16, PIXELS = 60 * 104 };
    static float latent[CHANNELS * PIXELS], planes[3 * PIXELS];
    static uint8_t rgb[3 * PIXELS];
    static dk_projection projection;
    double best = 1e9;
    for (int i = 0; i < 20; i++) {
        double start = dk_now_ms();
        dk_projection_apply(&projection, CHANNELS, PIXELS, latent, planes, rgb);
        double ms = dk_now_ms() - start;
        best = ms < best ? ms : best;
    }
    print_message("60 x 104: %.3f ms\n", best);
    assert_true(best < 1 || DK_TEST_SLACK_KIB > 0); /* a sanitizer takes its time */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resembles),
        cmocka_unit_test(test_pixels_stay),
        cmocka_unit_test(test_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
