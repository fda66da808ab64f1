/* The store of jobs: taking in, listing, ending, expiring. */
#define _GNU_SOURCE
#include "test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "jobs_fixture.h"
#include "scratch.h"

static void assert_file(const dk_jobs *jobs, const char *id, const char *name, const char *text)
{
    dk_error err;
    char *path = dk_jobs_path(jobs, id, name), *bytes;
    size_t size;
    assert_ok(dk_file_read(&bytes, &size, path, 1000, &err), err);
    assert_int_equal(size, strlen(text));
    assert_string_equal(bytes, text);
    dk_free(bytes);
    dk_free(path);
}

static void test_create(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch(), *id = NULL;
    dk_jobs *jobs = store_open(folder);
    dk_job_order order = order_plain();
    bool again = true;
    order.owner = "0123456789abcdef";
    order.priority = -3;
    order.deadline_ms = 1234567890123;
    assert_ok(dk_jobs_create(jobs, &order, &id, &again, &err), err);
    assert_false(again);
    assert_int_equal(strlen(id), strlen("video_") + 32);
    assert_true(dk_starts_with(id, "video_"));
    assert_int_equal(strspn(id + 6, "0123456789abcdef"), 32);

    dk_job_record job;
    assert_ok(dk_jobs_get(jobs, id, NULL, &job, &err), err);
    assert_string_equal(job.id, id);
    assert_string_equal(job.kind, "video");
    assert_string_equal(job.owner, order.owner);
    assert_string_equal(job.request, order.request);
    assert_int_equal(job.state, DK_JOB_QUEUED);
    assert_int_equal(job.priority, -3);
    assert_int_equal(job.deadline_ms, order.deadline_ms);
    assert_true(job.created_ms > 1600000000000);
    assert_true(job.started_ms == 0 && job.completed_ms == 0 && job.expires_ms == 0);
    assert_true(job.attempts == 0 && job.error == NULL && job.code == NULL);
    assert_true(job.idempotency_key == NULL && job.body_sha256 == NULL);
    assert_int_equal(job.output_count, 2);
    assert_true(job.outputs[0].seed == 7 && job.outputs[1].seed == UINT64_MAX);
    for (int i = 0; i < 2; i++) {
        const dk_job_output *output = &job.outputs[i];
        assert_int_equal(output->index, i);
        assert_true(!output->done && output->file == NULL && output->thumbnail == NULL &&
                    output->spritesheet == NULL && output->recipe == NULL);
        assert_true(output->bytes == 0 && output->engine_ms == 0);
    }
    dk_job_record_release(&job);
    dk_job_record_release(&job); /* of nothing */
    assert_file(jobs, id, "input-image.png", "picture");
    assert_ok(dk_jobs_get(jobs, id, order.owner, &job, &err), err);
    dk_job_record_release(&job);
    assert_int_equal(dk_jobs_get(jobs, id, "someone else", &job, &err), DK_NOT_FOUND);
    assert_useful(&err, id);
    assert_int_equal(dk_jobs_get(jobs, "video_0", NULL, &job, &err), DK_NOT_FOUND);
    dk_free(id);
    dk_jobs_close(&jobs);
    assert_null(jobs);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

/* What cannot be taken in leaves nothing behind. */
static void test_refused(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch(), *id = NULL;
    dk_jobs *jobs = store_open(folder);
    int files = scratch_count(folder);
    bool again;
    static const char *const kinds[] = {"",   "Video",  "a/b",
                                        "..", "video_", "abcdefghijklmnopq"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        dk_job_order order = order_plain();
        order.kind = kinds[i];
        assert_int_equal(dk_jobs_create(jobs, &order, &id, &again, &err), DK_INVALID);
    }
    static const char *const names[] = {"", "..", "a/b", "/tmp/x", "a\nb"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const dk_job_input input = {names[i], "x", 1};
        dk_job_order order = order_plain();
        order.inputs = &input;
        assert_int_equal(dk_jobs_create(jobs, &order, &id, &again, &err), DK_INVALID);
    }
    dk_job_order order = order_plain();
    order.output_count = 0;
    assert_int_equal(dk_jobs_create(jobs, &order, &id, &again, &err), DK_INVALID);
    /* A file that cannot be written: its name is too long for any file system. */
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const dk_job_input inputs[] = {{"first", "x", 1}, {name, "x", 1}};
    order = order_plain();
    order.inputs = inputs;
    order.input_count = 2;
    assert_int_equal(dk_jobs_create(jobs, &order, &id, &again, &err), DK_IO);
    assert_null(id);
    assert_int_equal(scratch_count(folder), files);
    char *folders = store_path(folder, "jobs");
    assert_int_equal(rmdir(folders), 0); /* no empty folder stayed either */
    dk_free(folders);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

static void test_idempotency(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch(), *first = NULL, *id = NULL;
    dk_jobs *jobs = store_open(folder);
    dk_job_order order = order_plain();
    bool again = true;
    order.owner = "a";
    order.idempotency_key = "key";
    order.body_sha256 = "aa";
    assert_ok(dk_jobs_create(jobs, &order, &first, &again, &err), err);
    assert_false(again);
    int files = scratch_count(folder);
    assert_ok(dk_jobs_create(jobs, &order, &id, &again, &err), err);
    assert_true(again);
    assert_string_equal(id, first);
    dk_free(id);
    id = NULL;
    order.body_sha256 = "bb";
    assert_int_equal(dk_jobs_create(jobs, &order, &id, &again, &err), DK_MISMATCH);
    assert_useful(&err, first);
    assert_null(id);
    order.body_sha256 = NULL;
    assert_int_equal(dk_jobs_create(jobs, &order, &id, &again, &err), DK_MISMATCH);
    assert_int_equal(scratch_count(folder), files);
    /* The same key of somebody else, and no key twice, are other jobs. */
    order.owner = "b";
    assert_ok(dk_jobs_create(jobs, &order, &id, &again, &err), err);
    assert_false(again);
    assert_string_not_equal(id, first);
    dk_free(id);
    order.idempotency_key = NULL;
    for (int i = 0; i < 2; i++) {
        assert_ok(dk_jobs_create(jobs, &order, &id, &again, &err), err);
        assert_false(again);
        dk_free(id);
    }
    /* With its job the key goes. */
    assert_ok(dk_jobs_delete(jobs, first, &err), err);
    order.owner = "a";
    order.idempotency_key = "key";
    assert_ok(dk_jobs_create(jobs, &order, &id, &again, &err), err);
    assert_false(again);
    dk_free(id);
    dk_free(first);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

static void test_start_and_retry(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open_with(folder, 2, 0);
    char *id = store_create(jobs, "image", "");
    dk_job_record job;
    int attempts = 0;
    assert_true(dk_starts_with(id, "image_"));
    assert_ok(dk_jobs_start(jobs, id, &err), err);
    assert_ok(dk_jobs_get(jobs, id, NULL, &job, &err), err);
    int64_t started_ms = job.started_ms;
    assert_int_equal(job.state, DK_JOB_IN_PROGRESS);
    assert_true(started_ms >= job.created_ms);
    dk_job_record_release(&job);
    usleep(3000);
    assert_ok(dk_jobs_start(jobs, id, &err), err); /* again */
    assert_ok(dk_jobs_get(jobs, id, NULL, &job, &err), err);
    assert_int_equal(job.started_ms, started_ms);
    dk_job_record_release(&job);
    assert_ok(dk_jobs_retry(jobs, id, &attempts, &err), err);
    assert_int_equal(attempts, 1);
    assert_ok(dk_jobs_retry(jobs, id, &attempts, &err), err);
    assert_int_equal(attempts, 2);
    assert_ok(dk_jobs_get(jobs, id, NULL, &job, &err), err);
    assert_int_equal(job.state, DK_JOB_QUEUED);
    assert_true(job.attempts == 2 && job.started_ms == 0);
    dk_job_record_release(&job);
    dk_free(id);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

static void test_outputs(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open_with(folder, 2, 0);
    char *id = store_create(jobs, "image", "");
    dk_job_record job;
    bool flag = true;
    assert_ok(dk_jobs_start(jobs, id, &err), err);
    assert_ok(dk_jobs_write(jobs, id, "checkpoint-0", "c", 1, &err), err);
    assert_ok(dk_jobs_write(jobs, id, "checkpoint-1", "c", 1, &err), err);
    assert_ok(dk_jobs_write(jobs, id, "output-1.png", "picture", 7, &err), err);
    assert_ok(dk_jobs_write(jobs, id, "thumbnail-1.jpg", "th", 2, &err), err);
    assert_ok(dk_jobs_write(jobs, id, "sprites-1.jpg", "s", 1, &err), err);
    dk_job_output output = {.index = 1,
                            .file = (char[]){"output-1.png"},
                            .thumbnail = (char[]){"thumbnail-1.jpg"},
                            .spritesheet = (char[]){"sprites-1.jpg"},
                            .recipe = (char[]){"{}"},
                            .bytes = 7,
                            .engine_ms = 12.25};
    assert_ok(dk_jobs_output_done(jobs, id, &output, &flag, &err), err);
    assert_false(flag);
    assert_ok(dk_jobs_output_done(jobs, id, &output, &flag, &err), err); /* replaced */
    assert_false(flag);
    assert_int_equal(store_state(jobs, id), DK_JOB_IN_PROGRESS);
    assert_true(store_has(jobs, id, "checkpoint-0"));
    assert_true(store_output(jobs, id, 0, 10));
    assert_ok(dk_jobs_get(jobs, id, NULL, &job, &err), err);
    assert_int_equal(job.state, DK_JOB_COMPLETED);
    assert_true(job.completed_ms >= job.started_ms);
    assert_int_equal(job.expires_ms, job.completed_ms + 2 * 3600 * 1000);
    const dk_job_output *stored = &job.outputs[1];
    assert_true(job.outputs[0].done && stored->done);
    assert_string_equal(stored->file, "output-1.png");
    assert_string_equal(stored->thumbnail, "thumbnail-1.jpg");
    assert_string_equal(stored->spritesheet, "sprites-1.jpg");
    assert_string_equal(stored->recipe, "{}");
    assert_true(stored->bytes == 7 && stored->seed == UINT64_MAX);
    assert_true(stored->engine_ms > 12.2 && stored->engine_ms < 12.3);
    dk_job_record_release(&job);
    assert_false(store_has(jobs, id, "checkpoint-0") || store_has(jobs, id, "checkpoint-1"));
    assert_true(store_has(jobs, id, "input-image.png") && store_has(jobs, id, "output-1.png"));
    dk_jobs_usage usage;
    assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
    assert_int_equal(usage.bytes, 7 + (7 + 2 + 1) + 10); /* input, output 1, output 0 */
    assert_int_equal(usage.count[DK_JOB_COMPLETED], 1);
    dk_free(id);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

/* A job ends once; nothing moves one that has ended. */
static void test_ends_once(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open(folder);
    for (dk_job_state end = DK_JOB_COMPLETED; end <= DK_JOB_CANCELLED; end++) {
        char *id = store_create(jobs, "video", "");
        bool flag = false;
        int attempts = 9;
        dk_job_record before, after;
        assert_ok(dk_jobs_write(jobs, id, "checkpoint-0", "c", 1, &err), err);
        if (end == DK_JOB_COMPLETED) {
            store_complete(jobs, id, 3);
        } else if (end == DK_JOB_FAILED) {
            assert_ok(dk_jobs_fail(jobs, id, "lost", "three workers", &flag, &err), err);
            assert_true(flag);
        } else {
            assert_ok(dk_jobs_cancel(jobs, id, &flag, &err), err);
            assert_true(flag);
        }
        assert_false(store_has(jobs, id, "checkpoint-0"));
        assert_ok(dk_jobs_get(jobs, id, NULL, &before, &err), err);
        assert_int_equal(before.state, end);
        if (end == DK_JOB_FAILED) {
            assert_string_equal(before.code, "lost");
            assert_string_equal(before.error, "three workers");
        } else {
            assert_true(before.code == NULL && before.error == NULL);
        }
        usleep(3000);
        flag = true;
        assert_ok(dk_jobs_fail(jobs, id, "x", "y", &flag, &err), err);
        assert_false(flag);
        flag = true;
        assert_ok(dk_jobs_cancel(jobs, id, &flag, &err), err);
        assert_false(flag);
        assert_false(store_output(jobs, id, 0, 99));
        assert_false(store_output(jobs, id, 1, 99));
        assert_int_equal(dk_jobs_start(jobs, id, &err), DK_MISMATCH);
        assert_useful(&err, id);
        assert_int_equal(dk_jobs_retry(jobs, id, &attempts, &err), DK_MISMATCH);
        assert_int_equal(attempts, 9);
        assert_ok(dk_jobs_get(jobs, id, NULL, &after, &err), err);
        assert_int_equal(after.state, end);
        assert_true(after.completed_ms == before.completed_ms && after.attempts == 0);
        assert_int_equal(after.outputs[0].bytes, before.outputs[0].bytes);
        dk_job_record_release(&before);
        dk_job_record_release(&after);
        dk_free(id);
    }
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

static void test_nobody(void **state)
{
    (void)state;
    static const char *const ids[] = {"video_00000000000000000000000000000000", "", "../x"};
    dk_error err;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open(folder);
    char *mine = store_create(jobs, "video", "");
    int files = scratch_count(folder);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const dk_job_output output = {0};
        bool flag;
        int attempts;
        assert_int_equal(dk_jobs_start(jobs, ids[i], &err), DK_NOT_FOUND);
        assert_int_equal(dk_jobs_retry(jobs, ids[i], &attempts, &err), DK_NOT_FOUND);
        assert_int_equal(dk_jobs_output_done(jobs, ids[i], &output, &flag, &err), DK_NOT_FOUND);
        assert_int_equal(dk_jobs_fail(jobs, ids[i], "c", "m", &flag, &err), DK_NOT_FOUND);
        assert_int_equal(dk_jobs_cancel(jobs, ids[i], &flag, &err), DK_NOT_FOUND);
        assert_int_equal(dk_jobs_delete(jobs, ids[i], &err), DK_NOT_FOUND);
        dk_status status = i == 0 ? DK_NOT_FOUND : DK_INVALID;
        assert_int_equal(dk_jobs_write(jobs, ids[i], "f", "x", 1, &err), status);
        assert_int_equal(dk_jobs_persist(jobs, ids[i], "f", &err), status);
    }
    static const char *const names[] = {"", ".", "..", "a/b", "/etc/passwd", "a\\b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_null(dk_jobs_path(jobs, mine, names[i]));
        assert_int_equal(dk_jobs_write(jobs, mine, names[i], "x", 1, &err), DK_INVALID);
    }
    dk_job_output output = {.index = 0, .file = (char[]){"none.mp4"}};
    bool flag;
    assert_int_equal(dk_jobs_output_done(jobs, mine, &output, &flag, &err), DK_NOT_FOUND);
    assert_useful(&err, "none.mp4");
    output = (dk_job_output){.index = 2};
    assert_int_equal(dk_jobs_output_done(jobs, mine, &output, &flag, &err), DK_INVALID);
    assert_int_equal(scratch_count(folder), files);
    assert_ok(dk_jobs_delete(jobs, mine, &err), err);
    assert_int_equal(scratch_count(folder), files - 1);
    dk_job_record job;
    assert_int_equal(dk_jobs_get(jobs, mine, NULL, &job, &err), DK_NOT_FOUND);
    dk_free(mine);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

static void test_persist(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open(folder);
    char *id = store_create(jobs, "video", "");
    assert_ok(dk_jobs_write(jobs, id, "a.bin", "one", 3, &err), err);
    assert_ok(dk_jobs_write(jobs, id, "a.bin", "two", 3, &err), err);
    assert_file(jobs, id, "a.bin", "two");
    assert_ok(dk_jobs_persist(jobs, id, "a.bin", &err), err);
    assert_int_equal(dk_jobs_persist(jobs, id, "b.bin", &err), DK_NOT_FOUND);
    assert_useful(&err, "b.bin");
    dk_free(id);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

enum { LISTED = 12 };

/* Walks a list page by page and compares its ids with those of `ids` that `wanted` tells. */
static void assert_list(dk_jobs *jobs, dk_jobs_query query, char *const *ids,
                        const bool *wanted)
{
    dk_error err;
    char after[64] = "";
    bool more = true;
    int step = query.ascending ? 1 : -1, next = query.ascending ? 0 : LISTED - 1;
    while (more) {
        dk_job_list list;
        query.after = after[0] != '\0' ? after : NULL;
        assert_ok(dk_jobs_list(jobs, &query, &list, &err), err);
        assert_true(list.count <= query.limit && (!list.more || list.count == query.limit));
        for (int i = 0; i < list.count; i++) {
            while (next >= 0 && next < LISTED && !wanted[next]) {
                next += step;
            }
            assert_true(next >= 0 && next < LISTED);
            assert_string_equal(list.records[i].id, ids[next]);
            assert_int_equal(list.records[i].output_count, 2);
            next += step;
            snprintf(after, sizeof after, "%s", list.records[i].id);
        }
        more = list.more;
        assert_true(!more || list.count > 0);
        dk_job_list_release(&list);
    }
    while (next >= 0 && next < LISTED) {
        assert_false(wanted[next]);
        next += step;
    }
}

static void test_list(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch(), *ids[LISTED];
    dk_jobs *jobs = store_open(folder);
    static const char *const kinds[] = {"video", "image", NULL};
    static const char *const owners[] = {"a", "b", "", NULL};
    bool flag;
    for (int i = 0; i < LISTED; i++) {
        ids[i] = store_create(jobs, kinds[i % 2], owners[i % 3]);
        if (i % 4 == 1) {
            assert_ok(dk_jobs_cancel(jobs, ids[i], &flag, &err), err);
        } else if (i % 4 == 2) {
            assert_ok(dk_jobs_start(jobs, ids[i], &err), err);
        }
    }
    for (int k = 0; k < 3 * 4 * 2 * 2; k++) {
        dk_jobs_query query = {.kind = kinds[k % 3],
                               .owner = owners[k / 3 % 4],
                               .unfinished = k / 12 % 2 != 0,
                               .ascending = k / 24 != 0};
        bool wanted[LISTED];
        for (int i = 0; i < LISTED; i++) {
            wanted[i] = (query.kind == NULL || i % 2 == k % 3) &&
                        (query.owner == NULL || i % 3 == k / 3 % 4) &&
                        (!query.unfinished || i % 4 != 1);
        }
        for (query.limit = 1; query.limit <= LISTED + 1; query.limit++) {
            assert_list(jobs, query, ids, wanted);
        }
    }
    dk_job_list list;
    dk_jobs_query query = {.limit = 1, .after = "video_0"};
    assert_int_equal(dk_jobs_list(jobs, &query, &list, &err), DK_NOT_FOUND);
    query = (dk_jobs_query){.limit = 1, .owner = "b", .after = ids[0]};
    assert_int_equal(dk_jobs_list(jobs, &query, &list, &err), DK_NOT_FOUND); /* of "a" */
    query = (dk_jobs_query){.limit = 0};
    assert_int_equal(dk_jobs_list(jobs, &query, &list, &err), DK_INVALID);
    for (int i = 0; i < LISTED; i++) {
        dk_free(ids[i]);
    }
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

/* Ids that dk_jobs_expire told, one per line. */
static void collect(void *context, const char *id)
{
    dk_string_printf(context, "%s\n", id);
}

static void test_expire_by_age(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open_with(folder, 1, 0);
    enum { OLD = 70 }; /* more than a batch */
    char *old[OLD];
    dk_string gone = DK_STRING_EMPTY, expected = DK_STRING_EMPTY;
    for (int i = 0; i < OLD; i++) {
        old[i] = store_create(jobs, "image", "");
        store_complete(jobs, old[i], 1);
    }
    char *waiting = store_create(jobs, "image", ""), *young = store_create(jobs, "image", "");
    store_complete(jobs, young, 1);
    assert_ok(dk_jobs_expire(jobs, collect, &gone, &err), err);
    assert_int_equal(gone.length, 0);
    dk_jobs_close(&jobs);
    char *text = NULL;
    dk_string change = DK_STRING_EMPTY;
    dk_string_printf(&change,
                     "UPDATE jobs SET completed_ms = completed_ms - 3600001 - %d + seq "
                     "WHERE state = 2 AND id <> '%s'",
                     OLD + 1, young);
    store_sql(folder, dk_string_text(&change));
    jobs = store_open_with(folder, 1, 0);
    assert_ok(dk_jobs_expire(jobs, collect, &gone, &err), err);
    for (int i = 0; i < OLD; i++) {
        dk_string_printf(&expected, "%s\n", old[i]);
        dk_free(old[i]);
    }
    assert_string_equal(dk_string_text(&gone), dk_string_text(&expected));
    assert_int_equal(store_state(jobs, waiting), DK_JOB_QUEUED);
    assert_int_equal(store_state(jobs, young), DK_JOB_COMPLETED);
    /* Two inputs and two outputs, the database with its log, lock, reserve. */
    assert_int_equal(scratch_count(folder), 2 + 2 + 3 + 2);
    assert_ok(dk_jobs_expire(jobs, NULL, NULL, &err), err);
    dk_jobs_close(&jobs);
    /* 0 keeps for ever, what was to expire too. */
    jobs = store_open(folder);
    dk_job_record job;
    assert_ok(dk_jobs_get(jobs, young, NULL, &job, &err), err);
    assert_int_equal(job.expires_ms, 0);
    dk_job_record_release(&job);
    dk_jobs_close(&jobs);
    dk_free(text);
    dk_free(waiting);
    dk_free(young);
    dk_string_release(&change);
    dk_string_release(&gone);
    dk_string_release(&expected);
    scratch_remove(folder);
}

static void test_expire_by_bytes(void **state)
{
    (void)state;
    dk_error err;
    char *folder = store_scratch(), *ids[8];
    dk_jobs *jobs = store_open_with(folder, 0, 1000e-9); /* 1,000 bytes */
    dk_string gone = DK_STRING_EMPTY, expected = DK_STRING_EMPTY;
    /* 7 bytes of input and 2 x 100 of outputs each, the last two have not ended: 1,256. */
    for (int i = 0; i < 8; i++) {
        ids[i] = store_create(jobs, "image", "");
        if (i < 6) {
            store_complete(jobs, ids[i], 100);
            usleep(2000); /* another millisecond */
        }
    }
    assert_ok(dk_jobs_expire(jobs, collect, &gone, &err), err);
    dk_string_printf(&expected, "%s\n%s\n", ids[0], ids[1]);
    assert_string_equal(dk_string_text(&gone), dk_string_text(&expected));
    dk_jobs_usage usage;
    assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
    assert_int_equal(usage.bytes, 4 * 207 + 2 * 7);
    assert_true(usage.count[DK_JOB_COMPLETED] == 4 && usage.count[DK_JOB_QUEUED] == 2);
    dk_string_clear(&gone);
    assert_ok(dk_jobs_expire(jobs, collect, &gone, &err), err);
    assert_int_equal(gone.length, 0);
    dk_jobs_close(&jobs);
    /* A limit that even nothing would not keep: what has not ended stays. */
    jobs = store_open_with(folder, 0, 1e-9);
    assert_ok(dk_jobs_expire(jobs, NULL, NULL, &err), err);
    assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
    assert_true(usage.count[DK_JOB_COMPLETED] == 0 && usage.count[DK_JOB_QUEUED] == 2);
    assert_int_equal(usage.bytes, 2 * 7);
    for (int i = 0; i < 8; i++) {
        dk_free(ids[i]);
    }
    dk_jobs_close(&jobs);
    dk_string_release(&gone);
    dk_string_release(&expected);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_idempotency),
        cmocka_unit_test(test_start_and_retry),
        cmocka_unit_test(test_outputs),
        cmocka_unit_test(test_ends_once),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_persist),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_expire_by_age),
        cmocka_unit_test(test_expire_by_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
