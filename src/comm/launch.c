/* The environment of a rank. */
#include "comm/launch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/environment.h"
#include "base/string.h"
#include "comm/transport.h"

/* -1: not set, or no number. */
static int number_of(const char *name)
{
    const char *text = dk_environment(name);
    char *end;
    long value = text != NULL ? strtol(text, &end, 10) : -1;
    bool fits = text != NULL && end != text && *end == '\0' && value >= 0 && value < INT_MAX;
    return fits ? (int)value : -1;
}

/* The first of the names that is set to a number; -1: none. */
static int number(const char *const *names)
{
    int value = -1;
    for (; *names != NULL && value < 0; names++) {
        value = number_of(*names);
    }
    return value;
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

static dk_status check_numbers(dk_error *err)
{
    static const char *const names[] = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = dk_environment(names[i]);
        if (text != NULL && number_of(names[i]) < 0) {
            return dk_fail(err, DK_INVALID,
                           "the environment's %s is '%s', accepted are whole numbers from 0 on",
                           names[i], text);
        }
    }
    return DK_OK;
}

/* A stray RANK alone is no launch; beside MASTER_ADDR it is. */
static dk_status check_both(const dk_launch *l, dk_error *err)
{
    bool has_rank = dk_environment("RANK") != NULL,
         has_size = dk_environment("WORLD_SIZE") != NULL;
    if (l->is_rank || dk_environment("MASTER_ADDR") == NULL || has_rank == has_size) {
        return DK_OK;
    }
    return dk_fail(
        err, DK_INVALID,
        "the environment has MASTER_ADDR and %s, but not %s: a rank is told both, or "
        "none of the three",
        has_rank ? "RANK" : "WORLD_SIZE", has_rank ? "WORLD_SIZE" : "RANK");
}

dk_status dk_launch_check(dk_error *err)
{
    dk_launch l;
    dk_launch_read(&l);
    DK_TRY(check_numbers(err));
    DK_TRY(check_both(&l, err));
    if (!l.is_rank && l.ranks != 0) {
        return DK_OK;
    }
    if (l.ranks < 1 || l.ranks > DK_COMM_MOST_RANKS) {
        return dk_fail(err, DK_INVALID,
                       "%d ranks were started, accepted are 1 to %d, all replicas together",
                       l.ranks, DK_COMM_MOST_RANKS);
    }
    if (l.rank >= l.ranks) {
        return dk_fail(err, DK_INVALID,
                       "this is started as rank %d of %d, expected 0 to %d: see RANK and "
                       "WORLD_SIZE, or the launcher's own variables",
                       l.rank, l.ranks, l.ranks - 1);
    }
    return l.local_ranks < 1 || l.local_rank < l.local_ranks
               ? DK_OK
               : dk_fail(err, DK_INVALID,
                         "LOCAL_RANK is %d, accepted with a LOCAL_WORLD_SIZE of %d are 0 to %d",
                         l.local_rank, l.local_ranks, l.local_ranks - 1);
}
