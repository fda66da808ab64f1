/* The thread team: threads that live as long as the team, and take numbered tasks from one
   counter.

   Why not the OpenMP runtime: its threads spin at the end of every region, and where another
   program wants the cores each operation then waits for a thread that is not scheduled. A
   generation beside a busy process took 28 s instead of 1.7 s. Here the end is reached when the
   tasks are done, whoever did them, and waiting spins for microseconds before it sleeps. */
#define _GNU_SOURCE
#include "base/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

enum {
    MAX_THREADS = 1024,
    SPINS = 1000, /* pauses before a thread sleeps: some 20 to 100 microseconds */
    NEXT_BITS = 21,
    MOST_TASKS = 1 << 20, /* of one round; with MAX_THREADS misses below 2^NEXT_BITS */
    ROUND_SHIFT = 2 * NEXT_BITS,
};

/* One round of tasks. A thread that holds a valid ticket keeps the round open, so the two
   slots, used in turn, never change under it. */
typedef struct job {
    dk_team_fn *fn;
    void *context;
    int first; /* task number of the round's first */
} job;

struct dk_team {
    int threads, started;
    pthread_t *ids; /* [threads - 1] */
    job jobs[2];
    /* round << 42 | tasks << 21 | next: taken by adding one, so that the number of a task, its
       round and how many there are come from one atomic step. */
    atomic_uint_least64_t ticket;
    atomic_int done; /* finished tasks of the round */
    atomic_int sleepers;
    atomic_bool owner_sleeps, stop;
    pthread_mutex_t mutex;
    pthread_cond_t work, finished;
};

typedef struct member {
    dk_team *team;
    int thread;
} member;

int dk_available_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return 1;
    }
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static uint64_t round_of(uint64_t ticket)
{
    return ticket >> ROUND_SHIFT;
}

/* Takes tasks until none is left; returns the round whose end it saw. */
static uint64_t take_tasks(dk_team *team, int thread)
{
    const uint64_t mask = (1u << NEXT_BITS) - 1;
    for (;;) {
        uint64_t ticket = atomic_fetch_add(&team->ticket, 1);
        int next = (int)(ticket & mask), tasks = (int)(ticket >> NEXT_BITS & mask);
        if (next >= tasks) {
            return round_of(ticket);
        }
        const job *work = &team->jobs[round_of(ticket) & 1];
        work->fn(work->context, work->first + next, thread);
        if (atomic_fetch_add(&team->done, 1) + 1 == tasks && atomic_load(&team->owner_sleeps)) {
            pthread_mutex_lock(&team->mutex);
            pthread_cond_signal(&team->finished);
            pthread_mutex_unlock(&team->mutex);
        }
    }
}

/* Waits for a round after `seen`; false: the team ends. */
static bool wait_for_round(dk_team *team, uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (round_of(atomic_load(&team->ticket)) != seen) {
            return true;
        }
        pause_briefly();
    }
    pthread_mutex_lock(&team->mutex);
    atomic_fetch_add(&team->sleepers, 1);
    while (round_of(atomic_load(&team->ticket)) == seen && !atomic_load(&team->stop)) {
        pthread_cond_wait(&team->work, &team->mutex);
    }
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->mutex);
    return !atomic_load(&team->stop);
}

static void *work_loop(void *argument)
{
    member m = *(member *)argument;
    dk_free(argument);
    uint64_t seen = 0;
    while (wait_for_round(m.team, seen)) {
        seen = take_tasks(m.team, m.thread);
    }
    return NULL;
}

/* Signals are the caller's business: the team's threads take none. */
static dk_status start_threads(dk_team *team, dk_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = 0;
    for (int i = 1; i < team->threads && code == 0; i++) {
        member *m = dk_alloc(sizeof *m);
        *m = (member){team, i};
        code = pthread_create(&team->ids[team->started], NULL, work_loop, m);
        if (code == 0) {
            team->started++;
        } else {
            dk_free(m);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code == 0 ? DK_OK
                     : dk_fail(err, DK_MEMORY, "threads: only %d of %d could be started",
                               team->started + 1, team->threads);
}

dk_status dk_pin_from_name(dk_pin *out, const char *name, const dk_topology *topology,
                           dk_error *err)
{
    static const char *const names[] = {"none", "nodes", "cores"};
    if (name == NULL || strcmp(name, "auto") == 0) {
        *out = topology->nodes > 1 ? DK_PIN_NODES : DK_PIN_NONE;
        return DK_OK;
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (dk_pin)i;
            return DK_OK;
        }
    }
    return dk_fail(err, DK_INVALID,
                   "pin_threads is '%s', accepted are auto, none, nodes, cores", name);
}

/* Binds thread i of the team; where Linux refuses, the thread runs where it likes. */
static void pin_thread(const dk_team *team, int i, dk_pin pin, const dk_topology *topology)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (pin == DK_PIN_NONE || topology->count == 0) {
        return;
    }
    const dk_cpu_place *place = &topology->places[i % topology->count];
    for (int n = 0; n < topology->count; n++) {
        bool same = pin == DK_PIN_NODES ? topology->places[n].node == place->node
                                        : topology->places[n].cpu == place->cpu;
        if (same) {
            CPU_SET((size_t)topology->places[n].cpu, &set);
        }
    }
    pthread_setaffinity_np(team->ids[i - 1], sizeof set, &set);
}

dk_status dk_team_create(dk_team **out, int threads, dk_pin pin, const dk_topology *topology,
                         dk_error *err)
{
    if (threads < 0 || threads > MAX_THREADS) {
        return dk_fail(err, DK_INVALID, "threads: %d is not in 0..%d (0 = one per core)",
                       threads, MAX_THREADS);
    }
    dk_team *team = dk_alloc(sizeof *team);
    team->threads = threads > 0 ? threads : dk_available_cores();
    team->ids = dk_alloc((size_t)team->threads * sizeof *team->ids);
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->work, NULL);
    pthread_cond_init(&team->finished, NULL);
    dk_status status = start_threads(team, err);
    if (status != DK_OK) {
        dk_team_destroy(&team);
        return status;
    }
    for (int i = 1; i < team->threads; i++) {
        pin_thread(team, i, pin, topology);
    }
    *out = team;
    return DK_OK;
}

void dk_team_destroy(dk_team **team)
{
    dk_team *t = *team;
    if (t == NULL) {
        return;
    }
    pthread_mutex_lock(&t->mutex);
    atomic_store(&t->stop, true);
    /* A round without tasks ends the spinning. */
    atomic_store(&t->ticket, (round_of(atomic_load(&t->ticket)) + 1) << ROUND_SHIFT);
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->mutex);
    for (int i = 0; i < t->started; i++) {
        pthread_join(t->ids[i], NULL);
    }
    pthread_cond_destroy(&t->finished);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->mutex);
    dk_free(t->ids);
    dk_free(t);
    *team = NULL;
}

int dk_team_threads(const dk_team *team)
{
    return team->threads;
}

static void wait_until_done(dk_team *team, int tasks)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&team->done) == tasks) {
            return;
        }
        pause_briefly();
    }
    pthread_mutex_lock(&team->mutex);
    atomic_store(&team->owner_sleeps, true);
    while (atomic_load(&team->done) != tasks) {
        pthread_cond_wait(&team->finished, &team->mutex);
    }
    atomic_store(&team->owner_sleeps, false);
    pthread_mutex_unlock(&team->mutex);
}

static void run_round(dk_team *team, int first, int tasks, dk_team_fn *fn, void *context)
{
    uint64_t round = round_of(atomic_load(&team->ticket)) + 1;
    team->jobs[round & 1] = (job){fn, context, first};
    atomic_store(&team->done, 0);
    atomic_store(&team->ticket, round << ROUND_SHIFT | (uint64_t)tasks << NEXT_BITS);
    if (atomic_load(&team->sleepers) > 0) {
        pthread_mutex_lock(&team->mutex);
        pthread_cond_broadcast(&team->work);
        pthread_mutex_unlock(&team->mutex);
    }
    take_tasks(team, 0);
    wait_until_done(team, tasks);
}

void dk_team_run(dk_team *team, int tasks, dk_team_fn *fn, void *context)
{
    if (tasks <= 1 || team->threads == 1) {
        for (int task = 0; task < tasks; task++) {
            fn(context, task, 0);
        }
        return;
    }
    for (int first = 0; first < tasks; first += MOST_TASKS) {
        int rest = tasks - first;
        run_round(team, first, rest < MOST_TASKS ? rest : MOST_TASKS, fn, context);
    }
}
