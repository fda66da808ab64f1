/* A store of jobs whose database fails at every single write and sync, once or from then on: a
   change that was refused did not happen, one that succeeded did, and all goes on afterwards.
 */
#include "test.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "faulty_vfs.h"
#include "jobs_fixture.h"
#include "scratch.h"

/* Jobs that a round changes, and what must be so afterwards. */
typedef struct round_state {
    dk_jobs *jobs;
    char *completes, *cancelled, *deleted, *started; /* ids, owned */
    char *created;                                   /* NULL: refused */
    dk_job_state completes_is, cancelled_is, started_is;
    bool is_deleted;
    int64_t count;
} round_state;

static int64_t count_jobs(dk_jobs *jobs)
{
    dk_error err;
    dk_jobs_usage usage;
    int64_t count = 0;
    assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
    for (int i = 0; i < 5; i++) {
        count += usage.count[i];
    }
    return count;
}

static bool went(dk_status status, int code)
{
    dk_status failure = code == SQLITE_FULL ? DK_NO_SPACE : DK_IO;
    assert_true(status == DK_OK || status == failure);
    return status == DK_OK;
}

static void prepare(round_state *round, dk_jobs *jobs)
{
    dk_error err;
    *round = (round_state){.jobs = jobs};
    round->completes = store_create(jobs, "video", "");
    round->cancelled = store_create(jobs, "video", "");
    round->deleted = store_create(jobs, "video", "");
    round->started = store_create(jobs, "video", "");
    store_output(jobs, round->completes, 0, 10);
    assert_ok(dk_jobs_write(jobs, round->completes, "output-1.mp4", "x", 1, &err), err);
    round->count = count_jobs(jobs);
}

/* Every change, each of which may be refused. */
static void change(round_state *round, int code)
{
    dk_jobs *jobs = round->jobs;
    dk_job_order order = order_plain();
    dk_job_output output = {.index = 1, .file = (char[]){"output-1.mp4"}};
    bool flag = false;
    went(dk_jobs_create(jobs, &order, &round->created, &flag, NULL), code);
    round->count += round->created != NULL;
    if (went(dk_jobs_start(jobs, round->started, NULL), code)) {
        round->started_is = DK_JOB_IN_PROGRESS;
    }
    flag = false;
    if (went(dk_jobs_output_done(jobs, round->completes, &output, &flag, NULL), code)) {
        assert_true(flag);
        round->completes_is = DK_JOB_COMPLETED;
    }
    flag = false;
    if (went(dk_jobs_cancel(jobs, round->cancelled, &flag, NULL), code)) {
        assert_true(flag);
        round->cancelled_is = DK_JOB_CANCELLED;
    }
    round->is_deleted = went(dk_jobs_delete(jobs, round->deleted, NULL), code);
    round->count -= round->is_deleted;
}

static void check(round_state *round)
{
    dk_jobs *jobs = round->jobs;
    assert_int_equal(store_state(jobs, round->completes), round->completes_is);
    assert_int_equal(store_state(jobs, round->cancelled), round->cancelled_is);
    assert_int_equal(store_state(jobs, round->started), round->started_is);
    if (!round->is_deleted) {
        assert_int_equal(store_state(jobs, round->deleted), DK_JOB_QUEUED);
    }
    assert_int_equal(store_has(jobs, round->deleted, "input-image.png"), !round->is_deleted);
    if (round->created != NULL) {
        assert_int_equal(store_state(jobs, round->created), DK_JOB_QUEUED);
        assert_true(store_has(jobs, round->created, "input-image.png"));
    }
    assert_int_equal(count_jobs(jobs), round->count);
}

static void forget(round_state *round)
{
    dk_free(round->completes);
    dk_free(round->cancelled);
    dk_free(round->deleted);
    dk_free(round->started);
    dk_free(round->created);
}

/* One round in a store of its own; false: the fault came too late to happen. */
static bool run_round(int nth, int code, bool lasting)
{
    char *folder = store_scratch();
    round_state round;
    prepare(&round, store_open(folder));
    faulty_vfs_arm(nth, code, lasting);
    change(&round, code);
    bool happened = faulty_vfs_failures() > 0;
    check(&round); /* what is read does not need the disk */
    faulty_vfs_arm(0, 0, false);
    check(&round);
    dk_free(store_create(round.jobs, "video", "")); /* and it goes on */
    round.count++;
    check(&round);
    dk_jobs_close(&round.jobs);
    assert_int_equal(store_sql(folder, "SELECT count(*) FROM pragma_integrity_check WHERE "
                                       "integrity_check = 'ok'"),
                     1);
    round.jobs = store_open(folder);
    round.started_is = DK_JOB_QUEUED;
    check(&round);
    dk_jobs_close(&round.jobs);
    forget(&round);
    scratch_remove(folder);
    return happened;
}

static void run_rounds(int code, bool lasting)
{
    int nth = 1;
    while (run_round(nth, code, lasting)) {
        nth++;
    }
    print_message("%d places failed\n", nth - 1);
    assert_true(nth > 20);
}

static void test_write(void **state)
{
    (void)state;
    run_rounds(SQLITE_IOERR_WRITE, false);
    run_rounds(SQLITE_IOERR_WRITE, true);
}

static void test_sync(void **state)
{
    (void)state;
    run_rounds(SQLITE_IOERR_FSYNC, false);
    run_rounds(SQLITE_IOERR_FSYNC, true);
}

static void test_full(void **state)
{
    (void)state;
    run_rounds(SQLITE_FULL, false);
    run_rounds(SQLITE_FULL, true);
}

/* The first opening, failing at every place, leaves something that opens afterwards. */
static void test_open(void **state)
{
    (void)state;
    dk_error err;
    bool happened = true;
    int nth = 0;
    while (happened) {
        char *folder = store_scratch(), *path = dk_path_join(folder, "store");
        const dk_jobs_options options = {.path = path};
        dk_jobs *jobs = NULL;
        faulty_vfs_arm(++nth, SQLITE_IOERR_WRITE, true);
        dk_status status = dk_jobs_open(&jobs, &options, &err);
        happened = faulty_vfs_failures() > 0;
        assert_true(status == DK_IO || status == DK_OK);
        dk_jobs_close(&jobs);
        faulty_vfs_arm(0, 0, false);
        jobs = store_open(folder);
        dk_free(store_create(jobs, "video", ""));
        dk_jobs_close(&jobs);
        dk_free(path);
        scratch_remove(folder);
    }
    assert_true(nth > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_sync),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_open),
    };
    faulty_vfs_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
