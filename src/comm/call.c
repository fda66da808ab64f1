/* Calls on a transport: those that it has not are made of those that it has. */
#include "comm/call.h"

const char *const dk_comm_op_names[DK_COMM_OP_COUNT] = {
    "all_reduce", "reduce_scatter", "all_gather", "gather", "all_to_all",
    "broadcast",  "send",           "receive",    "shift",  "barrier"};

/* As a failed allocation names it. */
static const char MEMORY_FOR[] = "a collective call";

static size_t sum(const size_t *sizes, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += sizes[i];
    }
    return total;
}

/* What came rank by rank, each [outer][bytes[rank]], along the inner dimension. */
static void interleave(const dk_transport *t, char *dst, const char *src, size_t outer,
                       const size_t *bytes)
{
    size_t row = sum(bytes, t->ranks), at = 0;
    for (int r = 0; r < t->ranks; r++) {
        for (size_t o = 0; o < outer; o++) {
            dk_lane_copy(t->lane, dst + o * row + at, src, bytes[r]);
            src += bytes[r];
        }
        at += bytes[r];
    }
}

static void scale_sizes(size_t *out, const size_t *bytes, size_t outer, int ranks)
{
    for (int r = 0; r < ranks; r++) {
        out[r] = bytes[r] * outer;
    }
}

static dk_status all_gather(const dk_comm_call *c, dk_transport *t, dk_lane_memory *scratch,
                            const dk_comm_at *at, dk_error *err)
{
    if (c->outer == 1) {
        return t->ops->all_gather(t, c->dst, c->src, c->dst_bytes, at, err);
    }
    size_t sizes[DK_COMM_MOST_RANKS];
    scale_sizes(sizes, c->dst_bytes, c->outer, t->ranks);
    DK_TRY(dk_lane_reserve(t->lane, scratch, sum(sizes, t->ranks), MEMORY_FOR, err));
    DK_TRY(t->ops->all_gather(t, scratch->memory, c->src, sizes, at, err));
    interleave(t, c->dst, scratch->memory, c->outer, c->dst_bytes);
    return DK_OK;
}

static dk_status gather(const dk_comm_call *c, dk_transport *t, dk_lane_memory *scratch,
                        const dk_comm_at *at, dk_error *err)
{
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    out[c->peer] = c->dst_bytes[t->rank] * c->outer;
    void *dst = NULL;
    if (t->rank == c->peer) {
        scale_sizes(in, c->dst_bytes, c->outer, t->ranks);
        DK_TRY(dk_lane_reserve(t->lane, scratch, c->outer > 1 ? sum(in, t->ranks) : 0,
                               MEMORY_FOR, err));
        dst = c->outer > 1 ? scratch->memory : c->dst;
    }
    DK_TRY(t->ops->all_to_all(t, dst, in, c->src, out, at, err));
    if (t->rank == c->peer && c->outer > 1) {
        interleave(t, c->dst, scratch->memory, c->outer, c->dst_bytes);
    }
    return DK_OK;
}

static dk_status reduce_scatter(const dk_comm_call *c, dk_transport *t, dk_lane_memory *scratch,
                                const dk_comm_at *at, dk_error *err)
{
    if (t->ops->reduce_scatter != NULL) {
        return t->ops->reduce_scatter(t, c->dst, c->src, c->type, c->dst_bytes, c->reduction,
                                      at, err);
    }
    size_t count = sum(c->dst_bytes, t->ranks), unit = dk_dtype_bytes(c->type);
    DK_TRY(dk_lane_reserve(t->lane, scratch, count * unit, MEMORY_FOR, err));
    dk_lane_copy(t->lane, scratch->memory, c->src, count * unit);
    DK_TRY(t->ops->all_reduce(t, scratch->memory, c->type, count, c->reduction, at, err));
    dk_lane_copy(t->lane, c->dst,
                 (const char *)scratch->memory + sum(c->dst_bytes, t->rank) * unit,
                 c->dst_bytes[t->rank] * unit);
    return DK_OK;
}

static dk_status shift(const dk_comm_call *c, dk_transport *t, const dk_comm_at *at,
                       dk_error *err)
{
    int next = (t->rank + 1) % t->ranks, before = (t->rank + t->ranks - 1) % t->ranks;
    if (t->ops->send_receive != NULL) {
        return t->ops->send_receive(t, c->src, c->src_bytes[0], next, c->dst, c->dst_bytes[0],
                                    before, at, err);
    }
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    out[next] = c->src_bytes[0];
    in[before] = c->dst_bytes[0];
    return t->ops->all_to_all(t, c->dst, in, c->src, out, at, err);
}

static dk_status message(const dk_comm_call *c, dk_transport *t, const dk_comm_at *at,
                         dk_error *err)
{
    bool sends = c->op == DK_COMM_SEND;
    if (t->ops->send_receive == NULL) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: %s has no messages between two ranks, accepted are the calls that "
                       "all ranks make, and the backends shm and mpi",
                       at->what, t->ops->name);
    }
    return t->ops->send_receive(t, c->src, sends ? c->src_bytes[0] : 0, sends ? c->peer : -1,
                                c->dst, sends ? 0 : c->dst_bytes[0], sends ? -1 : c->peer, at,
                                err);
}

static dk_status make(const dk_comm_call *c, dk_transport *t, dk_lane_memory *scratch,
                      const dk_comm_at *at, dk_error *err)
{
    switch (c->op) {
    case DK_COMM_ALL_REDUCE:
        return t->ops->all_reduce(t, c->dst, c->type, c->count, c->reduction, at, err);
    case DK_COMM_REDUCE_SCATTER:
        return reduce_scatter(c, t, scratch, at, err);
    case DK_COMM_ALL_GATHER:
        return all_gather(c, t, scratch, at, err);
    case DK_COMM_GATHER:
        return gather(c, t, scratch, at, err);
    case DK_COMM_ALL_TO_ALL:
        return t->ops->all_to_all(t, c->dst, c->dst_bytes, c->src, c->src_bytes, at, err);
    case DK_COMM_BROADCAST:
        return t->ops->broadcast(t, c->dst, c->count, c->peer, at, err);
    case DK_COMM_SEND:
    case DK_COMM_RECEIVE:
        return message(c, t, at, err);
    case DK_COMM_SHIFT:
        return shift(c, t, at, err);
    case DK_COMM_BARRIER:
        return t->ops->barrier(t, at, err);
    default:
        return dk_fail(err, DK_INTERNAL, "%s: no such call", at->what);
    }
}

dk_status dk_comm_call_run(const dk_comm_call *c, dk_transport *t, dk_lane_memory *scratch,
                           const dk_comm_at *at, dk_error *err)
{
    DK_TRY(make(c, t, scratch, at, err));
    return dk_lane_wait(t->lane, at->what, err);
}

double dk_comm_call_bytes(const dk_comm_call *c, int rank, int ranks)
{
    double others = ranks - 1, unit = 1, total = 0;
    switch (c->op) {
    case DK_COMM_ALL_REDUCE:
        return 2 * others / ranks * (double)(c->count * dk_dtype_bytes(c->type));
    case DK_COMM_REDUCE_SCATTER:
        unit = (double)dk_dtype_bytes(c->type);
        return unit * (double)(sum(c->dst_bytes, ranks) - c->dst_bytes[rank]);
    case DK_COMM_ALL_GATHER:
        return others * (double)(c->outer * c->dst_bytes[rank]);
    case DK_COMM_GATHER:
        return rank == c->peer ? 0 : (double)(c->outer * c->dst_bytes[rank]);
    case DK_COMM_ALL_TO_ALL:
        total = (double)sum(c->src_bytes, ranks);
        return total - (double)c->src_bytes[rank];
    case DK_COMM_BROADCAST:
        return rank == c->peer ? others * (double)c->count : 0;
    case DK_COMM_SEND:
    case DK_COMM_SHIFT:
        return ranks > 1 ? (double)c->src_bytes[0] : 0;
    default:
        return 0;
    }
}
