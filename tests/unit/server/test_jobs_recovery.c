/* Opening a store of jobs: the lock, what a server that ended left behind, and databases that
   are damaged, foreign or newer. */
#include "test.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "jobs_fixture.h"
#include "scratch.h"

static dk_status try_open(const char *folder, dk_error *err)
{
    dk_jobs *jobs = NULL;
    char *path = dk_path_join(folder, "store");
    const dk_jobs_options options = {.path = path};
    dk_status status = dk_jobs_open(&jobs, &options, err);
    assert_true(status == DK_OK || jobs == NULL);
    dk_jobs_close(&jobs);
    dk_free(path);
    return status;
}

static void test_lock(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create(), pid[32];
    snprintf(pid, sizeof pid, " %ld;", (long)getpid());
    dk_jobs *jobs = store_open(folder);
    assert_int_equal(try_open(folder, &err), DK_BUSY);
    assert_useful(&err, folder);
    assert_non_null(strstr(err.message, pid));
    pid_t child = fork();
    if (child == 0) {
        _exit(try_open(folder, &err) == DK_BUSY && strstr(err.message, pid) != NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    char *id = store_create(jobs, "video", ""); /* those who came did no harm */
    dk_jobs_close(&jobs);
    jobs = store_open(folder);
    assert_int_equal(store_state(jobs, id), DK_JOB_QUEUED);
    dk_jobs_close(&jobs);
    dk_free(id);
    scratch_remove(folder);
}

static void test_reopen(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create();
    dk_jobs *jobs = store_open(folder);
    char *queued = store_create(jobs, "video", "a"), *running = store_create(jobs, "video", "");
    char *done = store_create(jobs, "video", ""), *cancelled = store_create(jobs, "video", "");
    bool flag;
    int attempts;
    assert_ok(dk_jobs_start(jobs, running, &err), err);
    assert_ok(dk_jobs_retry(jobs, running, &attempts, &err), err);
    assert_ok(dk_jobs_start(jobs, running, &err), err);
    store_output(jobs, running, 1, 30);
    assert_ok(dk_jobs_write(jobs, running, "checkpoint-0", "c", 1, &err), err);
    store_complete(jobs, done, 5);
    assert_ok(dk_jobs_cancel(jobs, cancelled, &flag, &err), err);
    dk_jobs_close(&jobs);
    assert_int_equal(store_sql(folder, "SELECT count(*) FROM pragma_integrity_check WHERE "
                                       "integrity_check = 'ok'"),
                     1);
    jobs = store_open_with(folder, 1, 0);
    dk_job_record job;
    assert_int_equal(store_state(jobs, queued), DK_JOB_QUEUED);
    assert_int_equal(store_state(jobs, cancelled), DK_JOB_CANCELLED);
    assert_ok(dk_jobs_get(jobs, running, NULL, &job, &err), err);
    assert_int_equal(job.state, DK_JOB_QUEUED);
    assert_true(job.started_ms == 0 && job.attempts == 1);
    assert_true(!job.outputs[0].done && job.outputs[1].done);
    assert_true(store_has(jobs, running, "checkpoint-0"));
    dk_job_record_release(&job);
    assert_ok(dk_jobs_get(jobs, done, NULL, &job, &err), err);
    assert_int_equal(job.state, DK_JOB_COMPLETED);
    assert_int_equal(job.expires_ms, job.completed_ms + 3600 * 1000); /* by the new option */
    dk_job_record_release(&job);
    dk_jobs_close(&jobs);
    dk_free(queued);
    dk_free(running);
    dk_free(done);
    dk_free(cancelled);
    scratch_remove(folder);
}

static void make_folder(const char *folder, const char *name)
{
    char *path = store_path(folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
    dk_free(path);
}

static void put(const char *folder, const char *id, const char *name)
{
    char *below = dk_path_join("store/jobs", id), *file = dk_path_join(below, name);
    scratch_write(folder, file, "x");
    dk_free(file);
    dk_free(below);
}

static void test_sweep(void **state)
{
    (void)state;
    static const char orphan[] = "video_0123456789abcdef0123456789abcdef";
    static const char gone[] = ".removed-image_0123456789abcdef0123456789abcdef";
    static const char *const leftovers[] = {".output-0.mp4.123.part.mp4",
                                            ".checkpoint-0.4567.part", ".thumb.jpg.1.part.jpg"};
    static const char *const kept[] = {"a.part",         ".a.part",    ".hidden",
                                       "b.1.part",       ".c.1.party", "checkpoint-x",
                                       "input-image.png"};
    dk_error err;
    char *folder = scratch_create();
    dk_jobs *jobs = store_open(folder);
    char *waiting = store_create(jobs, "video", ""), *ended = store_create(jobs, "video", "");
    bool flag;
    assert_ok(dk_jobs_cancel(jobs, ended, &flag, &err), err);
    dk_jobs_close(&jobs);
    char *ids[] = {waiting, ended};
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof leftovers / sizeof *leftovers; k++) {
            put(folder, ids[i], leftovers[k]);
        }
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++) {
            put(folder, ids[i], kept[k]);
        }
        put(folder, ids[i], "checkpoint-0");
        put(folder, ids[i], "checkpoint-11");
    }
    put(folder, orphan, "input-image.png");
    put(folder, orphan, "below/deeper");
    put(folder, gone, "output-0.mp4");
    make_folder(folder, "jobs/photographs"); /* somebody's own */
    put(folder, "photographs", "cat.jpg");
    jobs = store_open(folder);
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof leftovers / sizeof *leftovers; k++) {
            assert_false(store_has(jobs, ids[i], leftovers[k]));
        }
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++) {
            assert_true(store_has(jobs, ids[i], kept[k]));
        }
        assert_true(store_has(jobs, ids[i], "checkpoint-0") == (i == 0));
        assert_true(store_has(jobs, ids[i], "checkpoint-11") == (i == 0));
    }
    /* What stays: the files of two jobs, the picture, the store's own five. */
    int expected = 2 * (int)(sizeof kept / sizeof *kept) + 2 + 1 + 5;
    assert_int_equal(scratch_count(folder), expected);
    char *path = store_path(folder, "jobs"), *below = dk_path_join(path, orphan);
    assert_false(dk_path_exists(below));
    dk_free(below);
    dk_free(path);
    dk_jobs_close(&jobs);
    dk_free(waiting);
    dk_free(ended);
    scratch_remove(folder);
}

static void lose(const char *folder, const char *id, const char *name)
{
    char *path = store_path(folder, "jobs"), *below = dk_path_join(path, id);
    char *file = dk_path_join(below, name);
    assert_int_equal(remove(file), 0);
    dk_free(file);
    dk_free(below);
    dk_free(path);
}

static void test_missing_files(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create();
    dk_jobs *jobs = store_open(folder);
    char *done = store_create(jobs, "video", ""), *half = store_create(jobs, "video", "");
    char *lost = store_create(jobs, "video", ""), *sound = store_create(jobs, "video", "");
    store_complete(jobs, done, 5);
    store_complete(jobs, sound, 5);
    assert_false(store_output(jobs, half, 0, 5));
    dk_jobs_close(&jobs);
    lose(folder, done, "output-1.mp4");
    lose(folder, half, "output-0.mp4");
    lose(folder, lost, "input-image.png");
    lose(folder, lost, "");
    for (int i = 0; i < 2; i++) { /* the second time finds it as it is */
        jobs = store_open(folder);
        dk_job_record job;
        assert_ok(dk_jobs_get(jobs, done, NULL, &job, &err), err);
        assert_int_equal(job.state, DK_JOB_FAILED);
        assert_string_equal(job.code, "file_missing");
        assert_useful(&(dk_error){.message = "output-1.mp4 is missing from the store"},
                      "output-1.mp4");
        assert_non_null(strstr(job.error, "output-1.mp4"));
        assert_true(job.completed_ms > 0);
        dk_job_record_release(&job);
        assert_ok(dk_jobs_get(jobs, lost, NULL, &job, &err), err);
        assert_int_equal(job.state, DK_JOB_FAILED);
        assert_string_equal(job.code, "file_missing");
        assert_true(job.completed_ms > 0);
        dk_job_record_release(&job);
        assert_ok(dk_jobs_get(jobs, half, NULL, &job, &err), err);
        assert_int_equal(job.state, DK_JOB_QUEUED); /* goes on, and makes it again */
        assert_true(!job.outputs[0].done && job.outputs[0].file == NULL);
        dk_job_record_release(&job);
        assert_int_equal(store_state(jobs, sound), DK_JOB_COMPLETED);
        dk_jobs_usage usage;
        assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
        assert_int_equal(usage.bytes, 4 * 7 + 2 * 2 * 5);
        dk_jobs_close(&jobs);
    }
    jobs = store_open(folder);
    store_complete(jobs, half, 5);
    dk_jobs_close(&jobs);
    dk_free(done);
    dk_free(half);
    dk_free(lost);
    dk_free(sound);
    scratch_remove(folder);
}

/* Folders of a database that somebody took away are nobody's to remove. */
static void test_database_gone(void **state)
{
    (void)state;
    char *folder = scratch_create();
    dk_jobs *jobs = store_open(folder);
    char *id = store_create(jobs, "video", "");
    store_complete(jobs, id, 5);
    dk_jobs_close(&jobs);
    char *database = store_path(folder, "jobs.sqlite");
    assert_int_equal(unlink(database), 0);
    for (int i = 0; i < 3; i++) {
        jobs = store_open(folder);
        assert_false(store_has(jobs, id, "output-0.mp4"));
        dk_jobs_close(&jobs);
        /* Three files of the job, database, lock, reserve. */
        assert_int_equal(scratch_count(folder), 3 + 3);
    }
    dk_free(database);
    dk_free(id);
    scratch_remove(folder);
}

/* Files of jobs. */
static int count_files(const char *folder)
{
    char *path = store_path(folder, "jobs");
    int count = scratch_count(path);
    dk_free(path);
    return count;
}

static void overwrite(const char *path, long offset, size_t size)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(fputc(0x5a, file), 0x5a);
    }
    assert_int_equal(fclose(file), 0);
}

static void test_damaged(void **state)
{
    (void)state;
    dk_error err;
    /* The header; the schema's page; a page of rows: 0 is a file that is text. */
    static const long offsets[] = {0, 100, 4096, 3 * 4096};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        char *folder = scratch_create(), *path = store_path(folder, "jobs.sqlite");
        dk_jobs *jobs = store_open(folder);
        char *id = store_create(jobs, "video", ""), *before, *after;
        dk_jobs_close(&jobs);
        overwrite(path, offsets[i], 2000);
        size_t size, size_after;
        assert_ok(dk_file_read(&before, &size, path, 1 << 24, &err), err);
        int files = count_files(folder);
        assert_int_equal(try_open(folder, &err), DK_FORMAT);
        assert_useful(&err, path);
        assert_ok(dk_file_read(&after, &size_after, path, 1 << 24, &err), err);
        assert_true(size == size_after && memcmp(before, after, size) == 0);
        assert_int_equal(count_files(folder), files);        /* the job's files too */
        assert_int_equal(try_open(folder, &err), DK_FORMAT); /* and it is not locked */
        dk_free(before);
        dk_free(after);
        dk_free(path);
        dk_free(id);
        scratch_remove(folder);
    }
}

static void copy(const char *from, const char *to)
{
    dk_error err;
    char *bytes;
    size_t size;
    assert_ok(dk_file_read(&bytes, &size, from, 1 << 24, &err), err);
    assert_ok(dk_file_write(to, bytes, size, &err), err);
    dk_free(bytes);
}

/* A server was killed and the database damaged: its log, which may hold what a repair needs, is
   left as it is too. */
static void test_damaged_with_log(void **state)
{
    (void)state;
    dk_error err;
    char *folder = scratch_create(), *killed = dk_path_join(folder, "killed");
    char *from = store_path(folder, "jobs.sqlite"),
         *from_log = store_path(folder, "jobs.sqlite-wal");
    char *path = scratch_path(killed, "store/jobs.sqlite");
    char *log = store_path(killed, "jobs.sqlite-wal"), *before, *after;
    size_t size, size_after;
    bool flag;
    dk_jobs *jobs = store_open(folder);
    char *id = store_create(jobs, "video", "");
    dk_jobs_close(&jobs);
    long page =
        (long)store_sql(folder, "SELECT rootpage FROM sqlite_schema WHERE name = 'outputs'");
    jobs = store_open(folder);
    assert_ok(dk_jobs_cancel(jobs, id, &flag, &err), err); /* in the log, without outputs */
    copy(from, path);
    copy(from_log, log);
    dk_jobs_close(&jobs);
    overwrite(path, (page - 1) * 4096, 2000);
    assert_ok(dk_file_read(&before, &size, log, 1 << 24, &err), err);
    assert_true(size > 4096);
    assert_int_equal(try_open(killed, &err), DK_FORMAT);
    assert_ok(dk_file_read(&after, &size_after, log, 1 << 24, &err), err);
    assert_true(size == size_after && memcmp(before, after, size) == 0);
    char *texts[] = {killed, from, from_log, path, log, before, after, id};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        dk_free(texts[i]);
    }
    scratch_remove(folder);
}

static void test_foreign(void **state)
{
    (void)state;
    dk_error err;
    static const struct {
        const char *change;
        dk_status status;
    } cases[] = {
        {"PRAGMA user_version = 99", DK_UNSUPPORTED},
        {"PRAGMA application_id = 7", DK_FORMAT},
        {"PRAGMA user_version = 0", DK_FORMAT},
        {"PRAGMA user_version = 0; PRAGMA application_id = 0", DK_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = scratch_create(), *path = store_path(folder, "jobs.sqlite");
        dk_jobs *jobs = store_open(folder);
        char *id = store_create(jobs, "video", "");
        dk_jobs_close(&jobs);
        store_sql(folder, cases[i].change);
        int files = count_files(folder);
        assert_int_equal(try_open(folder, &err), cases[i].status);
        assert_useful(&err, path);
        assert_int_equal(count_files(folder), files);
        dk_free(id);
        dk_free(path);
        scratch_remove(folder);
    }
    /* An empty file is a new database; a store that is a file is none. */
    char *folder = scratch_create();
    scratch_write(folder, "store/jobs.sqlite", "");
    assert_ok(try_open(folder, &err), err);
    scratch_remove(folder);
    folder = scratch_create();
    scratch_write(folder, "store", "text");
    assert_int_equal(try_open(folder, &err), DK_IO);
    assert_useful(&err, folder);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_reopen),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_database_gone),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_damaged_with_log),
        cmocka_unit_test(test_foreign),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
