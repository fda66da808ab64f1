/* The store of jobs, used by many threads, and how fast it is. */
#include "test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "jobs_fixture.h"
#include "scratch.h"

/* Threads that race to create with one key, to end one job, and that list meanwhile. */
enum { THREADS = 6, ROUNDS = 150 };
typedef struct contestant {
    dk_jobs *jobs;
    pthread_barrier_t *barrier;
    int index;
    char *ids[ROUNDS];
    int created, ended;
} contestant;

static void race_round(contestant *racer, int round)
{
    dk_error err;
    bool flag = false;
    char key[16];
    dk_job_order order = order_plain();
    snprintf(key, sizeof key, "%d", round);
    order.idempotency_key = key;
    pthread_barrier_wait(racer->barrier);
    assert_ok(dk_jobs_create(racer->jobs, &order, &racer->ids[round], &flag, &err), err);
    racer->created += !flag;
    const char *id = racer->ids[round];
    pthread_barrier_wait(racer->barrier);
    switch (racer->index % 3) {
    case 0:
        assert_ok(dk_jobs_cancel(racer->jobs, id, &flag, &err), err);
        break;
    case 1:
        assert_ok(dk_jobs_fail(racer->jobs, id, "c", "m", &flag, &err), err);
        break;
    default:
        flag = store_output(racer->jobs, id, racer->index / 3, 5); /* 0 or 1 */
    }
    racer->ended += flag;
    dk_job_list list;
    const dk_jobs_query query = {.limit = 100, .owner = "", .unfinished = round % 2 != 0};
    assert_ok(dk_jobs_list(racer->jobs, &query, &list, &err), err);
    dk_job_list_release(&list);
}

static void *race(void *context)
{
    for (int round = 0; round < ROUNDS; round++) {
        race_round(context, round);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open(folder);
    pthread_t threads[THREADS];
    pthread_barrier_t barrier;
    contestant racers[THREADS];
    int created = 0, ended = 0;
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        racers[i] = (contestant){.jobs = jobs, .barrier = &barrier, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        created += racers[i].created;
        ended += racers[i].ended;
    }
    assert_int_equal(created, ROUNDS);
    assert_int_equal(ended, ROUNDS);
    for (int i = 0; i < THREADS; i++) {
        for (int round = 0; round < ROUNDS; round++) {
            assert_string_equal(racers[i].ids[round], racers[0].ids[round]);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        for (int round = 0; round < ROUNDS; round++) {
            dk_free(racers[i].ids[round]);
        }
    }
    pthread_barrier_destroy(&barrier);
    dk_jobs_close(&jobs);
    scratch_remove(folder);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *times, int count)
{
    qsort(times, (size_t)count, sizeof *times, compare);
    return times[count / 2];
}

/* WAITING: each seventh job is b's, each twentieth of all is not cancelled. */
enum { MANY = 10000, TIMED = 201, WAITING = (MANY + 139) / 140 };

static double time_lists(dk_jobs *jobs, const dk_jobs_query *query, int64_t count)
{
    dk_error err;
    double times[TIMED];
    for (int i = 0; i < TIMED; i++) {
        dk_job_list list;
        double start = dk_now_ms();
        assert_ok(dk_jobs_list(jobs, query, &list, &err), err);
        times[i] = dk_now_ms() - start;
        assert_int_equal(list.count, count);
        dk_job_list_release(&list);
    }
    return median(times, TIMED);
}

static double time_usage(dk_jobs *jobs)
{
    dk_error err;
    double times[TIMED];
    for (int i = 0; i < TIMED; i++) {
        dk_jobs_usage usage;
        double start = dk_now_ms();
        assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
        times[i] = dk_now_ms() - start;
    }
    return median(times, TIMED);
}

/* The bounds hold where fsync costs nothing; they are medians, for a busy machine. */
static void test_speed(void **state)
{
    (void)state;
    if (DK_TEST_SLACK_KIB > 0 || !dk_path_is_folder("/dev/shm")) {
        skip();
    }
    dk_error err;
    char *folder = store_scratch();
    dk_jobs *jobs = store_open(folder);
    double *creates = dk_alloc(MANY * sizeof *creates), gets[TIMED];
    char *middle = NULL;
    for (int i = 0; i < MANY; i++) {
        double start = dk_now_ms();
        char *id = store_create(jobs, i % 100 != 0 ? "image" : "video", i % 7 != 0 ? "a" : "b");
        creates[i] = dk_now_ms() - start;
        bool ended;
        if (i % 20 != 0) {
            assert_ok(dk_jobs_cancel(jobs, id, &ended, &err), err);
        }
        dk_free(i == MANY / 2 ? NULL : id);
        middle = i == MANY / 2 ? id : middle;
    }
    for (int i = 0; i < TIMED; i++) {
        double start = dk_now_ms();
        assert_int_equal(store_state(jobs, middle), DK_JOB_QUEUED);
        gets[i] = dk_now_ms() - start;
    }
    const dk_jobs_query all = {.limit = 100}, behind = {.limit = 100, .after = middle},
                        rare = {.limit = 100, .kind = "video", .ascending = true},
                        waiting = {.limit = 100, .unfinished = true, .owner = "b"};
    double create_ms = median(creates, MANY), get_ms = median(gets, TIMED);
    double all_ms = time_lists(jobs, &all, 100), behind_ms = time_lists(jobs, &behind, 100);
    double rare_ms = time_lists(jobs, &rare, 100), usage_ms = time_usage(jobs);
    double waiting_ms = time_lists(jobs, &waiting, WAITING);
    dk_jobs_close(&jobs);
    double start = dk_now_ms();
    jobs = store_open(folder);
    double open_ms = dk_now_ms() - start;
    print_message("create %.3f ms, get %.4f ms, list of 100 of %d: all %.2f, behind %.2f, one "
                  "kind %.2f, unfinished %.2f ms; usage %.2f ms, open %.0f ms\n",
                  create_ms, get_ms, MANY, all_ms, behind_ms, rare_ms, waiting_ms, usage_ms,
                  open_ms);
    assert_true(create_ms <= 5);
    assert_true(get_ms <= 0.2);
    assert_true(all_ms <= 5 && behind_ms <= 5 && rare_ms <= 5 && waiting_ms <= 5);
    assert_true(usage_ms <= 20 && open_ms <= 5000);
    dk_jobs_close(&jobs);
    dk_free(middle);
    dk_free(creates);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
