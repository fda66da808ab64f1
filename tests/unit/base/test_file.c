/* Files and paths. */
#include "test.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "scratch.h"

static void test_paths(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool alone, below;
    } names[] = {
        {"a", true, true},       {"model-00001-of-00002.safetensors", true, true},
        {"..a", true, true},     {"a..b", true, true},
        {".hidden", true, true}, {"\xc3\xbc", true, true},
        {"a/b", false, true},    {"a/b/c.json", false, true},
        {"", false, false},      {".", false, false},
        {"..", false, false},    {"/a", false, false},
        {"a/", false, false},    {"a//b", false, false},
        {"a/./b", false, false}, {"a/../b", false, false},
        {"../a", false, false},  {"a/..", false, false},
        {"a\\b", false, false},  {"a\nb", false, false},
        {"a\x1b", false, false}, {"a\x7f", false, false},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (dk_path_is_inside(names[i].name, false) != names[i].alone ||
            dk_path_is_inside(names[i].name, true) != names[i].below) {
            fail_msg("'%s'", names[i].name);
        }
    }
    assert_string_equal(dk_path_name("/a/b.c"), "b.c");
    assert_string_equal(dk_path_name("b"), "b");
    assert_string_equal(dk_path_name("a/"), "");
    static const char *const joins[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
        char *joined = dk_path_join(joins[i][0], joins[i][1]);
        assert_string_equal(joined, joins[i][2]);
        dk_free(joined);
    }
}

static void assert_content(const char *path, const char *text)
{
    dk_error err;
    char *bytes;
    size_t size;
    assert_ok(dk_file_read(&bytes, &size, path, 1000, &err), err);
    assert_int_equal(size, strlen(text));
    assert_string_equal(bytes, text);
    dk_free(bytes);
}

static void test_write(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create(), *path = dk_path_join(folder, "f.txt");
    assert_ok(dk_file_write(path, "one", 3, &err), err);
    assert_content(path, "one");
    dk_mapping old;
    assert_ok(dk_mapping_open(&old, path, &err), err);
    assert_ok(dk_file_write(path, "", 0, &err), err); /* the mapping keeps the old file */
    assert_content(path, "");
    assert_memory_equal(old.data, "one", 3);
    dk_mapping_close(&old);
    dk_mapping_close(&old);
    assert_ok(dk_mapping_open(&old, path, &err), err);
    assert_true(old.data == NULL && old.size == 0);
    dk_mapping_close(&old);
    assert_int_equal(scratch_count(folder), 1);

    assert_int_equal(dk_file_write(folder, "x", 1, &err), DK_IO); /* over a folder */
    assert_useful(&err, folder);
    char *lost = dk_path_join(folder, "none/f");
    assert_int_equal(dk_file_write(lost, "x", 1, &err), DK_NOT_FOUND);
    assert_useful(&err, lost);
    dk_free(lost);
    lost = dk_path_join(path, "f"); /* below a file */
    assert_int_equal(dk_file_write(lost, "x", 1, &err), DK_NOT_FOUND);
    dk_free(lost);
    assert_int_equal(scratch_count(folder), 1);
    dk_free(path);
    scratch_remove(folder);
}

static void test_publish(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create(), *path = dk_path_join(folder, "f.mp4");
    char *temporary = dk_file_temporary(path);
    assert_true(dk_starts_with(temporary, folder));
    assert_true(dk_ends_with(temporary, ".mp4")); /* encoders look at the ending */
    assert_int_equal(dk_path_name(temporary)[0], '.');
    assert_int_equal(dk_file_publish(temporary, path, &err), DK_NOT_FOUND);
    assert_useful(&err, path);
    scratch_write(folder, "f.mp4", "old");
    assert_ok(dk_file_write(temporary, "new", 3, &err), err);
    assert_ok(dk_file_publish(temporary, path, &err), err);
    assert_content(path, "new");
    assert_int_equal(scratch_count(folder), 1);
    dk_free(temporary);
    dk_free(path);
    scratch_remove(folder);
}

static void test_read(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create(), *path = dk_path_join(folder, "f"), *bytes = NULL;
    char *pipe = dk_path_join(folder, "pipe");
    size_t size = 77;
    dk_mapping mapping = {0};
    scratch_write(folder, "f", "12345");
    assert_int_equal(dk_file_read(&bytes, &size, path, 4, &err), DK_FORMAT);
    assert_int_equal(dk_file_read(&bytes, &size, folder, 4, &err), DK_INVALID);
    assert_int_equal(dk_mapping_open(&mapping, folder, &err), DK_INVALID);
    assert_int_equal(mkfifo(pipe, 0666), 0); /* must not wait for a writer */
    assert_int_equal(dk_file_read(&bytes, &size, pipe, 4, &err), DK_INVALID);
    assert_int_equal(dk_mapping_open(&mapping, pipe, &err), DK_INVALID);
    assert_int_equal(dk_mapping_open(&mapping, "/nonexistent/x", &err), DK_NOT_FOUND);
    assert_true(bytes == NULL && size == 77 && mapping.data == NULL);
    assert_ok(dk_file_read(&bytes, &size, path, 5, &err), err);
    assert_true(size == 5 && bytes[5] == '\0');
    dk_free(bytes);
    dk_free(path);
    dk_free(pipe);
    scratch_remove(folder);
}

static void test_folders(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create(), *deep = dk_path_join(folder, "a/b//c/");
    assert_ok(dk_make_folders(deep, &err), err);
    assert_ok(dk_make_folders(deep, &err), err);
    assert_true(dk_path_is_folder(deep) && dk_path_exists(deep));
    scratch_write(folder, "file", "x");
    char *file = dk_path_join(folder, "file"), *below = dk_path_join(file, "d");
    assert_int_equal(dk_make_folders(file, &err), DK_IO);
    assert_int_not_equal(dk_make_folders(below, &err), DK_OK);
    assert_useful(&err, file);
    assert_false(dk_path_is_folder(file));
    assert_int_not_equal(dk_make_folders("", &err), DK_OK);
    dk_free(below);
    dk_free(file);
    dk_free(deep);
    scratch_remove(folder);
}

static void test_remove_tree(void **state)
{
    (void)state;
    char *folder = scratch_create(), *outside = scratch_create();
    char *tree = dk_path_join(folder, "tree");
    scratch_write(outside, "stays", "x");
    dk_free(scratch_path(tree, "a/b/c"));
    scratch_write(tree, "a/b/.hidden", "x");
    scratch_link(tree, "a/link", outside);
    assert_true(dk_remove_tree(tree));
    assert_false(dk_path_exists(tree));
    assert_true(dk_remove_tree(tree));
    assert_int_equal(scratch_count(outside), 1);
    dk_free(tree);
    scratch_remove(folder);
    scratch_remove(outside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),   cmocka_unit_test(test_write),
        cmocka_unit_test(test_publish), cmocka_unit_test(test_read),
        cmocka_unit_test(test_folders), cmocka_unit_test(test_remove_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
