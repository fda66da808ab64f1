/* The groups that the ranks of a replica form (design: Groups):
   rank = tp + TP (sp + SP cfg), sp = ulysses + ULYSSES ring. Inside sp, Ulysses ranks are
   neighbours and ring ranks are strided by the Ulysses degree. Data-parallel replicas are
   groups of their own, which the outermost communicator is split into. */
#ifndef DK_COMM_GROUPS_H
#define DK_COMM_GROUPS_H

#include "base/string.h"
#include "comm/communicator.h"

/* Degrees; all at least 1. */
typedef struct dk_layout {
    int tp, ulysses, ring, cfg, dp;
} dk_layout;

static inline int dk_layout_sp(const dk_layout *layout)
{
    return layout->ulysses * layout->ring;
}
static inline int dk_layout_replica_ranks(const dk_layout *layout)
{
    return layout->tp * layout->ulysses * layout->ring * layout->cfg;
}

/* Where a rank stands in each direction. */
typedef struct dk_place {
    int tp, ulysses, ring, cfg, dp;
} dk_place;
dk_place dk_layout_place(const dk_layout *layout, int rank);

/* The layout of num_gpus ranks by the user's flags; 0: not given. sp defaults to what the
   others leave, ulysses to sp, ring to what ulysses leaves. DK_INVALID lists the layouts that
   would be accepted. */
typedef struct dk_layout_request {
    int num_gpus, dp_size, sp_degree, ulysses_degree, ring_degree, tp_size;
    bool cfg_parallel;
    bool one_replica; /* what is listed has one */
} dk_layout_request;
DK_MUST_USE dk_status dk_layout_resolve(dk_layout *out, const dk_layout_request *request,
                                        dk_error *err);

typedef struct dk_groups {
    dk_layout layout;
    dk_place place;
    dk_comm *world;                          /* borrowed */
    dk_comm *replica;                        /* tp x sp x cfg ranks; owned, as all below */
    dk_comm *tp, *sp, *ulysses, *ring, *cfg; /* of one rank: NULL */
    dk_comm *fsdp; /* who keep the parts of one weight; NULL: every rank keeps it whole */
} dk_groups;

/* The same order on every rank: dp, cfg, ulysses, ring, sp, tp. */
DK_MUST_USE dk_status dk_groups_create(dk_groups *out, dk_comm *world, const dk_layout *layout,
                                       dk_error *err);
void dk_groups_release(dk_groups *groups);

/* Ranks of a replica that have the same weights are sp x cfg: neighbours of them, `asked` at a
   time (0: all), share weights out. *ranks: how many do. DK_INVALID lists what is accepted. */
DK_MUST_USE dk_status dk_layout_shards(int *ranks, const dk_layout *layout, int asked,
                                       dk_error *err);
/* Then groups->fsdp is theirs; after dk_groups_create, by all ranks. all: a communicator of the
   same ranks as the world (borrowed), which it is split from; NULL: the world. */
DK_MUST_USE dk_status dk_groups_shard(dk_groups *groups, dk_comm *all, int ranks,
                                      dk_error *err);

/* Draws the groups of a layout, one line per direction: --print-topology. shards: ranks that
   share weights out; 0: none do. */
void dk_layout_draw(dk_string *out, const dk_layout *layout, int shards);

/* A whole of `total` in `parts` as equal as can be: the first ones have one more. */
static inline int64_t dk_part_begin(int64_t total, int parts, int part)
{
    int64_t more = total % parts;
    return total / parts * part + (part < more ? part : more);
}
static inline int64_t dk_part_size(int64_t total, int parts, int part)
{
    return dk_part_begin(total, parts, part + 1) - dk_part_begin(total, parts, part);
}

#endif
