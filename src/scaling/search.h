/* Which layouts are worth trying: all that can work for a number of ranks, best first. */
#ifndef DK_SCALING_SEARCH_H
#define DK_SCALING_SEARCH_H

#include "scaling/cost.h"

typedef struct dk_candidate {
    dk_layout layout;
    bool sharded;
    dk_cost cost;
    double throughput; /* steps per second of all replicas */
    double speedup;    /* of that over one rank's, which may not fit */
} dk_candidate;

typedef struct dk_search {
    int ranks;
    int dp;             /* replicas; 0: any number */
    bool may_shard;     /* layouts that do not fit are tried with sharded weights, too */
    bool by_throughput; /* else by the seconds of a step */
} dk_search;

/* The candidates in order: those that fit first, in classes 2 % wide; in one, what sends least.
 *out is owned (dk_free), [*count]; nothing is DK_INVALID. */
DK_MUST_USE dk_status dk_search_layouts(dk_candidate **out, int *count, const dk_search *search,
                                        const dk_geometry *geometry, const dk_machine *machine,
                                        const dk_cost_options *options, dk_error *err);

#endif
