/* The environments of launchers. */
#include "cli/launchers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Variables of one launcher; the first of them that is set and counts more than one rank is
   believed. mpi: MPI knows the ranks' addresses. */
typedef struct launcher {
    const char *rank, *ranks, *local_rank, *local_ranks;
    bool mpi;
} launcher;

static const launcher launchers[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", true},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", true},
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", false},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", true},
};

/* A number of the environment; *set false: it is not there. */
static dk_status read_number(int *out, bool *set, const char *name, int least, dk_error *err)
{
    const char *text = getenv(name);
    char *end;
    *set = text != NULL && text[0] != '\0';
    if (!*set) {
        return DK_OK;
    }
    errno = 0;
    long value = strtol(text, &end, 10);
    if (*end != '\0' || errno != 0 || value < least || value > 1 << 20) {
        return dk_fail(err, DK_INVALID, "%s is '%.60s', expected a number from %d on", name,
                       text, least);
    }
    *out = (int)value;
    return DK_OK;
}

/* Several ranks meet at MASTER_ADDR:MASTER_PORT. */
static dk_status find_address(dk_engine_options *options, dk_error *err)
{
    static char address[300]; /* lives as long as the environment that it repeats */
    const char *host = getenv("MASTER_ADDR"), *port = getenv("MASTER_PORT");
    if (host == NULL || port == NULL || strlen(host) > 255 || strlen(port) > 5) {
        return dk_fail(err, DK_INVALID,
                       "WORLD_SIZE is above 1, so MASTER_ADDR and MASTER_PORT must say where "
                       "rank 0 is met");
    }
    bool bare6 = strchr(host, ':') != NULL && host[0] != '[';
    snprintf(address, sizeof address, bare6 ? "[%s]:%s" : "%s:%s", host, port);
    options->rank_address = address;
    options->rank_key = getenv("DARKROOM_RANK_KEY");
    return DK_OK;
}

static dk_status take_place(const launcher *l, int ranks, dk_engine_options *options,
                            dk_core_share *cores, dk_error *err)
{
    bool set;
    DK_TRY(read_number(&options->rank, &set, l->rank, 0, err));
    if (!set || options->rank >= ranks) {
        return dk_fail(err, DK_INVALID, "%s is %d and %s %s, expected 0 to %d", l->ranks, ranks,
                       l->rank, set ? getenv(l->rank) : "not set", ranks - 1);
    }
    if (options->num_gpus != 0 && options->num_gpus != ranks) {
        return dk_fail(err, DK_INVALID,
                       "num_gpus is %d, but %s says that %d ranks were started",
                       options->num_gpus, l->ranks, ranks);
    }
    options->num_gpus = ranks;
    *cores = (dk_core_share){options->rank, 1};
    DK_TRY(read_number(&cores->index, &set, l->local_rank, 0, err));
    DK_TRY(read_number(&cores->of, &set, l->local_ranks, 1, err));
    if (l->mpi && options->distributed_backend == NULL) {
        options->distributed_backend = "mpi";
    }
    bool by_mpi = options->distributed_backend != NULL &&
                  strcmp(options->distributed_backend, "mpi") == 0;
    return by_mpi ? DK_OK : find_address(options, err);
}

dk_status dk_launcher_place(dk_engine_options *options, dk_core_share *cores, bool *launched,
                            dk_error *err)
{
    *launched = false;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        int ranks = 1;
        bool set;
        DK_TRY(read_number(&ranks, &set, launchers[i].ranks, 1, err));
        if (set && ranks > 1) {
            *launched = true;
            return take_place(&launchers[i], ranks, options, cores, err);
        }
    }
    return DK_OK;
}
