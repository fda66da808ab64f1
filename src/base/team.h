/* The thread team: one per engine. Work comes as numbered tasks whose borders do not depend on
   the number of threads, so results are bit-equal for any team size. */
#ifndef DK_BASE_TEAM_H
#define DK_BASE_TEAM_H

#include "base/error.h"

typedef struct dk_team dk_team;

/* threads = 0: one per available core. Owned. */
DK_MUST_USE dk_status dk_team_create(dk_team **out, int threads, dk_error *err);
void dk_team_destroy(dk_team **team);
int dk_team_threads(const dk_team *team);

/* One task; `thread` in [0, threads) selects per-thread scratch memory. */
typedef void dk_team_fn(void *context, int task, int thread);

/* Runs fn for every task in [0, tasks) and returns when all are done. Tasks are taken in order
   by whichever thread is free. Not reentrant: a task must not call it. */
void dk_team_run(dk_team *team, int tasks, dk_team_fn *fn, void *context);

int dk_available_cores(void); /* cores this process may run on, at least 1 */

#endif
