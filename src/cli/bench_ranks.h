/* A bench on several ranks: every rank runs the same command, the first one reports. */
#ifndef DK_CLI_BENCH_RANKS_H
#define DK_CLI_BENCH_RANKS_H

#include "cli/ranks.h"
#include "engine/ranks.h"

typedef struct dk_bench_ranks {
    dk_rank_team team; /* the other ranks, where this one started them */
    dk_trace *trace;   /* owned; NULL: none */
    dk_ranks *ranks;   /* owned; NULL: one rank */
} dk_bench_ranks;

/* Whether what is measured can be shared out in a layout. */
typedef dk_status dk_bench_check(const void *context, const dk_layout *layout, dk_error *err);

/* Finds this process's place, or starts the same command once more for every other rank, and
   meets them. Settles the process on its share of the cores. check: before any rank starts. */
DK_MUST_USE dk_status dk_bench_ranks_open(dk_bench_ranks *out, dk_engine_options *options,
                                          dk_bench_check *check, const void *context,
                                          dk_error *err);
void dk_bench_ranks_close(dk_bench_ranks *ranks);

#endif
