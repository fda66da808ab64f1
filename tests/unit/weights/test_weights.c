/* Writing and reading safetensors files, shards, and random weights. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "scratch.h"
#include "tensor/convert.h"
#include "weights/weights.h"

static char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";

/* Every type and rank comes back with its bytes, in order. */
static void test_round_trip(void **state)
{
    (void)state;
    dk_error err;
    dk_safetensors_entry entries[DK_DTYPE_COUNT + 3];
    char *folder = scratch_create(), *path = dk_path_join(folder, "t.safetensors");
    int count = 0;
    for (int i = 0; i < DK_DTYPE_COUNT; i++) {
        entries[count++] =
            (dk_safetensors_entry){dk_dtype_name((dk_dtype)i),
                                   dk_tensor_view(letters, (dk_dtype)i, 1 + i % DK_MAX_RANK,
                                                  (int64_t[]){4, 1, 1, 1, 1, 1, 1, 1})};
    }
    entries[count++] =
        (dk_safetensors_entry){"scalar", dk_tensor_view(letters, DK_F32, 0, NULL)};
    entries[count++] = (dk_safetensors_entry){"empty", DK_TENSOR(letters, DK_F32, 0, 5)};
    entries[count++] =
        (dk_safetensors_entry){"od\"d n\xc3\xa4me\n", DK_TENSOR(letters, DK_U8, 3)};
    assert_ok(dk_safetensors_write(path, entries, count, &err), err);
    dk_safetensors *file;
    assert_ok(dk_safetensors_open(&file, path, &err), err);
    assert_int_equal(dk_safetensors_count(file), count);
    for (int i = 0; i < count; i++) {
        const dk_weight *weight = dk_safetensors_find(file, entries[i].name);
        assert_non_null(weight);
        assert_int_equal(weight->tensor.dtype, entries[i].tensor.dtype);
        assert_true(dk_tensor_has_shape(&weight->tensor, entries[i].tensor.rank,
                                        entries[i].tensor.shape));
        size_t bytes = dk_tensor_bytes(&weight->tensor);
        if (bytes > 0) {
            assert_memory_equal(weight->tensor.data, letters, bytes);
        }
    }
    assert_null(dk_safetensors_find(file, "absent"));
    assert_null(dk_safetensors_metadata(file, "format"));
    dk_safetensors_close(&file);
    assert_null(file);
    dk_safetensors_close(&file);
    assert_ok(dk_safetensors_write(path, NULL, 0, &err), err);
    assert_ok(dk_safetensors_open(&file, path, &err), err);
    assert_int_equal(dk_safetensors_count(file), 0);
    assert_null(dk_safetensors_find(file, ""));
    dk_safetensors_close(&file);
    dk_free(path);
    scratch_remove(folder);
}

static void test_metadata(void **state)
{
    (void)state;
    dk_error err;
    const dk_safetensors_entry entry = {"w", DK_TENSOR(letters, DK_U8, 2)};
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    char *header;
    size_t size;
    dk_safetensors *file;
    assert_ok(dk_safetensors_header(&header, &size, &entry, 1, metadata, &err), err);
    assert_int_equal(size % 8, 0);
    char *whole = dk_realloc(header, size + 2);
    memcpy(whole + size, letters, 2);
    assert_ok(dk_safetensors_parse(&file, whole, size + 2, "memory", &err), err);
    assert_string_equal(dk_safetensors_metadata(file, "format"), "pt");
    assert_null(dk_safetensors_metadata(file, "other"));
    assert_int_equal(json_object_size(dk_safetensors_all_metadata(file)), 1);
    dk_safetensors_close(&file);
    dk_free(whole);
    json_decref(metadata);
}

static void test_bad_names(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create(), *path = dk_path_join(folder, "t.safetensors");
    const dk_tensor tensor = DK_TENSOR(letters, DK_U8, 1);
    const dk_safetensors_entry twice[] = {{"w", tensor}, {"w", tensor}},
                               reserved = {"__metadata__", tensor}, bytes = {"\xff", tensor};
    assert_int_equal(dk_safetensors_write(path, twice, 2, &err), DK_INTERNAL);
    assert_int_equal(dk_safetensors_write(path, &reserved, 1, &err), DK_INTERNAL);
    assert_int_equal(dk_safetensors_write(path, &bytes, 1, &err), DK_INTERNAL);
    assert_int_equal(scratch_count(folder), 0);
    dk_free(path);
    scratch_remove(folder);
}

static void write_one(const char *folder, const char *name, const char *tensor, float value)
{
    dk_error err;
    char *path = scratch_path(folder, name);
    const dk_safetensors_entry entry = {tensor, DK_TENSOR(&value, DK_F32, 1)};
    assert_ok(dk_safetensors_write(path, &entry, 1, &err), err);
    dk_free(path);
}

static void test_shards(void **state)
{
    (void)state;
    dk_error err;
    dk_weights *weights = NULL;
    char *folder = scratch_create();
    assert_int_equal(dk_weights_open(&weights, folder, &err), DK_NOT_FOUND);
    assert_useful(&err, folder);
    write_one(folder, "x.safetensors", "b", 1);
    write_one(folder, "y.safetensors", "a", 2);
    scratch_write(folder, "model.safetensors.index.json",
                  "{\"weight_map\": {\"b\": \"x.safetensors\", \"a\": \"y.safetensors\"}}");
    assert_ok(dk_weights_open(&weights, folder, &err), err);
    assert_int_equal(dk_weights_count(weights), 2);
    assert_int_equal(dk_weights_file_count(weights), 2);
    assert_string_equal(dk_weights_at(weights, 0)->name, "a");
    assert_true(*(const float *)dk_weights_find(weights, "b")->tensor.data == 1);
    assert_null(dk_weights_find(weights, "c"));
    assert_false(dk_weights_are_random(weights));
    dk_weights *second = dk_weights_ref(weights);
    dk_weights_unref(weights);
    assert_true(*(const float *)dk_weights_find(second, "a")->tensor.data == 2);
    dk_weights_unref(second);
    dk_weights_unref(NULL);
    write_one(folder, "y.safetensors", "b", 2); /* now in both shards, and a in none */
    assert_int_equal(dk_weights_open(&weights, folder, &err), DK_FORMAT);
    assert_useful(&err, folder);
    write_one(folder, "model.safetensors", "single", 3); /* one file wins over an index */
    assert_ok(dk_weights_open(&weights, folder, &err), err);
    assert_non_null(dk_weights_find(weights, "single"));
    dk_weights_unref(weights);
    scratch_remove(folder);
}

static void test_random(void **state)
{
    (void)state;
    dk_error err;
    const dk_weight *a, *b, *norm;
    const int64_t shape[] = {64, 64};
    dk_weights *one = dk_weights_create_random(DK_F32, 5),
               *other = dk_weights_create_random(DK_F32, 5);
    assert_true(dk_weights_are_random(one));
    assert_ok(dk_weights_make(one, &a, "w", 2, shape, &err), err);
    assert_ok(dk_weights_make(one, &norm, "norm.weight", 2, shape, &err), err);
    assert_ok(dk_weights_make(other, &b, "w", 2, shape, &err), err);
    assert_memory_equal(a->tensor.data, b->tensor.data, sizeof(float) * 64 * 64);
    double sum = 0, squares = 0, norm_sum = 0;
    for (int i = 0; i < 64 * 64; i++) {
        double value = (double)((const float *)a->tensor.data)[i];
        sum += value;
        squares += value * value;
        norm_sum += (double)((const float *)norm->tensor.data)[i];
    }
    assert_true(fabs(sum / 4096) < 0.002 && fabs(sqrt(squares / 4096) - 0.02) < 0.005);
    assert_true(fabs(norm_sum / 4096 - 1) < 0.002);
    dk_weights_unref(one);
    dk_weights_unref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_bad_names),  cmocka_unit_test(test_shards),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
