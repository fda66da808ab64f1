/* Opening an engine, generating and saving, with every fallible call failing once: a proper
   status, one line, nothing left behind, and an engine that goes on. Leaks are the sanitizer's
   to find. */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "darkroom/darkroom.h"
#include "scratch.h"
#include "test.h"
#include "torture.h"

enum { MOST_CALLS = 5000, THREADS = 2 };

static const char model[] = "tests/golden/wan2.1-t2v/checkpoint";

typedef struct outcome {
    dk_engine *engine;
    dk_result result;
} outcome;

static void init_request(dk_request *request, dk_engine *engine)
{
    dk_request_init(request, engine);
    request->prompt = "x";
    request->width = request->height = 32;
    request->num_frames = 1;
    request->num_inference_steps = 1;
}

static dk_status open_engine(dk_engine **out, dk_error *err)
{
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = model;
    options.threads = THREADS;
    return dk_engine_open(out, &options, err);
}

static dk_status generate(dk_engine *engine, dk_result *result, dk_error *err)
{
    dk_request request;
    init_request(&request, engine);
    return dk_generate(engine, &request, NULL, NULL, result, err);
}

static void assert_failure(dk_status status, const dk_error *err, const char *what, int n)
{
    if (status != DK_IO && status != DK_MEMORY && status != DK_NOT_FOUND) {
        fail_msg("call %d, a failed %s, became: %s", n, what, dk_status_text(status));
    }
    assert_int_equal(err->status, status);
    assert_useful(err, "");
}

/* Fails the nth call while an engine is opened; false when there were fewer. */
static bool open_once(int n)
{
    dk_error err = {0};
    dk_engine *engine = NULL;
    const char *what;
    torture_arm(n);
    dk_status status = open_engine(&engine, &err);
    bool hit = torture_disarm(&what);
    if (status != DK_OK) {
        assert_true(hit);
        assert_failure(status, &err, what, n);
        assert_null(engine);
    }
    dk_engine_close(&engine);
    return hit;
}

static void test_open(void **state)
{
    (void)state;
    int n = 1;
    while (open_once(n)) {
        assert_true(++n < MOST_CALLS);
    }
    assert_true(n > 20);
}

static void assert_same(const dk_result *a, const dk_result *b)
{
    assert_true(a->width == b->width && a->height == b->height && a->outputs == b->outputs);
    assert_memory_equal(a->rgb, b->rgb, (size_t)a->width * (size_t)a->height * 3);
    assert_string_equal(a->recipes[0], b->recipes[0]);
}

/* The same while it generates and the picture is saved over an old file. */
static bool generate_once(const dk_result *expected, const char *folder, int n)
{
    dk_error err = {0};
    dk_engine *engine = NULL;
    dk_result result, untouched;
    const char *what;
    char *path = dk_path_join(folder, "out.png"), *old;
    size_t size;
    memset(&untouched, 0x5a, sizeof untouched);
    result = untouched;
    scratch_write(folder, "out.png", "the old file");
    assert_ok(open_engine(&engine, &err), err);
    torture_arm(n);
    dk_status status = generate(engine, &result, &err);
    bool generated = status == DK_OK;
    if (generated) {
        status = dk_result_save(&result, 0, path, 0, &err);
    }
    bool hit = torture_disarm(&what);
    if (status != DK_OK) {
        assert_true(hit);
        assert_failure(status, &err, what, n);
        assert_ok(dk_file_read(&old, &size, path, 1 << 20, &err), err);
        assert_string_equal(old, "the old file");
        dk_free(old);
    }
    if (!generated) {
        assert_memory_equal(&result, &untouched, sizeof result);
        assert_ok(generate(engine, &result, &err), err);
    }
    assert_same(&result, expected);
    assert_ok(dk_result_save(&result, 0, path, 0, &err), err);
    assert_int_equal(scratch_count(folder), 1);
    dk_result_release(&result);
    dk_engine_close(&engine);
    dk_free(path);
    return hit;
}

static void test_generate(void **state)
{
    (void)state;
    dk_error err;
    dk_engine *engine = NULL;
    dk_result expected = {0};
    char *folder = scratch_create();
    int n = 1;
    assert_ok(open_engine(&engine, &err), err);
    assert_ok(generate(engine, &expected, &err), err);
    dk_engine_close(&engine);
    while (generate_once(&expected, folder, n)) {
        assert_true(++n < MOST_CALLS);
    }
    assert_true(n > 20);
    dk_result_release(&expected);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_generate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
