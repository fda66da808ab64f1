/* Pictures of strangers, decoded by the real command in its sandbox. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <webp/encode.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "media/media.h"
#include "scratch.h"
#include "server/uploads/uploads.h"
#include "test.h"

enum { WIDTH = 48, HEIGHT = 32, PIXELS = WIDTH * HEIGHT };

static const char program[] = DK_TEST_PROGRAM;

/* A program that is the command with something done before or added; owned. */
static char *make_program(const char *folder, const char *line)
{
    dk_string text = DK_STRING_EMPTY;
    char *path = scratch_path(folder, "program");
    dk_string_printf(&text, "#!/bin/sh\n%s\n", line);
    scratch_write(folder, "program", text.data);
    assert_int_equal(chmod(path, 0700), 0);
    dk_string_release(&text);
    return path;
}

static void fill(uint8_t *rgb)
{
    for (int i = 0; i < PIXELS * 3; i++) {
        rgb[i] = (uint8_t)(i / 3 % WIDTH * 5 + i % 3 * 7);
    }
}

/* What the library writes as `name` and the sandbox reads: the same picture, or almost. */
static void check_format(const char *folder, const char *name, int tolerance)
{
    dk_error err;
    uint8_t rgb[PIXELS * 3];
    char *path = scratch_path(folder, name), *data;
    size_t size;
    dk_upload upload = {0};
    fill(rgb);
    const dk_frames frames = {.rgb = rgb, .count = 1, .height = HEIGHT, .width = WIDTH};
    const dk_media_options options = {.quality = 100};
    assert_ok(dk_media_write(path, &frames, &options, &err), err);
    assert_ok(dk_file_read(&data, &size, path, 1 << 20, &err), err);
    double start = dk_now_ms();
    assert_ok(dk_upload_decode(&upload, data, size, NULL, program, &err), err);
    print_message("%s: %.1f ms\n", name, dk_now_ms() - start);
    assert_int_equal(upload.width, WIDTH);
    assert_int_equal(upload.height, HEIGHT);
    assert_null(upload.alpha);
    int worst = 0;
    for (int i = 0; i < PIXELS * 3; i++) {
        int difference = abs(upload.rgb[i] - rgb[i]);
        worst = difference > worst ? difference : worst;
    }
    assert_in_range(worst, 0, tolerance);
    dk_image_release(&upload);
    dk_free(data);
    dk_free(path);
}

static void test_good_pictures(void **state)
{
    check_format(*state, "a.png", 0);
    check_format(*state, "a.jpg", 40);
    check_format(*state, "a.webp", 40);
}

static void test_alpha_is_kept(void **state)
{
    (void)state;
    dk_error err;
    dk_upload upload = {0};
    uint8_t rgba[PIXELS * 4], *file = NULL;
    for (int i = 0; i < PIXELS * 4; i++) {
        rgba[i] = (uint8_t)(i % 4 == 3 ? 1 + i / 4 % 200 : i);
    }
    size_t size = WebPEncodeLosslessRGBA(rgba, WIDTH, HEIGHT, WIDTH * 4, &file);
    assert_ok(dk_upload_decode(&upload, file, size, NULL, program, &err), err);
    assert_non_null(upload.alpha);
    for (int i = 0; i < PIXELS; i++) {
        assert_memory_equal(upload.rgb + 3 * i, rgba + 4 * i, 3);
        assert_int_equal(upload.alpha[i], rgba[4 * i + 3]);
    }
    dk_image_release(&upload);
    WebPFree(file);
}

static void test_hostile_pictures(void **state)
{
    (void)state;
    dk_error err;
    json_t *root = NULL, *entry;
    size_t i, count = 0;
    assert_ok(dk_json_load(&root, "tests/hostile/image/cases.json", 1 << 20, &err), err);
    json_array_foreach(json_object_get(root, "cases"), i, entry)
    {
        char *path =
            dk_path_join("tests/hostile", json_string_value(json_object_get(entry, "path")));
        const char *expected = json_string_value(json_object_get(entry, "expected"));
        dk_upload upload = {0};
        char *data;
        size_t size;
        assert_ok(dk_file_read(&data, &size, path, 64 << 20, &err), err);
        dk_status status = dk_upload_decode(&upload, data, size, NULL, program, &err);
        if (strcmp(expected, "accept") == 0) {
            assert_ok(status, err);
        } else if (strcmp(expected, "reject") == 0 && status == DK_OK) {
            fail_msg("%s was read", path);
        }
        if (status != DK_OK) {
            assert_null(upload.rgb);
            assert_int_equal(status, DK_FORMAT);
            if (strstr(err.message, "accepted are") == NULL) {
                fail_msg("%s: %s", path, err.message);
            }
        }
        dk_image_release(&upload);
        dk_free(data);
        dk_free(path);
        count++;
    }
    assert_true(count >= 21);
    json_decref(root);
}

/* Fails to decode valid.png by `run` with these limits; err receives why. */
static dk_status decode_valid(const char *run, const dk_upload_limits *limits, dk_error *err)
{
    dk_error read_err;
    char *data;
    size_t size;
    dk_upload upload = {0};
    assert_ok(dk_file_read(&data, &size, "tests/hostile/image/valid.png", 1 << 20, &read_err),
              read_err);
    dk_status status = dk_upload_decode(&upload, data, size, limits, run, err);
    dk_image_release(&upload);
    dk_free(data);
    return status;
}

static void test_sandbox_kills(void **state)
{
    static const char *const attempts[] = {"open", "socket", "fork", "exec", "kill", "code"};
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        dk_error err = {0};
        char line[1024];
        snprintf(line, sizeof line, "exec '%s' \"$@\" %s", program, attempts[i]);
        char *run = make_program(*state, line);
        if (decode_valid(run, NULL, &err) != DK_FORMAT ||
            strstr(err.message, "(signal 31)") == NULL) {
            fail_msg("'%s' was not killed by SIGSYS: %s", attempts[i], err.message);
        }
        dk_free(run);
    }
    /* The script by itself works, and so does an attempt of nothing. */
    dk_error err = {0};
    char line[1024];
    snprintf(line, sizeof line, "exec '%s' \"$@\" nothing", program);
    char *run = make_program(*state, line);
    assert_ok(decode_valid(run, NULL, &err), err);
    dk_free(run);
}

static void test_time_is_limited(void **state)
{
    dk_error err = {0};
    const dk_upload_limits limits = {.seconds = 1};
    char *run = make_program(*state, "exec sleep 100");
    double start = dk_now_ms();
    assert_int_equal(decode_valid(run, &limits, &err), DK_FORMAT);
    assert_non_null(strstr(err.message, "longer than 1 s"));
    assert_true(dk_now_ms() - start < 8000);
    dk_free(run);
    /* A child that closes its output and goes on. */
    run = make_program(*state, "exec >/dev/null; exec sleep 100");
    assert_int_equal(decode_valid(run, &limits, &err), DK_FORMAT);
    assert_non_null(strstr(err.message, "longer than 1 s"));
    dk_free(run);
    char line[1024];
    snprintf(line, sizeof line, "exec '%s' \"$@\" spin", program);
    run = make_program(*state, line);
    assert_int_equal(decode_valid(run, &limits, &err), DK_FORMAT);
    assert_non_null(strstr(err.message, "longer than 1 s"));
    assert_true(dk_now_ms() - start < 20000);
    dk_free(run);
}

static void test_memory_is_limited(void **state)
{
    dk_error err = {0};
    const dk_upload_limits limits = {.memory_mb = 64};
    char line[1024];
    snprintf(line, sizeof line, "exec '%s' \"$@\" memory", program);
    char *run = make_program(*state, line);
    assert_int_equal(decode_valid(run, &limits, &err), DK_FORMAT);
    /* A sanitizer ends the process in its own way when its memory is over. */
    assert_non_null(strstr(err.message, DK_TEST_SLACK_KIB > 0 ? "accepted are"
                                                              : "more than 64 MB of memory"));
    dk_free(run);
    /* A picture of many pixels in few bytes. */
    enum { SIDE = 4096 };
    uint8_t *file = NULL, *rgb = dk_alloc((size_t)SIDE * SIDE * 3);
    size_t size = WebPEncodeLosslessRGB(rgb, SIDE, SIDE, SIDE * 3, &file);
    dk_upload upload = {0};
    const dk_upload_limits little = {.memory_mb = 32};
    dk_status status = dk_upload_decode(&upload, file, size, &little, program, &err);
    assert_int_equal(status, DK_FORMAT);
    assert_non_null(strstr(err.message, "more than 32 MB of memory"));
    const dk_upload_limits small = {.max_pixels = 1000};
    status = dk_upload_decode(&upload, file, size, &small, program, &err);
    assert_int_equal(status, DK_FORMAT);
    assert_non_null(strstr(err.message, "4096 x 4096"));
    const dk_upload_limits few = {.max_bytes = 10};
    status = dk_upload_decode(&upload, file, size, &few, program, &err);
    assert_int_equal(status, DK_FORMAT);
    assert_non_null(strstr(err.message, "1 to 10 bytes"));
    WebPFree(file);
    dk_free(rgb);
}

/* Children that say or send what they should not. */
static void test_child_is_not_believed(void **state)
{
    static const struct {
        const char *line;
        dk_status status;
        const char *says;
    } cases[] = {
        {"exit 0", DK_INTERNAL, "pixels that are none"},
        {"exit 4", DK_INTERNAL, "decoder failed"},
        {"printf '{\"message\": \"no\\\\nwell\"}'; exit 4", DK_FORMAT, "no?well"},
        {"printf '{\"message\": \"x\"}'; exit 13", DK_INTERNAL, "x"},
        {"printf 'dkpixel1\\1\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0RG' >&4", DK_INTERNAL,
         "pixels that are none"},
        {"printf 'dkpixel1\\377\\377\\377\\377\\377\\377\\377\\377\\0\\0\\0\\0\\0\\0\\0\\0' "
         ">&4",
         DK_INTERNAL, "pixels that are none"},
        {"head -c 100000 /dev/zero; exit 4", DK_INTERNAL, "decoder failed"},
        {"kill -SEGV $$", DK_FORMAT, "(signal 11)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_error err = {0};
        char *run = make_program(*state, cases[i].line);
        dk_status status = decode_valid(run, NULL, &err);
        if (status != cases[i].status || strstr(err.message, cases[i].says) == NULL) {
            fail_msg("'%s': %d, %s", cases[i].line, (int)status, err.message);
        }
        dk_free(run);
    }
    dk_error err = {0};
    char *run = make_program(
        *state, "printf 'dkpixel1\\1\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0RGB' >&4");
    assert_ok(decode_valid(run, NULL, &err), err);
    dk_free(run);
    assert_int_equal(decode_valid("/no/such/program", NULL, &err), DK_IO);
    assert_non_null(strstr(err.message, "/no/such/program"));
}

/* No secrets and no descriptors of the server reach the child. */
static void test_child_inherits_nothing(void **state)
{
    dk_error err = {0};
    char line[1024];
    char *seen = scratch_path(*state, "seen");
    snprintf(line, sizeof line, "(env; ls -l /proc/self/fd) >'%s'; exec '%s' \"$@\"", seen,
             program);
    char *run = make_program(*state, line), *text;
    size_t size;
    setenv("HF_TOKEN", "a-secret", 1);
    assert_ok(decode_valid(run, NULL, &err), err);
    assert_ok(dk_file_read(&text, &size, seen, 1 << 16, &err), err);
    assert_null(strstr(text, "a-secret"));
    assert_null(strstr(text, "socket:"));
    dk_free(text);
    dk_free(run);
    dk_free(seen);
}

static int setup(void **state)
{
    /* A sanitizer must refuse memory as the system does. */
    setenv("ASAN_OPTIONS", "allocator_may_return_null=1", 1);
    *state = scratch_create();
    return 0;
}

static int teardown(void **state)
{
    scratch_remove(*state);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_good_pictures),         TEST(test_alpha_is_kept),
        TEST(test_hostile_pictures),      TEST(test_sandbox_kills),
        TEST(test_time_is_limited),       TEST(test_memory_is_limited),
        TEST(test_child_is_not_believed), TEST(test_child_inherits_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
