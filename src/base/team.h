/* The thread team: one per engine. Work comes as numbered tasks whose borders do not depend on
   the number of threads, so results are bit-equal for any team size. */
#ifndef DK_BASE_TEAM_H
#define DK_BASE_TEAM_H

#include "base/error.h"
#include "base/topology.h"

typedef struct dk_team dk_team;

/* Where threads may run. The caller of dk_team_run works too and is never bound: its thread is
   not the team's. */
typedef enum dk_pin {
    DK_PIN_NONE,
    DK_PIN_NODES, /* anywhere on a NUMA node, nodes taking turns */
    DK_PIN_CORES, /* on one CPU each, physical cores first */
} dk_pin;

/* "auto" (or NULL: nodes where there are several, else none), "none", "nodes", "cores". */
DK_MUST_USE dk_status dk_pin_from_name(dk_pin *out, const char *name,
                                       const dk_topology *topology, dk_error *err);

/* threads = 0: one per available core. topology may be NULL with DK_PIN_NONE. Owned. */
DK_MUST_USE dk_status dk_team_create(dk_team **out, int threads, dk_pin pin,
                                     const dk_topology *topology, dk_error *err);
void dk_team_destroy(dk_team **team);
int dk_team_threads(const dk_team *team);

/* One task; `thread` in [0, threads) selects per-thread scratch memory. */
typedef void dk_team_fn(void *context, int task, int thread);

/* Runs fn for every task in [0, tasks) and returns when all are done. Tasks are taken in order
   by whichever thread is free. Not reentrant: a task must not call it. */
void dk_team_run(dk_team *team, int tasks, dk_team_fn *fn, void *context);

int dk_available_cores(void); /* cores this process may run on, at least 1 */

#endif
