/* The thread team: every task exactly once, on a thread in range, for many sizes and teams,
   also when the cores are busy. Run under the thread sanitizer too. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/team.h"

enum { MOST = 5000, SMALL_ROUNDS = 100000, TEAMS = 8, BUSY = 3 };

typedef struct count {
    atomic_int seen[MOST];
    atomic_int bad; /* threads out of range, tasks out of range */
    int tasks, threads;
} count;

static void mark(void *context, int task, int thread)
{
    count *c = context;
    if (task < 0 || task >= c->tasks || thread < 0 || thread >= c->threads) {
        atomic_fetch_add(&c->bad, 1);
    } else {
        atomic_fetch_add_explicit(&c->seen[task], 1, memory_order_relaxed);
    }
}

static int run_once(dk_team *team, int tasks)
{
    count *c = dk_alloc(sizeof *c);
    c->tasks = tasks;
    c->threads = dk_team_threads(team);
    dk_team_run(team, tasks, mark, c);
    int wrong = atomic_load(&c->bad);
    for (int i = 0; i < MOST; i++) {
        wrong += atomic_load(&c->seen[i]) != (i < tasks);
    }
    dk_free(c);
    return wrong;
}

static void test_every_task_once(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 4, 7, 16};
    static const int tasks[] = {0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 63, 64, 100, 1000, MOST};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        dk_error err;
        dk_team *team;
        assert_ok(dk_team_create(&team, threads[t], DK_PIN_NONE, NULL, &err), err);
        assert_int_equal(dk_team_threads(team), threads[t]);
        for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
            assert_int_equal(run_once(team, tasks[i]), 0);
        }
        dk_team_destroy(&team);
        assert_null(team);
    }
}

/* More tasks than one round of the implementation holds. */
static void add_one(void *context, int task, int thread)
{
    (void)thread;
    unsigned char *seen = context;
    seen[task]++;
}

static void test_many_tasks(void **state)
{
    (void)state;
    enum { TASKS = (1 << 20) + 12345 };
    dk_error err;
    dk_team *team;
    unsigned char *seen = dk_alloc(TASKS);
    assert_ok(dk_team_create(&team, 3, DK_PIN_NONE, NULL, &err), err);
    dk_team_run(team, TASKS, add_one, seen);
    for (int i = 0; i < TASKS; i++) {
        assert_int_equal(seen[i], 1);
    }
    dk_team_destroy(&team);
    dk_free(seen);
}

/* What a round wrote is there for the next one, without atomics: the sum is a chain. */
static void chain(void *context, int task, int thread)
{
    (void)thread;
    long *cells = context;
    cells[task] = cells[task] + 1;
}

static void small_rounds(dk_team *team, int rounds)
{
    long cells[8] = {0};
    for (int i = 0; i < rounds; i++) {
        dk_team_run(team, 1 + i % 8, chain, cells);
    }
    for (int task = 0; task < 8; task++) {
        long expected = 0;
        for (int i = 0; i < rounds; i++) {
            expected += i % 8 >= task;
        }
        assert_int_equal(cells[task], expected);
    }
}

static void test_small_rounds(void **state)
{
    (void)state;
    dk_error err;
    dk_team *team;
    assert_ok(dk_team_create(&team, 3, DK_PIN_NONE, NULL, &err), err);
    small_rounds(team, SMALL_ROUNDS);
    dk_team_destroy(&team);
}

static void *burn(void *context)
{
    atomic_bool *stop = context;
    while (!atomic_load_explicit(stop, memory_order_relaxed)) {
    }
    return NULL;
}

/* More busy threads than this test should have cores. */
static void test_beside_busy_threads(void **state)
{
    (void)state;
    dk_error err;
    dk_team *team;
    pthread_t busy[BUSY];
    atomic_bool stop = false;
    for (int i = 0; i < BUSY; i++) {
        assert_int_equal(pthread_create(&busy[i], NULL, burn, &stop), 0);
    }
    assert_ok(dk_team_create(&team, 2, DK_PIN_NONE, NULL, &err), err);
    small_rounds(team, 500);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(run_once(team, 333), 0);
    }
    dk_team_destroy(&team);
    atomic_store(&stop, true);
    for (int i = 0; i < BUSY; i++) {
        pthread_join(busy[i], NULL);
    }
}

static void *own_team(void *context)
{
    dk_team *team = NULL;
    *(int *)context = 1;
    for (int i = 0; i < 10; i++) {
        if (dk_team_create(&team, 2 + i % 2, DK_PIN_NONE, NULL, NULL) != DK_OK) {
            return NULL;
        }
        for (int k = 0; k < 20; k++) {
            if (run_once(team, 10 * k) != 0) {
                return NULL;
            }
        }
        dk_team_destroy(&team);
    }
    *(int *)context = 0;
    return NULL;
}

static void test_many_teams(void **state)
{
    (void)state;
    pthread_t owners[TEAMS];
    int wrong[TEAMS];
    for (int i = 0; i < TEAMS; i++) {
        assert_int_equal(pthread_create(&owners[i], NULL, own_team, &wrong[i]), 0);
    }
    for (int i = 0; i < TEAMS; i++) {
        pthread_join(owners[i], NULL);
        assert_int_equal(wrong[i], 0);
    }
}

static void test_limits(void **state)
{
    (void)state;
    dk_error err;
    dk_team *team = NULL;
    assert_int_equal(dk_team_create(&team, -1, DK_PIN_NONE, NULL, &err), DK_INVALID);
    assert_int_equal(dk_team_create(&team, 1025, DK_PIN_NONE, NULL, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "threads: 1025 is not in 0..1024"));
    assert_null(team);
    dk_team_destroy(&team);
    assert_ok(dk_team_create(&team, 0, DK_PIN_NONE, NULL, &err), err);
    assert_int_equal(dk_team_threads(team), dk_available_cores());
    dk_team_destroy(&team); /* never used */
    assert_ok(dk_team_create(&team, 64, DK_PIN_NONE, NULL, &err), err);
    assert_int_equal(run_once(team, 3), 0);
    dk_team_destroy(&team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_once), cmocka_unit_test(test_many_tasks),
        cmocka_unit_test(test_small_rounds),    cmocka_unit_test(test_beside_busy_threads),
        cmocka_unit_test(test_many_teams),      cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
