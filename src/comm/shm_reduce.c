/* all_reduce and reduce_scatter in shared memory. Sums are taken in the order of ranks, so
   their bits depend on nothing else. */
#include <string.h>

#include "comm/reduce.h"
#include "comm/shm.h"

enum {
    SMALL_BYTES = 32 << 10, /* up to here every rank sums all: one wait less */
    ALIGNED = 64,
};

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Of bytes that all ranks have laid, those that a rank sums: [*begin, *end), multiples of
   ALIGNED but for the end. */
static void share_of(const dk_shm *g, int rank, size_t bytes, size_t *begin, size_t *end)
{
    size_t ranks = (size_t)g->head.ranks;
    size_t share = (bytes + ranks - 1) / ranks;
    share = (share + ALIGNED - 1) / ALIGNED * ALIGNED;
    *begin = at_most((size_t)rank * share, bytes);
    *end = at_most(*begin + share, bytes);
}

static void reduce_slots(const dk_shm *g, const dk_shm_exchange *x, uint32_t round,
                         unsigned char *data, size_t begin, size_t bytes)
{
    const void *src[DK_COMM_MOST_RANKS];
    for (int i = 0; i < g->head.ranks; i++) {
        src[i] = i == g->head.rank ? data : dk_shm_slot(g, i, round) + begin;
    }
    dk_dtype type = (dk_dtype)x->call.type;
    dk_reduce(data, src, g->head.ranks, type, bytes / dk_dtype_bytes(type),
              (dk_reduction)x->call.reduction);
}

/* Bytes of round j. */
static size_t round_bytes(const dk_shm_exchange *x, uint32_t j)
{
    size_t bytes = x->call.count * dk_dtype_bytes((dk_dtype)x->call.type);
    return at_most(bytes - (size_t)j * DK_SHM_SLOT_BYTES, DK_SHM_SLOT_BYTES);
}

static void fill_small(dk_shm *g, const dk_shm_exchange *x, unsigned char *slot, uint32_t j)
{
    (void)g;
    memcpy(slot, x->src, round_bytes(x, j));
}

static void drain_small(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j)
{
    reduce_slots(g, x, round, x->dst, 0, round_bytes(x, j));
}

/* All but this rank's own share, which no other reads. */
static void fill_shares(dk_shm *g, const dk_shm_exchange *x, unsigned char *slot, uint32_t j)
{
    const unsigned char *src = x->src + (size_t)j * DK_SHM_SLOT_BYTES;
    size_t begin, end, bytes = round_bytes(x, j);
    share_of(g, g->head.rank, bytes, &begin, &end);
    memcpy(slot, src, begin);
    memcpy(slot + end, src + end, bytes - end);
}

static void reduce_share(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j)
{
    unsigned char *dst = x->dst + (size_t)j * DK_SHM_SLOT_BYTES;
    size_t begin, end;
    share_of(g, g->head.rank, round_bytes(x, j), &begin, &end);
    reduce_slots(g, x, round, dst + begin, begin, end - begin);
    memcpy(dk_shm_slot(g, g->head.rank, round) + begin, dst + begin, end - begin);
}

static void drain_shares(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j)
{
    unsigned char *dst = x->dst + (size_t)j * DK_SHM_SLOT_BYTES;
    for (int i = 0; i < g->head.ranks; i++) {
        size_t begin, end;
        share_of(g, i, round_bytes(x, j), &begin, &end);
        if (i != g->head.rank) {
            memcpy(dst + begin, dk_shm_slot(g, i, round) + begin, end - begin);
        }
    }
}

static dk_status check_type(dk_dtype type, const dk_comm_at *at, dk_error *err)
{
    return dk_reduces(type) ? DK_OK
                            : dk_fail(err, DK_INVALID, "%s: of %s, expected F32, BF16 or I32",
                                      at->what, dk_dtype_name(type));
}

dk_status dk_shm_all_reduce(dk_transport *t, void *data, dk_dtype type, size_t count,
                            dk_reduction reduction, const dk_comm_at *at, dk_error *err)
{
    dk_shm *g = (dk_shm *)t;
    dk_error reason = {0};
    DK_TRY(check_type(type, at, err));
    size_t bytes = count * dk_dtype_bytes(type);
    bool is_small = bytes <= SMALL_BYTES;
    dk_shm_exchange x = {
        .call = {.op = DK_SHM_ALL_REDUCE, .type = type, .reduction = reduction, .count = count},
        .rounds = 1,
        .fill = is_small ? fill_small : fill_shares,
        .share = is_small ? NULL : reduce_share,
        .drain = is_small ? drain_small : drain_shares,
        .dst = data,
        .src = data};
    if (!is_small) {
        x.rounds = (uint32_t)((bytes + DK_SHM_SLOT_BYTES - 1) / DK_SHM_SLOT_BYTES);
    }
    return dk_shm_end_call(g, dk_shm_run(g, &x, at, &reason), &reason, err);
}

/* --- reduce_scatter: a slot has a part for each reader */

static size_t part_bytes(const dk_shm *g)
{
    return DK_SHM_SLOT_BYTES / (size_t)g->head.ranks / ALIGNED * ALIGNED;
}

static void fill_parts(dk_shm *g, const dk_shm_exchange *x, unsigned char *slot, uint32_t j)
{
    size_t part = part_bytes(g), begin = (size_t)j * part, offset = 0;
    for (int i = 0; i < g->head.ranks; i++) {
        size_t bytes = x->call.sizes[i];
        if (i != g->head.rank && begin < bytes) {
            memcpy(slot + (size_t)i * part, x->src + offset + begin,
                   at_most(bytes - begin, part));
        }
        offset += bytes;
    }
}

static void drain_parts(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j)
{
    size_t part = part_bytes(g), begin = (size_t)j * part, offset = 0;
    size_t own = x->call.sizes[g->head.rank];
    dk_dtype type = (dk_dtype)x->call.type;
    const void *src[DK_COMM_MOST_RANKS];
    if (begin >= own) {
        return;
    }
    for (int i = 0; i < g->head.rank; i++) {
        offset += x->call.sizes[i];
    }
    for (int i = 0; i < g->head.ranks; i++) {
        src[i] = i == g->head.rank ? x->src + offset + begin
                                   : dk_shm_slot(g, i, round) + (size_t)g->head.rank * part;
    }
    dk_reduce(x->dst + begin, src, g->head.ranks, type,
              at_most(own - begin, part) / dk_dtype_bytes(type),
              (dk_reduction)x->call.reduction);
}

dk_status dk_shm_reduce_scatter(dk_transport *t, void *dst, const void *src, dk_dtype type,
                                const size_t *counts, dk_reduction reduction,
                                const dk_comm_at *at, dk_error *err)
{
    dk_shm *g = (dk_shm *)t;
    dk_error reason = {0};
    DK_TRY(check_type(type, at, err));
    dk_shm_exchange x = {
        .call = {.op = DK_SHM_REDUCE_SCATTER, .type = type, .reduction = reduction},
        .rounds = 1,
        .fill = fill_parts,
        .drain = drain_parts,
        .dst = dst,
        .src = src};
    for (int i = 0; i < t->ranks; i++) {
        size_t bytes = counts[i] * dk_dtype_bytes(type), part = part_bytes(g);
        uint32_t rounds = (uint32_t)((bytes + part - 1) / part);
        x.call.sizes[i] = bytes;
        x.call.count += counts[i];
        x.rounds = rounds > x.rounds ? rounds : x.rounds;
    }
    return dk_shm_end_call(g, dk_shm_run(g, &x, at, &reason), &reason, err);
}
