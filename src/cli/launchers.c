/* A rank that somebody else started. */
#include "cli/launchers.h"

#include <stdio.h>
#include <string.h>

#include "comm/launch.h"

static dk_status take_place(const dk_launch *l, dk_rank_team *team, dk_engine_options *options,
                            dk_core_share *cores, dk_error *err)
{
    if (l->rank >= l->ranks) {
        return dk_fail(err, DK_INVALID,
                       "this is started as rank %d of %d, expected 0 to %d: see RANK and "
                       "WORLD_SIZE, or the launcher's own variables",
                       l->rank, l->ranks, l->ranks - 1);
    }
    if (options->num_gpus > 1 && options->num_gpus != l->ranks) {
        return dk_fail(err, DK_INVALID, "num_gpus is %d, but %d ranks were started",
                       options->num_gpus, l->ranks);
    }
    options->num_gpus = l->ranks;
    options->rank = l->rank;
    if (l->local_rank >= 0) {
        *cores = (dk_core_share){l->local_rank, l->local_ranks > 0 ? l->local_ranks : 1};
    }
    snprintf(team->address, sizeof team->address, "%s", l->address);
    snprintf(team->key, sizeof team->key, "%s", l->key);
    options->rank_address = l->address[0] != '\0' ? team->address : NULL;
    options->rank_key = team->key;
    const char *backend = options->distributed_backend;
    bool mpi = l->by_mpi &&
               (backend == NULL || strcmp(backend, "auto") == 0 || strcmp(backend, "mpi") == 0);
    if (mpi) {
        options->distributed_backend = "mpi";
    } else if (options->rank_address == NULL) {
        return dk_fail(
            err, DK_INVALID,
            "rank %d of %d: MASTER_ADDR and MASTER_PORT must say where rank 0 is met", l->rank,
            l->ranks);
    }
    return DK_OK;
}

bool dk_launcher_rank(int *rank, int *ranks)
{
    dk_launch launch;
    dk_launch_read(&launch);
    *rank = launch.rank;
    *ranks = launch.ranks;
    return launch.is_rank && launch.ranks > 1;
}

dk_status dk_launcher_place(dk_rank_team *team, dk_engine_options *options,
                            dk_core_share *cores, bool *launched, dk_error *err)
{
    dk_launch launch;
    dk_launch_read(&launch);
    *launched = launch.is_rank && launch.ranks > 1;
    return *launched ? take_place(&launch, team, options, cores, err) : DK_OK;
}
