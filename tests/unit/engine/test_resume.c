/* Checkpoints: a generation that was stopped after any step and goes on gives the bits of an
   undisturbed one, and a file that cannot be trusted is never trusted. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "darkroom/darkroom.h"
#include "scratch.h"
#include "test.h"

enum { STEPS = 3, OUTPUTS = 2 };

static dk_engine *open_engine(const char *dtype)
{
    dk_error err;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = "tests/golden/wan2.1-t2v/checkpoint";
    options.threads = 2;
    options.dtype = dtype;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    return engine;
}

static dk_request request_of(const dk_engine *engine, const char *sampler)
{
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "a cat";
    request.width = request.height = 32;
    request.num_frames = 5;
    request.num_inference_steps = STEPS;
    request.num_outputs_per_prompt = OUTPUTS;
    request.sampler = sampler;
    request.seed = 3;
    return request;
}

/* Counts what happens; stops after so many steps, unless that is 0. */
typedef struct watcher {
    dk_cancel *cancel;
    int stop_after, steps, warnings;
} watcher;

static void watch(void *context, const dk_event *event)
{
    watcher *w = context;
    if (event->kind == DK_EVENT_STEP && ++w->steps == w->stop_after) {
        dk_cancel_request(w->cancel);
    }
    w->warnings += event->kind == DK_EVENT_WARNING ? 1 : 0;
}

static dk_generation run(dk_engine *engine, const dk_request *request, const char *checkpoint,
                         int stop_after, watcher *w)
{
    *w = (watcher){.cancel = dk_cancel_create(), .stop_after = stop_after};
    dk_generation one = {.request = request,
                         .events = watch,
                         .context = w,
                         .cancel = w->cancel,
                         .checkpoint = checkpoint};
    dk_generate_together(engine, &one, 1);
    dk_cancel_destroy(&w->cancel);
    return one;
}

static void assert_made(const dk_generation *one, const dk_result *expected)
{
    assert_ok(one->status, one->error);
    size_t bytes = (size_t)expected->outputs * (size_t)expected->frames *
                   (size_t)expected->width * (size_t)expected->height * 3;
    assert_memory_equal(one->result.rgb, expected->rgb, bytes);
    assert_string_equal(one->result.recipes[OUTPUTS - 1], expected->recipes[OUTPUTS - 1]);
}

static void stop_and_go_on(const char *dtype, const char *sampler)
{
    dk_error err;
    dk_result expected;
    watcher w;
    char *folder = scratch_create(), *path = dk_path_join(folder, "job.checkpoint");
    /* Goes on in another engine, as after a crash. */
    dk_engine *engine = open_engine(dtype), *other = open_engine(dtype);
    dk_request request = request_of(engine, sampler);
    assert_ok(dk_generate(engine, &request, NULL, NULL, &expected, &err), err);
    for (int k = 1; k < STEPS * OUTPUTS; k++) {
        scratch_write(folder, "job.checkpoint", "");
        assert_int_equal(remove(path), 0);
        dk_generation stopped = run(engine, &request, path, k, &w);
        assert_int_equal(stopped.status, DK_CANCELLED);
        assert_int_equal(scratch_count(folder), 1);
        dk_generation resumed = run(other, &request, path, 0, &w);
        assert_made(&resumed, &expected);
        assert_int_equal(w.steps, STEPS * OUTPUTS - k);
        assert_int_equal(w.warnings, 0);
        dk_result_release(&resumed.result);
    }
    dk_generation again = run(engine, &request, path, 0, &w); /* all is done: decodes only */
    assert_made(&again, &expected);
    assert_int_equal(w.steps, 0);
    dk_result_release(&again.result);
    dk_result_release(&expected);
    dk_engine_close(&other);
    dk_engine_close(&engine);
    scratch_remove(folder);
    dk_free(path);
}

static void test_stop_and_go_on(void **state)
{
    (void)state;
    static const char *const samplers[] = {"unipc", "euler", "dpm++"};
    for (int i = 0; i < 3; i++) {
        stop_and_go_on("f32", samplers[i]);
        stop_and_go_on("bf16", samplers[i]);
    }
}

/* Another seed, another step count, another type: never taken over. */
static void test_foreign(void **state)
{
    (void)state;
    dk_error err;
    dk_result expected;
    watcher w;
    char *folder = scratch_create(), *path = dk_path_join(folder, "job.checkpoint");
    dk_engine *engine = open_engine("bf16"), *exact = open_engine("f32");
    dk_request request = request_of(engine, "unipc"), others[3];
    for (int i = 0; i < 3; i++) {
        others[i] = request;
    }
    others[0].seed++;
    others[1].num_inference_steps++;
    for (int i = 0; i < 3; i++) {
        dk_engine *by = i == 2 ? exact : engine;
        dk_generation stopped = run(engine, &request, path, 2, &w);
        assert_int_equal(stopped.status, DK_CANCELLED);
        assert_ok(dk_generate(by, &others[i], NULL, NULL, &expected, &err), err);
        dk_generation other = run(by, &others[i], path, 0, &w);
        assert_made(&other, &expected);
        assert_int_equal(w.warnings, 1);
        assert_int_equal(w.steps, others[i].num_inference_steps * OUTPUTS);
        dk_result_release(&other.result);
        dk_result_release(&expected);
        assert_int_equal(remove(path), 0);
    }
    dk_engine_close(&exact);
    dk_engine_close(&engine);
    scratch_remove(folder);
    dk_free(path);
}

static void write_bytes(const char *path, const char *bytes, size_t size)
{
    dk_error err;
    assert_ok(dk_file_write(path, bytes, size, &err), err);
}

/* Cut anywhere, or with one bit changed anywhere: told, and computed anew. */
static void test_damaged(void **state)
{
    (void)state;
    enum { PLACES = 24, LARGEST = 1 << 24 };
    dk_error err;
    dk_result expected;
    watcher w;
    char *folder = scratch_create(), *path = dk_path_join(folder, "job.checkpoint"), *bytes;
    size_t size;
    dk_engine *engine = open_engine("bf16");
    dk_request request = request_of(engine, "unipc");
    request.num_inference_steps = 2;
    assert_ok(dk_generate(engine, &request, NULL, NULL, &expected, &err), err);
    dk_generation stopped = run(engine, &request, path, 3, &w);
    assert_int_equal(stopped.status, DK_CANCELLED);
    assert_ok(dk_file_read(&bytes, &size, path, LARGEST, &err), err);
    for (int i = 0; i < 2 * PLACES; i++) {
        /* Most places in the header and the first numbers behind it. */
        size_t place = (size_t)(i / 2) * (i / 2 < PLACES / 2 ? 31 : size / PLACES);
        if (i % 2 == 0) {
            write_bytes(path, bytes, place);
        } else {
            bytes[place] = (char)(bytes[place] ^ 0x10);
            write_bytes(path, bytes, size);
            bytes[place] = (char)(bytes[place] ^ 0x10);
        }
        dk_generation one = run(engine, &request, path, 0, &w);
        assert_made(&one, &expected);
        /* A name that only people read may change without a warning. */
        assert_true(w.warnings == 1 ? w.steps == 4 : w.steps == 1);
        assert_true(i % 2 == 1 || w.warnings == 1);
        dk_result_release(&one.result);
    }
    dk_free(bytes);
    dk_result_release(&expected);
    dk_engine_close(&engine);
    scratch_remove(folder);
    dk_free(path);
}

/* Where nothing can be written the work goes on, with one warning. */
static void test_no_place(void **state)
{
    (void)state;
    watcher w;
    char *folder = scratch_create(), *path = dk_path_join(folder, "no/such/folder/c");
    dk_engine *engine = open_engine("bf16");
    dk_request request = request_of(engine, "euler");
    dk_generation one = run(engine, &request, path, 0, &w);
    assert_ok(one.status, one.error);
    assert_int_equal(w.warnings, 1);
    dk_result_release(&one.result);
    dk_engine_close(&engine);
    scratch_remove(folder);
    dk_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_and_go_on),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_no_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
