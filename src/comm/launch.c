/* The environment of a rank. */
#include "comm/launch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/environment.h"
#include "base/string.h"

/* The first of the names that is set to a number; -1: none. */
static int number(const char *const *names)
{
    for (; *names != NULL; names++) {
        const char *text = dk_environment(*names);
        char *end;
        long value = text != NULL ? strtol(text, &end, 10) : -1;
        if (text != NULL && end != text && *end == '\0' && value >= 0 && value < INT_MAX) {
            return (int)value;
        }
    }
    return -1;
}

/* Ranks of one host need no port: the job's own name makes their address. */
static void set_address(dk_launch *l)
{
    const char *host = dk_environment("MASTER_ADDR"), *port = dk_environment("MASTER_PORT");
    const char *job = dk_environment("PMIX_NAMESPACE");
    if (host != NULL && dk_starts_with(host, "unix:")) {
        snprintf(l->address, sizeof l->address, "%s", host);
    } else if (host != NULL && port != NULL) {
        snprintf(l->address, sizeof l->address, "%s:%s", host, port);
    } else if (job != NULL && l->ranks > 0 && l->local_ranks == l->ranks) {
        snprintf(l->address, sizeof l->address, "unix:@darkroom-%s", job);
    }
}

void dk_launch_read(dk_launch *out)
{
    static const char *const ranks[] = {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                        "SLURM_STEP_NUM_TASKS", NULL};
    static const char *const rank[] = {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK",
                                       "SLURM_PROCID", NULL};
    static const char *const local_rank[] = {"LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
                                             "MPI_LOCALRANKID", "SLURM_LOCALID", NULL};
    static const char *const local_ranks[] = {"LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE",
                                              "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE",
                                              NULL};
    const char *key = dk_environment("DARKROOM_COMM_KEY");
    *out = (dk_launch){.rank = number(rank),
                       .ranks = number(ranks),
                       .local_rank = number(local_rank),
                       .local_ranks = number(local_ranks)};
    out->is_rank = out->ranks > 0 && out->rank >= 0;
    out->by_mpi = out->is_rank &&
                  (dk_environment("OMPI_COMM_WORLD_SIZE") != NULL ||
                   dk_environment("PMI_SIZE") != NULL || dk_environment("PMIX_RANK") != NULL);
    snprintf(out->key, sizeof out->key, "%s", key != NULL ? key : "");
    set_address(out);
}
