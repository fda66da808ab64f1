/* The thread team on the OpenMP runtime: its threads live between calls. */
#define _GNU_SOURCE
#include "base/team.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/alloc.h"

enum { MAX_THREADS = 1024 };

struct dk_team {
    int threads;
};

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

dk_status dk_team_create(dk_team **out, int threads, dk_error *err)
{
    if (threads < 0 || threads > MAX_THREADS) {
        return dk_fail(err, DK_INVALID, "threads: %d is not in 0..%d (0 = one per core)",
                       threads, MAX_THREADS);
    }
    dk_team *team = dk_alloc(sizeof *team);
    team->threads = threads > 0 ? threads : dk_available_cores();
    *out = team;
    return DK_OK;
}

void dk_team_destroy(dk_team **team)
{
    dk_free(*team);
    *team = NULL;
}

int dk_team_threads(const dk_team *team)
{
    return team->threads;
}

void dk_team_run(dk_team *team, int tasks, dk_team_fn *fn, void *context)
{
    if (tasks <= 1 || team->threads == 1) {
        for (int task = 0; task < tasks; task++) {
            fn(context, task, 0);
        }
        return;
    }
    atomic_int next = 0;
    int threads = team->threads < tasks ? team->threads : tasks;
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num();
        for (;;) {
            int task = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed);
            if (task >= tasks) {
                break;
            }
            fn(context, task, thread);
        }
    }
}
