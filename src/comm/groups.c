/* Splitting the outermost group, in one order on every rank. */
#include "comm/groups.h"

#include <assert.h>

dk_place dk_layout_place(const dk_layout *layout, int rank)
{
    dk_place place;
    place.tp = rank % layout->tp;
    rank /= layout->tp;
    place.ulysses = rank % layout->ulysses;
    rank /= layout->ulysses;
    place.ring = rank % layout->ring;
    rank /= layout->ring;
    place.cfg = rank % layout->cfg;
    place.dp = rank / layout->cfg;
    return place;
}

/* A group per setting of all coordinates but one: its color numbers that setting. */
static dk_status split(dk_comm **out, dk_comm *replica, int size, int stride, const char *name,
                       dk_error *err)
{
    int rank = dk_comm_rank(replica);
    int color = rank / (size * stride) * stride + rank % stride;
    *out = NULL;
    return size == 1 ? DK_OK : dk_comm_split(out, replica, color, rank, name, err);
}

dk_status dk_groups_create(dk_groups *out, dk_comm *world, const dk_layout *layout,
                           dk_error *err)
{
    int ranks = dk_layout_replica_ranks(layout), rank = dk_comm_rank(world);
    int tp = layout->tp, sp = dk_layout_sp(layout);
    if (dk_comm_ranks(world) != ranks * layout->dp) {
        return dk_fail(err, DK_INVALID,
                       "%d ranks are there, but dp %d x cfg %d x ring %d x ulysses %d x tp %d "
                       "takes %d",
                       dk_comm_ranks(world), layout->dp, layout->cfg, layout->ring,
                       layout->ulysses, tp, ranks * layout->dp);
    }
    *out =
        (dk_groups){.layout = *layout, .place = dk_layout_place(layout, rank), .world = world};
    dk_status status =
        dk_comm_split(&out->replica, world, rank / ranks, rank, "the replica", err);
    if (status == DK_OK) {
        status = split(&out->cfg, out->replica, layout->cfg, tp * sp, "cfg", err);
    }
    if (status == DK_OK) {
        status = split(&out->ulysses, out->replica, layout->ulysses, tp, "ulysses", err);
    }
    if (status == DK_OK) {
        status =
            split(&out->ring, out->replica, layout->ring, tp * layout->ulysses, "ring", err);
    }
    if (status == DK_OK) {
        status = split(&out->sp, out->replica, sp, tp, "sp", err);
    }
    if (status == DK_OK) {
        status = split(&out->tp, out->replica, tp, 1, "tp", err);
    }
    if (status != DK_OK) {
        dk_groups_release(out);
    }
    return status;
}

dk_status dk_groups_shard(dk_groups *groups, dk_comm *all, int ranks, dk_error *err)
{
    dk_comm *whole = all != NULL ? all : groups->world;
    int rank = dk_comm_rank(whole), tp = groups->layout.tp;
    int color = rank / tp / ranks * tp + rank % tp; /* a replica is a multiple of ranks x tp */
    return dk_comm_split(&groups->fsdp, whole, color, rank, "fsdp", err);
}

void dk_groups_release(dk_groups *groups)
{
    dk_comm_close(&groups->fsdp);
    dk_comm_close(&groups->tp);
    dk_comm_close(&groups->sp);
    dk_comm_close(&groups->ring);
    dk_comm_close(&groups->ulysses);
    dk_comm_close(&groups->cfg);
    dk_comm_close(&groups->replica);
    *groups = (dk_groups){0};
}
