/* Malformed pictures (tests/hostile/image/cases.json): refused with a message or read, never a
   crash, and memory only for what the limits allow. */
#include "test.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "media/image.h"
#include "media/media.h"

#define FOLDER "tests/hostile/"

static void check_case(const json_t *entry)
{
    dk_error err = {0};
    dk_image image = {0};
    char *path = dk_path_join(FOLDER, json_string_value(json_object_get(entry, "path")));
    char *recipe;
    const char *expected = json_string_value(json_object_get(entry, "expected"));
    dk_status status = dk_media_read_image(&image, path, NULL, &err);
    if (strcmp(expected, "reject") == 0 && status == DK_OK) {
        fail_msg("%s was read", path);
    } else if (strcmp(expected, "accept") == 0) {
        assert_ok(status, err);
        assert_int_equal(image.width * image.height, 16);
    }
    if (status != DK_OK) {
        assert_true(status == DK_FORMAT || status == DK_UNSUPPORTED);
        assert_non_null(strstr(err.message, path));
        assert_non_null(strstr(err.message, "accepted are"));
        assert_null(image.rgb);
    }
    status = dk_media_read_recipe(&recipe, path, &err);
    assert_true(status == DK_NOT_FOUND || status == DK_FORMAT);
    dk_image_release(&image);
    dk_free(path);
}

/* Also: none takes the memory that its header or its data asks for (30 MB and more). */
static void test_cases(void **state)
{
    (void)state;
    enum { MAX_GROWTH_KIB = 10 * 1024 };
    dk_error err;
    struct rusage before, after;
    json_t *root = NULL, *entry;
    size_t i, count = 0;
    getrusage(RUSAGE_SELF, &before);
    assert_ok(dk_json_load(&root, FOLDER "image/cases.json", DK_JSON_CONFIG_BYTES, &err), err);
    json_array_foreach(json_object_get(root, "cases"), i, entry)
    {
        check_case(entry);
        count++;
    }
    json_decref(root);
    assert_true(count >= 21);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < MAX_GROWTH_KIB);
}

/* Every file cut at every place, and with every byte changed. */
static void damage(const char *path)
{
    dk_error err;
    char *bytes;
    size_t size;
    const dk_media_limits limits = {.max_pixels = 1 << 16};
    assert_ok(dk_file_read(&bytes, &size, path, 1 << 20, &err), err);
    for (size_t at = 0; at < size; at++) {
        dk_image image = {0};
        char *cut = dk_alloc(at + 1), kept = bytes[at]; /* its own memory: ASan sees the end */
        memcpy(cut, bytes, at);
        if (dk_image_decode(&image, cut, at, "cut", &limits, &err) == DK_OK) {
            dk_image_release(&image);
        }
        dk_free(cut);
        bytes[at] = (char)(bytes[at] ^ (at % 3 == 0 ? 0x80 : at % 3 == 1 ? 1 : 0xFF));
        if (dk_image_decode(&image, bytes, size, "changed", &limits, &err) == DK_OK) {
            assert_true(image.width > 0 && image.height > 0);
            dk_image_release(&image);
        }
        bytes[at] = kept;
    }
    dk_free(bytes);
}

static void test_damaged(void **state)
{
    (void)state;
    damage("tests/hostile/image/valid.png");
    damage("tests/fuzz/corpus/png/palette.png");
    damage("tests/fuzz/corpus/png/adam7_gray16_alpha.png");
    damage("tests/fuzz/corpus/jpeg/baseline.jpg");
    damage("tests/fuzz/corpus/jpeg/progressive.jpg");
    damage("tests/fuzz/corpus/webp/lossy.webp");
    damage("tests/fuzz/corpus/webp/lossless.webp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
