/* Several replicas whose ranks a launcher started: rank 0's process serves, and the leader of
   every other replica, on this host or another, takes its requests from rank 0's scheduler
   (worker/relay.h).

   Under MPI all ranks are one world, which is what the leaders learn through where that
   scheduler is. Else each replica is a world of its own, and its ranks first meet rank 0's
   process. With MASTER_PORT p and n replicas these ports are used on the host of rank 0:

     p       replica 0's own meeting (also without other replicas)
     p + d   where the ranks of replica d are told where the scheduler is, again and again:
             a replica that was lost, and is started again, comes back that way
     p + n   the scheduler, for relays

   and p + n + d on the host that leads replica d, for that replica's own meeting. */
#ifndef DK_CLI_REPLICAS_H
#define DK_CLI_REPLICAS_H

#include "cli/models.h"
#include "cli/processes.h"
#include "comm/launch.h"
#include "server/scheduler/scheduler.h"
#include "server/wire/introduction.h"

typedef struct dk_replicas {
    dk_launch launch; /* as the launcher numbers ranks, of all replicas */
    dk_layout layout;
    bool by_mpi;
    char workers_address[320];    /* where rank 0's scheduler listens to relays */
    char introduction[64];        /* rank 0: the path of what it tells them, a file without a
                                     name, which ends with this process */
    dk_introduction told;         /* others, unless by MPI */
    const dk_engine_setup *setup; /* borrowed */
} dk_replicas;

/* Whether the options, which hold a layout, and the environment ask for that. */
bool dk_replicas_are_launched(const dk_layout *layout);
/* Whether ranks that a launcher started, if it did, are connected by MPI. */
bool dk_replicas_by_mpi(const dk_engine_options *options);

/* Rank 0 begins to expect the others; those come to it. Then the environment and the options
   say this process's place in its own world. */
DK_MUST_USE dk_status dk_replicas_meet(dk_replicas *out, const dk_layout *layout,
                                       dk_engine_setup *setup, dk_error *err);
/* Which rank of its own replica this one is, and of which. */
dk_place dk_replicas_place(const dk_replicas *r, int *rank);

/* What rank 0's scheduler is told besides. */
void dk_replicas_add_words(const dk_replicas *r, dk_command_line *scheduler);
/* The leader of a replica other than the first, to its end. */
DK_MUST_USE dk_status dk_replicas_lead(const dk_replicas *r,
                                       const dk_scheduler_options *scheduler, const dk_log *log,
                                       dk_error *err);

/* The command line of a replica's worker; options as the server has them. */
void dk_worker_command_line(dk_command_line *out, const dk_scheduler_options *scheduler,
                            const dk_engine_options *options, const dk_layout *layout,
                            bool one_world);

#endif
