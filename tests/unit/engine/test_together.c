/* Generations run together: each gets what it would have got alone, and its own end. */
#include <stdatomic.h>
#include <string.h>

#include "darkroom/darkroom.h"
#include "scratch.h"
#include "test.h"

static dk_engine *open_engine(void)
{
    dk_error err;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = "tests/golden/wan2.1-t2v/checkpoint";
    options.threads = 2;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    return engine;
}

static dk_request request_of(const dk_engine *engine, const char *prompt, uint64_t seed)
{
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = prompt;
    request.width = request.height = 32;
    request.num_frames = 5;
    request.num_inference_steps = 4;
    request.seed = seed;
    return request;
}

static void assert_same(const dk_result *a, const dk_result *b)
{
    size_t bytes =
        (size_t)a->outputs * (size_t)a->frames * (size_t)a->width * (size_t)a->height * 3;
    assert_true(a->outputs == b->outputs && a->frames == b->frames);
    assert_memory_equal(a->rgb, b->rgb, bytes);
    for (int i = 0; i < a->outputs; i++) {
        assert_string_equal(a->recipes[i], b->recipes[i]);
    }
}

/* Sets a wish to stop when a step ended. */
typedef struct stopper {
    dk_cancel *cancel;
    int after, seen; /* steps */
} stopper;

static void stop_after(void *context, const dk_event *event)
{
    stopper *s = context;
    if (event->kind == DK_EVENT_STEP && ++s->seen == s->after) {
        dk_cancel_request(s->cancel);
    }
}

/* One of three is stopped by its own wish, one is wrong from the start: the others go on. */
static void test_each_ends_alone(void **state)
{
    (void)state;
    dk_error err;
    dk_engine *engine = open_engine();
    dk_request requests[] = {request_of(engine, "a cat", 1), request_of(engine, "a dog", 2),
                             request_of(engine, "a bird", 3), request_of(engine, "a fish", 4)};
    requests[2].width = 33;
    stopper s = {.cancel = dk_cancel_create(), .after = 2};
    dk_generation all[4] = {
        {.request = &requests[0]},
        {.request = &requests[1], .events = stop_after, .context = &s, .cancel = s.cancel},
        {.request = &requests[2]},
        {.request = &requests[3]}};
    dk_generate_together(engine, all, 4);
    assert_int_equal(all[1].status, DK_CANCELLED);
    assert_int_equal(s.seen, 2);
    assert_int_equal(all[2].status, DK_INVALID);
    assert_useful(&all[2].error, "33");
    for (int i = 0; i < 4; i += 3) {
        dk_result alone;
        assert_ok(all[i].status, all[i].error);
        assert_ok(dk_generate(engine, &requests[i], NULL, NULL, &alone, &err), err);
        assert_same(&all[i].result, &alone);
        dk_result_release(&alone);
        dk_result_release(&all[i].result);
    }
    dk_cancel_destroy(&s.cancel);
    dk_engine_close(&engine);
}

/* The engine's own wish ends all of them, also those that did not begin. */
typedef struct engine_stopper {
    dk_engine *engine;
} engine_stopper;

static void stop_engine(void *context, const dk_event *event)
{
    if (event->kind == DK_EVENT_STEP) {
        dk_engine_cancel(((engine_stopper *)context)->engine);
    }
}

static void test_engine_cancel_ends_all(void **state)
{
    (void)state;
    dk_engine *engine = open_engine();
    engine_stopper s = {engine};
    dk_request a = request_of(engine, "a cat", 1), b = request_of(engine, "a dog", 2);
    dk_generation all[] = {{.request = &a, .events = stop_engine, .context = &s},
                           {.request = &b}};
    dk_generate_together(engine, all, 2);
    assert_int_equal(all[0].status, DK_CANCELLED);
    assert_int_equal(all[1].status, DK_CANCELLED);
    dk_generate_together(engine, all + 1, 1); /* the wish was granted and is gone */
    assert_ok(all[1].status, all[1].error);
    dk_result_release(&all[1].result);
    dk_engine_close(&engine);
}

typedef struct watcher {
    const dk_engine *engine;
    uint64_t last;
    int grew, steps;
} watcher;

static void watch(void *context, const dk_event *event)
{
    watcher *w = context;
    if (event->kind == DK_EVENT_STEP) {
        uint64_t now = dk_engine_pulse(w->engine);
        w->grew += now > w->last ? 1 : 0;
        w->last = now;
        w->steps++;
    }
}

static void test_pulse(void **state)
{
    (void)state;
    dk_error err;
    dk_result result;
    dk_engine *engine = open_engine();
    dk_request request = request_of(engine, "a cat", 1);
    watcher w = {.engine = engine};
    assert_ok(dk_generate(engine, &request, watch, &w, &result, &err), err);
    assert_int_equal(w.grew, w.steps);
    uint64_t rest = dk_engine_pulse(engine);
    dk_plan plan;
    assert_ok(dk_engine_plan(engine, &request, &plan, &err), err);
    assert_true(dk_engine_pulse(engine) == rest); /* planning computes nothing on it */
    dk_result_release(&result);
    dk_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_ends_alone),
        cmocka_unit_test(test_engine_cancel_ends_all),
        cmocka_unit_test(test_pulse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
