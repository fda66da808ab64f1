/* A rank that somebody else started. */
#include "cli/launchers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "comm/launch.h"

static dk_status take_place(const dk_launch *l, dk_rank_team *team, dk_engine_options *options,
                            dk_core_share *cores, dk_error *err)
{
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

dk_status dk_launcher_rank(int *rank, int *ranks, bool *launched, dk_error *err)
{
    dk_launch launch;
    DK_TRY(dk_launch_check(err));
    dk_launch_read(&launch);
    *rank = launch.rank;
    *ranks = launch.ranks;
    *launched = launch.is_rank && launch.ranks > 1;
    return DK_OK;
}

dk_status dk_launcher_place(dk_rank_team *team, dk_engine_options *options,
                            dk_core_share *cores, bool *launched, dk_error *err)
{
    dk_launch launch;
    DK_TRY(dk_launch_check(err));
    dk_launch_read(&launch);
    *launched = launch.is_rank && launch.ranks > 1;
    return *launched ? take_place(&launch, team, options, cores, err) : DK_OK;
}

dk_status dk_launcher_arrange(dk_rank_team *team, dk_error *err)
{
    unsigned char bytes[20];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        return dk_fail(err, DK_IO, "no random numbers for the ranks' key: %s", strerror(errno));
    }
    for (int i = 0; i < 16; i++) {
        snprintf(team->key + 2 * i, 3, "%02x", bytes[i]);
    }
    snprintf(team->address, sizeof team->address, "unix:@darkroom-ranks-%d-%02x%02x%02x%02x",
             (int)getpid(), bytes[16], bytes[17], bytes[18], bytes[19]);
    return DK_OK;
}

static void set_number(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

void dk_launcher_tell(const dk_rank_team *team, int rank, int ranks)
{
    setenv("MASTER_ADDR", team->address, 1);
    setenv("DARKROOM_COMM_KEY", team->key, 1);
    set_number("WORLD_SIZE", ranks);
    set_number("LOCAL_WORLD_SIZE", ranks);
    set_number("RANK", rank);
    set_number("LOCAL_RANK", rank);
}
