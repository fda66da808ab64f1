/* Generations run together: each gets what it would have got alone, and its own end. */
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "darkroom/darkroom.h"
#include "scratch.h"
#include "test.h"

static dk_engine *open_as(const char *model, const char *dtype, const char *quantization)
{
    dk_error err;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = model;
    options.threads = 2;
    options.dtype = dtype;
    options.quantization = quantization;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    return engine;
}

static dk_engine *open_engine(void)
{
    return open_as("tests/golden/wan2.1-t2v/checkpoint", "bf16", NULL);
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

/* The embedded model at 96 x 96: 36 tokens each, which gain by one pass for all. */
static dk_request small(const dk_engine *engine, const char *prompt, uint64_t seed)
{
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = prompt;
    request.width = request.height = 96;
    request.num_frames = 1;
    request.num_inference_steps = 5;
    request.seed = seed;
    return request;
}

static void test_what_joins(void **state)
{
    (void)state;
    dk_engine *engine = open_as("models/tiny-wan", "bf16", NULL);
    dk_request a = small(engine, "a red star", 1), b = a;
    b.prompt = "a blue ring";
    b.negative_prompt = "green";
    b.seed = 99;
    assert_true(dk_request_joins(engine, &a, &b));
    b.num_inference_steps = 6;
    assert_false(dk_request_joins(engine, &a, &b));
    b = a;
    b.guidance_scale = 3;
    assert_false(dk_request_joins(engine, &a, &b));
    b = a;
    b.sampler = "euler";
    assert_false(dk_request_joins(engine, &a, &b));
    b = a;
    b.flow_shift = 2;
    assert_false(dk_request_joins(engine, &a, &b));
    a.dump_tensors = b.dump_tensors = "x.safetensors";
    assert_false(dk_request_joins(engine, &a, &b));
    a.dump_tensors = b.dump_tensors = NULL;
    /* 16 tokens alone are summed in another order than 32 of two. */
    a.width = a.height = b.width = b.height = 64;
    assert_false(dk_request_joins(engine, &a, &b));
    a.width = a.height = b.width = b.height = 1024; /* the cores are busy with one */
    assert_false(dk_request_joins(engine, &a, &b));
    a.width = b.width = 3; /* nonsense joins nothing */
    assert_false(dk_request_joins(engine, &a, &b));
    dk_engine_close(&engine);
}

/* Every sampler and type, guided or not, several outputs: the bits of each alone. The second
   one is stopped in the middle, and the others do not notice. */
static void joined_bits(const char *dtype, const char *quantization, const char *sampler,
                        double guidance, bool stop)
{
    enum { COUNT = 4 };
    static const char *const prompts[COUNT] = {"a red star on a blue background", "",
                                               "a big green ring", "a yellow circle"};
    dk_error err;
    dk_engine *engine = open_as("models/tiny-wan", dtype, quantization);
    dk_request requests[COUNT];
    dk_generation all[COUNT];
    stopper s = {.cancel = dk_cancel_create(), .after = 2};
    for (int i = 0; i < COUNT; i++) {
        requests[i] = small(engine, prompts[i], (uint64_t)(10 * i));
        requests[i].sampler = sampler;
        requests[i].guidance_scale = guidance;
        requests[i].num_outputs_per_prompt = 2;
        all[i] = (dk_generation){.request = &requests[i]};
        assert_true(dk_request_joins(engine, &requests[0], &requests[i]));
    }
    if (stop) {
        all[1].events = stop_after;
        all[1].context = &s;
        all[1].cancel = s.cancel;
    }
    dk_generate_together(engine, all, COUNT);
    for (int i = 0; i < COUNT; i++) {
        dk_result alone;
        if (i == 1 && stop) {
            assert_int_equal(all[i].status, DK_CANCELLED);
            assert_int_equal(s.seen, 2);
            continue;
        }
        assert_ok(all[i].status, all[i].error);
        assert_int_equal(all[i].result.step_count, 10);
        assert_ok(dk_generate(engine, &requests[i], NULL, NULL, &alone, &err), err);
        assert_same(&all[i].result, &alone);
        dk_result_release(&alone);
        dk_result_release(&all[i].result);
    }
    dk_cancel_destroy(&s.cancel);
    dk_engine_close(&engine);
}

static void test_joined_bits(void **state)
{
    (void)state;
    joined_bits("bf16", NULL, "unipc", 4, false);
    joined_bits("bf16", NULL, "euler", 1, true);
    joined_bits("f32", NULL, "dpm++", 4, true);
    joined_bits("bf16", "int8", "unipc", 4, true);
}

/* Two that were stopped after different steps go on together: the one that is behind catches up
   first. */
static void test_joined_resume(void **state)
{
    (void)state;
    dk_error err;
    dk_engine *engine = open_as("models/tiny-wan", "bf16", NULL);
    char *folder = scratch_create();
    dk_request requests[2] = {small(engine, "a red star", 1), small(engine, "a ring", 2)};
    dk_generation all[2];
    char *paths[2];
    for (int i = 0; i < 2; i++) {
        stopper s = {.cancel = dk_cancel_create(), .after = i == 0 ? 3 : 1};
        paths[i] = scratch_path(folder, i == 0 ? "a" : "b");
        dk_generation one = {.request = &requests[i],
                             .events = stop_after,
                             .context = &s,
                             .cancel = s.cancel,
                             .checkpoint = paths[i]};
        dk_generate_together(engine, &one, 1);
        assert_int_equal(one.status, DK_CANCELLED);
        dk_cancel_destroy(&s.cancel);
        all[i] = (dk_generation){.request = &requests[i], .checkpoint = paths[i]};
    }
    dk_generate_together(engine, all, 2);
    for (int i = 0; i < 2; i++) {
        dk_result alone;
        assert_ok(all[i].status, all[i].error);
        assert_int_equal(all[i].result.step_count, i == 0 ? 2 : 4);
        assert_ok(dk_generate(engine, &requests[i], NULL, NULL, &alone, &err), err);
        assert_same(&all[i].result, &alone);
        dk_result_release(&alone);
        dk_result_release(&all[i].result);
        dk_free(paths[i]);
    }
    scratch_remove(folder);
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
        cmocka_unit_test(test_each_ends_alone), cmocka_unit_test(test_engine_cancel_ends_all),
        cmocka_unit_test(test_what_joins),      cmocka_unit_test(test_joined_bits),
        cmocka_unit_test(test_joined_resume),   cmocka_unit_test(test_pulse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
