/* Files of a server's host, on another one. */
#include "test.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "scratch.h"
#include "server/worker/relay_files.h"

static void add_file(dk_relay_files *files, const char *path, const char *text)
{
    dk_message message;
    dk_error err;
    dk_message_pack(&message, "file", "{s:s}", "path", path);
    dk_message_add_blob(&message, dk_strdup(text), strlen(text));
    assert_ok(dk_relay_files_keep(files, &message, &err), err);
    dk_message_release(&message);
}

static void assert_holds(const char *path, const char *text)
{
    char *data;
    size_t size;
    dk_error err;
    assert_ok(dk_file_read(&data, &size, path, 1000, &err), err);
    assert_string_equal(data, text);
    dk_free(data);
}

/* "run" of one task with a picture and a checkpoint. */
static dk_message run_of(const char *picture, const char *checkpoint, bool sent)
{
    dk_message message;
    dk_message_pack(&message, "run", "{s:[{s:s, s:{s:s, s:s}, s:s}], s:b}", "tasks", "task",
                    "t", "request", "prompt", "p", "image_path", picture, "checkpoint",
                    checkpoint, "sent", sent);
    return message;
}

static const char *picture_of(const dk_message *run)
{
    const json_t *entry = json_array_get(json_object_get(run->header, "tasks"), 0);
    return json_string_value(json_object_get(json_object_get(entry, "request"), "image_path"));
}

static const char *checkpoint_of(const dk_message *run)
{
    const json_t *entry = json_array_get(json_object_get(run->header, "tasks"), 0);
    return json_string_value(json_object_get(entry, "checkpoint"));
}

static void test_what_is_here_stays(void **state)
{
    (void)state;
    char *folder = scratch_create();
    char *picture = scratch_path(folder, "a.png"),
         *saved = scratch_path(folder, "checkpoint-0");
    scratch_write(folder, "a.png", "a");
    dk_relay_files *files = dk_relay_files_create(folder);
    dk_message run = run_of(picture, saved, false);
    assert_true(dk_relay_files_use(files, &run));
    assert_string_equal(picture_of(&run), picture);
    assert_string_equal(checkpoint_of(&run), saved);
    dk_message_release(&run);
    dk_relay_files_destroy(&files);
    assert_int_equal(scratch_count(folder), 1);
    dk_free(picture);
    dk_free(saved);
    scratch_remove(folder);
}

static void test_what_is_not_here_is_asked_for(void **state)
{
    (void)state;
    char *folder = scratch_create();
    dk_relay_files *files = dk_relay_files_create(folder);
    dk_message run = run_of("/not/here/a.png", "/not/here/checkpoint-0", false);
    assert_false(dk_relay_files_use(files, &run));
    assert_string_equal(picture_of(&run), "/not/here/a.png");
    dk_message_release(&run);
    add_file(files, "/not/here/a.png", "picture");
    add_file(files, "/not/here/checkpoint-0", "half");
    run = run_of("/not/here/a.png", "/not/here/checkpoint-0", true);
    assert_true(dk_relay_files_use(files, &run));
    assert_holds(picture_of(&run), "picture");
    assert_holds(checkpoint_of(&run), "half");
    assert_string_equal(dk_path_name(picture_of(&run)), "a.png"); /* the recipe's name of it */
    assert_true(dk_starts_with(picture_of(&run), folder));
    dk_message_release(&run);
    dk_relay_files_clear(files);
    assert_int_equal(scratch_count(folder), 0);
    dk_relay_files_destroy(&files);
    scratch_remove(folder);
}

/* The scheduler could not read it either: the worker says so. */
static void test_what_is_nowhere_stays(void **state)
{
    (void)state;
    char *folder = scratch_create();
    dk_relay_files *files = dk_relay_files_create(folder);
    dk_message run = run_of("/not/here/a.png", "/not/here/checkpoint-0", true);
    assert_true(dk_relay_files_use(files, &run));
    assert_string_equal(picture_of(&run), "/not/here/a.png");
    assert_true(dk_starts_with(checkpoint_of(&run), folder));
    dk_message_release(&run);
    dk_relay_files_destroy(&files);
    scratch_remove(folder);
}

static void test_names_lead_nowhere_else(void **state)
{
    (void)state;
    static const char *const paths[] = {"/x/..", "/x/.", "/x/", "..", "", "/x/../../../y"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char *folder = scratch_create();
        dk_relay_files *files = dk_relay_files_create(folder);
        add_file(files, paths[i], "text");
        assert_int_equal(scratch_count(folder), 1);
        dk_relay_files_destroy(&files);
        assert_int_equal(scratch_count(folder), 0);
        scratch_remove(folder);
    }
}

static void write_checkpoint(const char *path, const char *text)
{
    dk_error err;
    assert_ok(dk_file_write(path, text, strlen(text), &err), err);
}

static void assert_sent(dk_relay_files *files, const char *text)
{
    dk_message message;
    assert_true(dk_relay_files_changed(files, &message));
    assert_string_equal(dk_message_type(&message), "file");
    assert_string_equal(dk_message_text(&message, "task"), "t");
    assert_int_equal(message.blobs[0].size, strlen(text));
    assert_memory_equal(message.blobs[0].data, text, strlen(text));
    dk_message_release(&message);
}

static void test_checkpoints_go_back(void **state)
{
    (void)state;
    char *folder = scratch_create();
    dk_relay_files *files = dk_relay_files_create(folder);
    dk_message message;
    add_file(files, "/not/here/a.png", "picture");
    add_file(files, "/not/here/checkpoint-0", "old");
    dk_message run = run_of("/not/here/a.png", "/not/here/checkpoint-0", true);
    assert_true(dk_relay_files_use(files, &run));
    assert_false(dk_relay_files_changed(files, &message)); /* it is where it came from */
    write_checkpoint(checkpoint_of(&run), "newer");
    assert_sent(files, "newer");
    assert_false(dk_relay_files_changed(files, &message));
    write_checkpoint(checkpoint_of(&run), "newer still");
    assert_false(dk_relay_files_changed(files, &message)); /* one at a time */
    write_checkpoint(checkpoint_of(&run), "the newest of all");
    dk_relay_files_arrived(files);
    assert_sent(files, "the newest of all");
    dk_message_release(&run);
    dk_relay_files_clear(files);
    assert_false(dk_relay_files_changed(files, &message));
    dk_relay_files_destroy(&files);
    scratch_remove(folder);
}

static void test_no_place(void **state)
{
    (void)state;
    dk_relay_files *files = dk_relay_files_create("/not/here");
    dk_message run = run_of("/not/here/a.png", "/not/here/checkpoint-0", true), message;
    dk_error err;
    assert_true(dk_relay_files_use(files, &run));
    assert_null(checkpoint_of(&run));
    dk_message_release(&run);
    dk_message_pack(&message, "file", "{s:s}", "path", "/x/a.png");
    assert_int_equal(dk_relay_files_keep(files, &message, &err), DK_FORMAT);
    dk_message_add_blob(&message, dk_strdup("a"), 1);
    assert_int_equal(dk_relay_files_keep(files, &message, &err), DK_IO);
    assert_useful(&err, "/not/here/darkroom-relay-");
    dk_message_release(&message);
    dk_relay_files_destroy(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_here_stays),
                                       cmocka_unit_test(test_what_is_not_here_is_asked_for),
                                       cmocka_unit_test(test_what_is_nowhere_stays),
                                       cmocka_unit_test(test_names_lead_nowhere_else),
                                       cmocka_unit_test(test_checkpoints_go_back),
                                       cmocka_unit_test(test_no_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
