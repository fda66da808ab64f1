/* Malformed weight files and shard indexes (tests/hostile/safetensors and index): refused with
   a message or read, without a large allocation, and without opening a file elsewhere. */
#include "test.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"
#include "scratch.h"
#include "weights/weights.h"

#define FOLDER "tests/hostile/"

enum { MAX_GROWTH_KIB = 8 * 1024 };

static const char *allowed; /* what the library opens begins so; NULL: anything */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    if (allowed != NULL && !dk_starts_with(path, allowed)) {
        fail_msg("%s was opened, outside %s", path, allowed);
    }
    return __real_open(path, flags, 0666);
}

/* Reads the ends of every tensor: all must lie in the mapping. */
static unsigned touch(const dk_weight *weight)
{
    const unsigned char *data = weight->tensor.data;
    size_t bytes = dk_tensor_bytes(&weight->tensor);
    return bytes > 0 ? (unsigned)data[0] + data[bytes - 1] : 0;
}

static dk_status open_file(const char *path, dk_error *err)
{
    dk_safetensors *file = NULL;
    unsigned sum = 0;
    dk_status status = dk_safetensors_open(&file, path, err);
    assert_true((status == DK_OK) == (file != NULL));
    for (int i = 0; file != NULL && i < dk_safetensors_count(file); i++) {
        const dk_weight *weight = dk_safetensors_at(file, i);
        assert_ptr_equal(dk_safetensors_find(file, weight->name), weight);
        sum += touch(weight);
    }
    assert_true(sum < UINT_MAX);
    dk_safetensors_close(&file);
    return status;
}

static dk_status open_folder(const char *folder, dk_error *err)
{
    dk_weights *weights = NULL;
    unsigned sum = 0;
    dk_status status = dk_weights_open(&weights, folder, err);
    assert_true((status == DK_OK) == (weights != NULL));
    for (int i = 0; weights != NULL && i < dk_weights_count(weights); i++) {
        sum += touch(dk_weights_at(weights, i));
    }
    assert_true(sum < UINT_MAX);
    dk_weights_unref(weights);
    return status;
}

static void judge(dk_status status, const char *expected, const char *path, const dk_error *err)
{
    if (strcmp(expected, "accept") == 0) {
        assert_ok(status, *err);
    } else if (strcmp(expected, "reject") == 0 && status == DK_OK) {
        fail_msg("%s was accepted", path);
    }
    if (status != DK_OK) {
        assert_true(status == DK_FORMAT || status == DK_UNSUPPORTED || status == DK_NOT_FOUND);
        assert_int_equal(err->status, status);
        assert_useful(err, path);
    }
}

static void check_safetensors(const char *path, const char *expected)
{
    dk_error err = {0};
    char *folder = scratch_create();
    scratch_link(folder, "model.safetensors", path);
    judge(open_file(path, &err), expected, path, &err);
    allowed = folder;
    judge(open_folder(folder, &err), expected, folder, &err);
    allowed = NULL;
    scratch_remove(folder);
}

static void check_index(const char *path, const char *expected)
{
    dk_error err = {0};
    allowed = path;
    dk_status status = open_folder(path, &err);
    allowed = NULL;
    judge(status, expected, path, &err);
}

static void each_case(const char *list, int at_least,
                      void (*check)(const char *path, const char *expected))
{
    dk_error err;
    struct rusage before, after;
    json_t *root = NULL, *entry;
    size_t i;
    int count = 0;
    getrusage(RUSAGE_SELF, &before);
    assert_ok(dk_json_load(&root, list, DK_JSON_CONFIG_BYTES, &err), err);
    json_array_foreach(json_object_get(root, "cases"), i, entry)
    {
        char *path = dk_path_join(FOLDER, json_string_value(json_object_get(entry, "path")));
        check(path, json_string_value(json_object_get(entry, "expected")));
        dk_free(path);
        count++;
    }
    json_decref(root);
    assert_true(count >= at_least);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < MAX_GROWTH_KIB + DK_TEST_SLACK_KIB);
}

static void test_safetensors(void **state)
{
    (void)state;
    each_case(FOLDER "safetensors/cases.json", 42, check_safetensors);
}

static void test_index(void **state)
{
    (void)state;
    each_case(FOLDER "index/cases.json", 8, check_index);
}

/* A file cut at every place, and with every byte changed: refused or read to the ends. */
static void test_damaged(void **state)
{
    (void)state;
    static const char path[] = FOLDER "safetensors/valid.safetensors";
    dk_error err;
    char *bytes;
    size_t size;
    assert_ok(dk_file_read(&bytes, &size, path, 1 << 20, &err), err);
    for (size_t at = 0; at < size; at++) {
        dk_safetensors *file = NULL;
        char *copy = dk_alloc(at + 1); /* its own memory: ASan sees the end */
        memcpy(copy, bytes, at);
        assert_int_equal(dk_safetensors_parse(&file, copy, at, "cut", &err), DK_FORMAT);
        dk_free(copy);
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] = (char)(bytes[at] ^ (1 << bit));
            if (dk_safetensors_parse(&file, bytes, size, "changed", &err) == DK_OK) {
                for (int i = 0; i < dk_safetensors_count(file); i++) {
                    touch(dk_safetensors_at(file, i));
                }
                dk_safetensors_close(&file);
            }
            bytes[at] = (char)(bytes[at] ^ (1 << bit));
        }
    }
    dk_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
