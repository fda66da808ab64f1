/* Calls of all ranks: the rounds, and what is laid into them and taken out. */
#include <stdio.h>
#include <string.h>

#include "comm/shm.h"

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

static uint32_t rounds_of(size_t bytes, size_t piece)
{
    return bytes == 0 ? 1 : (uint32_t)((bytes + piece - 1) / piece);
}

/* Not to be looked at any more when this rank is done with the call's first round. */
static const dk_shm_call *call_of(const dk_shm *g, int rank)
{
    return &g->ranks[rank].calls[g->round % 2];
}

static void write_call(dk_shm *g, const dk_shm_exchange *x, const dk_comm_at *at)
{
    dk_shm_call *call = &g->ranks[g->head.rank].calls[g->round % 2];
    memcpy(call, &x->call,
           offsetof(dk_shm_call, sizes) + (size_t)g->head.ranks * sizeof call->sizes[0]);
    snprintf(call->what, sizeof call->what, "%s", at->what);
}

static dk_status differ(const dk_shm *g, int rank, const dk_shm_call *theirs,
                        const dk_comm_at *at, dk_error *err)
{
    char name[DK_SHM_NAME_BYTES], own[DK_SHM_NAME_BYTES], what[DK_SHM_WHAT_BYTES];
    snprintf(what, sizeof what, "%s", theirs->what);
    dk_shm_name(g, rank, name);
    dk_shm_name(g, g->head.rank, own);
    if (strcmp(what, at->what) != 0) {
        return dk_fail(err, DK_INVALID, "%s calls %s, %s calls %s: the same call was expected",
                       name, what, own, at->what);
    }
    return dk_fail(err, DK_INVALID,
                   "%s: %s calls it with other sizes, type or root than %s (%llu against %llu)",
                   at->what, name, own, (unsigned long long)theirs->count,
                   (unsigned long long)call_of(g, g->head.rank)->count);
}

/* All ranks have laid their calls: are they the same? */
static dk_status agree(dk_shm *g, dk_shm_exchange *x, const dk_comm_at *at, dk_error *err)
{
    const dk_shm_call *own = &x->call;
    for (int i = 0; i < g->head.ranks; i++) {
        const dk_shm_call *theirs = call_of(g, i);
        x->is_direct[i] = theirs->source != 0;
        if (theirs->op != own->op || theirs->type != own->type || theirs->root != own->root ||
            theirs->reduction != own->reduction) {
            return differ(g, i, theirs, at, err);
        }
        if (x->agree != NULL) {
            dk_status status = x->agree(g, x, i, theirs, err);
            if (status != DK_OK) {
                return dk_fail_in(err, status, "%s", at->what);
            }
        } else if (theirs->count != own->count ||
                   memcmp(theirs->sizes, own->sizes,
                          (size_t)g->head.ranks * sizeof own->sizes[0]) != 0) {
            return differ(g, i, theirs, at, err);
        }
    }
    return DK_OK;
}

static size_t sum(const uint64_t *sizes, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += (size_t)sizes[i];
    }
    return total;
}

/* What the others have not laid into slots. */
static dk_status read_directly(const dk_shm *g, const dk_shm_exchange *x, const dk_comm_at *at,
                               dk_error *err)
{
    size_t offset = 0;
    for (int i = 0; i < g->head.ranks; i++) {
        const dk_shm_call *theirs = call_of(g, i);
        size_t bytes = x->whole               ? (size_t)x->call.sizes[i]
                       : x->dst_bytes != NULL ? x->dst_bytes[i]
                                              : 0;
        if (i != g->head.rank && x->is_direct[i] && bytes > 0) {
            size_t skip = x->whole ? 0 : sum(theirs->sizes, g->head.rank);
            DK_TRY(dk_shm_read(g, i, x->dst + offset, theirs->source + skip, bytes, at, err));
        }
        offset += bytes;
    }
    return DK_OK;
}

/* Round j is taken out while the others may lay round j + 1 already. */
static dk_status finish_round(dk_shm *g, const dk_shm_exchange *x, uint32_t j,
                              const dk_comm_at *at, dk_error *err)
{
    uint32_t round = g->round + j;
    DK_TRY(dk_shm_await_all(g, DK_SHM_READY, round + 1, at, err));
    if (x->share != NULL) {
        x->share(g, x, round, j);
        dk_shm_post(g, DK_SHM_REDUCED, round + 1);
        DK_TRY(dk_shm_await_all(g, DK_SHM_REDUCED, round + 1, at, err));
    } else {
        atomic_store_explicit(&g->ranks[g->head.rank].counts[DK_SHM_REDUCED], round + 1,
                              memory_order_relaxed);
    }
    if (j == 0) {
        DK_TRY(read_directly(g, x, at, err));
    }
    x->drain(g, x, round, j);
    dk_shm_post(g, DK_SHM_DONE, round + 1);
    return DK_OK;
}

dk_status dk_shm_run(dk_shm *g, dk_shm_exchange *x, const dk_comm_at *at, dk_error *err)
{
    DK_TRY(dk_shm_check_life(g, at, err));
    for (uint32_t j = 0; j <= x->rounds; j++) {
        uint32_t round = g->round + j;
        if (j < x->rounds) {
            DK_TRY(dk_shm_await_all(g, DK_SHM_DONE, round - 1, at, err));
            if (j == 0) {
                write_call(g, x, at);
            }
            x->fill(g, x, dk_shm_slot(g, g->head.rank, round), j);
            dk_shm_post(g, DK_SHM_READY, round + 1);
        }
        if (j == 0) {
            DK_TRY(dk_shm_await_all(g, DK_SHM_READY, round + 1, at, err));
            DK_TRY(agree(g, x, at, err));
        } else {
            DK_TRY(finish_round(g, x, j - 1, at, err));
        }
    }
    if (x->call.source != 0) { /* the caller's memory is read until all are done */
        DK_TRY(dk_shm_await_all(g, DK_SHM_DONE, g->round + 1, at, err));
    }
    g->round += x->rounds;
    return DK_OK;
}

/* --- all_gather, broadcast: everybody reads what a rank has laid */

static void fill_whole(dk_shm *g, const dk_shm_exchange *x, unsigned char *slot, uint32_t j)
{
    size_t begin = (size_t)j * DK_SHM_SLOT_BYTES, bytes = x->call.sizes[g->head.rank];
    if (begin < bytes && g->head.ranks > 1 && x->call.source == 0) {
        memcpy(slot, x->src + begin, at_most(bytes - begin, DK_SHM_SLOT_BYTES));
    }
}

static void drain_whole(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j)
{
    size_t begin = (size_t)j * DK_SHM_SLOT_BYTES, offset = 0;
    for (int i = 0; i < g->head.ranks; i++) {
        size_t bytes = x->call.sizes[i];
        if (i != g->head.rank && begin < bytes && !x->is_direct[i]) {
            memcpy(x->dst + offset + begin, dk_shm_slot(g, i, round),
                   at_most(bytes - begin, DK_SHM_SLOT_BYTES));
        }
        offset += bytes;
    }
}

/* Sizes are known to all, so is which of them are read where they lie. */
static void plan_whole(const dk_shm *g, dk_shm_exchange *x)
{
    x->rounds = 1;
    x->whole = true;
    for (int i = 0; i < g->head.ranks; i++) {
        bool direct = g->life->reads && x->call.sizes[i] >= DK_SHM_DIRECT_BYTES;
        uint32_t rounds = direct ? 1 : rounds_of(x->call.sizes[i], DK_SHM_SLOT_BYTES);
        x->rounds = rounds > x->rounds ? rounds : x->rounds;
        if (direct && i == g->head.rank) {
            x->call.source = (uint64_t)(uintptr_t)x->src;
        }
    }
}

dk_status dk_shm_all_gather(dk_transport *t, void *dst, const void *src, const size_t *bytes,
                            const dk_comm_at *at, dk_error *err)
{
    dk_shm *g = (dk_shm *)t;
    dk_error reason = {0};
    size_t offset = 0;
    dk_shm_exchange x = {.call.op = DK_SHM_ALL_GATHER,
                         .fill = fill_whole,
                         .drain = drain_whole,
                         .dst = dst,
                         .src = src};
    for (int i = 0; i < t->ranks; i++) {
        x.call.sizes[i] = bytes[i];
        x.call.count += bytes[i];
        offset += i < t->rank ? bytes[i] : 0;
    }
    plan_whole(g, &x);
    dk_status status = dk_shm_run(g, &x, at, &reason);
    if (status == DK_OK && bytes[t->rank] > 0) {
        memmove(x.dst + offset, src, bytes[t->rank]);
    }
    return dk_shm_end_call(g, status, &reason, err);
}

dk_status dk_shm_broadcast(dk_transport *t, void *data, size_t bytes, int root,
                           const dk_comm_at *at, dk_error *err)
{
    dk_shm *g = (dk_shm *)t;
    dk_error reason = {0};
    dk_shm_exchange x = {
        .call = {.op = DK_SHM_BROADCAST, .root = (uint32_t)root, .count = bytes},
        .fill = fill_whole,
        .drain = drain_whole,
        .dst = data,
        .src = data};
    x.call.sizes[root] = bytes;
    plan_whole(g, &x);
    return dk_shm_end_call(g, dk_shm_run(g, &x, at, &reason), &reason, err);
}

static void fill_nothing(dk_shm *g, const dk_shm_exchange *x, unsigned char *slot, uint32_t j)
{
    (void)g, (void)x, (void)slot, (void)j;
}

static void drain_nothing(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j)
{
    (void)g, (void)x, (void)round, (void)j;
}

dk_status dk_shm_barrier(dk_transport *t, const dk_comm_at *at, dk_error *err)
{
    dk_shm *g = (dk_shm *)t;
    dk_error reason = {0};
    dk_shm_exchange x = {
        .call.op = DK_SHM_BARRIER, .rounds = 1, .fill = fill_nothing, .drain = drain_nothing};
    return dk_shm_end_call(g, dk_shm_run(g, &x, at, &reason), &reason, err);
}

/* --- all_to_all: a slot has a part for each reader */

static size_t part_bytes(const dk_shm *g)
{
    return DK_SHM_SLOT_BYTES / (size_t)g->head.ranks / 64 * 64;
}

static void fill_parts(dk_shm *g, const dk_shm_exchange *x, unsigned char *slot, uint32_t j)
{
    size_t part = part_bytes(g), begin = (size_t)j * part, offset = 0;
    for (int i = 0; i < g->head.ranks; i++) {
        if (i != g->head.rank && begin < x->src_bytes[i] && x->call.source == 0) {
            memcpy(slot + (size_t)i * part, x->src + offset + begin,
                   at_most(x->src_bytes[i] - begin, part));
        }
        offset += x->src_bytes[i];
    }
}

static void drain_parts(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j)
{
    size_t part = part_bytes(g), begin = (size_t)j * part, offset = 0;
    for (int i = 0; i < g->head.ranks; i++) {
        if (i != g->head.rank && begin < x->dst_bytes[i] && !x->is_direct[i]) {
            memcpy(x->dst + offset + begin,
                   dk_shm_slot(g, i, round) + (size_t)g->head.rank * part,
                   at_most(x->dst_bytes[i] - begin, part));
        }
        offset += x->dst_bytes[i];
    }
}

/* A rank knows the sizes of what it sends and gets; how many rounds all need, their calls tell:
   count is the most that one of them sends to another. */
static dk_status agree_parts(dk_shm *g, dk_shm_exchange *x, int rank, const dk_shm_call *theirs,
                             dk_error *err)
{
    char name[DK_SHM_NAME_BYTES], own[DK_SHM_NAME_BYTES];
    uint32_t rounds = theirs->source != 0 ? 1 : rounds_of(theirs->count, part_bytes(g));
    x->rounds = rounds > x->rounds ? rounds : x->rounds;
    if (theirs->sizes[g->head.rank] != x->dst_bytes[rank]) {
        return dk_fail(err, DK_INVALID, "%s sends %llu bytes to %s, which expects %zu",
                       dk_shm_name(g, rank, name),
                       (unsigned long long)theirs->sizes[g->head.rank],
                       dk_shm_name(g, g->head.rank, own), x->dst_bytes[rank]);
    }
    return DK_OK;
}

dk_status dk_shm_all_to_all(dk_transport *t, void *dst, const size_t *dst_bytes,
                            const void *src, const size_t *src_bytes, const dk_comm_at *at,
                            dk_error *err)
{
    dk_shm *g = (dk_shm *)t;
    dk_error reason = {0};
    size_t to = 0, from = 0;
    dk_shm_exchange x = {.call.op = DK_SHM_ALL_TO_ALL,
                         .rounds = 1,
                         .fill = fill_parts,
                         .drain = drain_parts,
                         .agree = agree_parts,
                         .dst = dst,
                         .src = src,
                         .src_bytes = src_bytes,
                         .dst_bytes = dst_bytes};
    for (int i = 0; i < t->ranks; i++) {
        x.call.sizes[i] = src_bytes[i];
        if (i != t->rank && src_bytes[i] > x.call.count) {
            x.call.count = src_bytes[i];
        }
        to += i < t->rank ? dst_bytes[i] : 0;
        from += i < t->rank ? src_bytes[i] : 0;
    }
    if (g->life->reads && x.call.count >= DK_SHM_DIRECT_BYTES) {
        x.call.source = (uint64_t)(uintptr_t)src;
    }
    dk_status status = dk_shm_run(g, &x, at, &reason);
    if (status == DK_OK && src_bytes[t->rank] > 0) {
        memcpy(x.dst + to, x.src + from, src_bytes[t->rank]);
    }
    return dk_shm_end_call(g, status, &reason, err);
}
