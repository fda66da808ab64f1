/* The transport over MPI: messages between two ranks carry every call, so that a call can be
   given up, names who is missing, and sums in the order of the ranks whatever the MPI library
   would have done. MPI's own collective calls can do none of that. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "comm/mpi/exchange.h"
#include "comm/reduce.h"

/* Up to this size every rank gets everything and sums on its own: one exchange, not two. */
static const size_t SMALL_BYTES = (size_t)64 << 10;
/* Larger broadcasts to several ranks go out in parts, which the ranks pass on. */
static const size_t LARGE_BROADCAST_BYTES = (size_t)256 << 10;
/* What a reduction has under way, over all ranks. */
static const size_t SCRATCH_BYTES = (size_t)8 << 20;
static const char MEMORY_FOR[] = "a reduction over MPI";

static dk_mpi_transport *own(dk_transport *t)
{
    return (dk_mpi_transport *)t;
}

static void copy(void *dst, const void *src, size_t bytes)
{
    if (bytes > 0 && dst != src) {
        memcpy(dst, src, bytes);
    }
}

static dk_status all_gather(dk_transport *base, void *dst, const void *src, const size_t *bytes,
                            const dk_comm_at *at, dk_error *err)
{
    dk_mpi_transport *t = own(base);
    char *place = dst, *mine = NULL;
    for (int rank = 0; rank < base->ranks; rank++) {
        if (rank != base->rank) {
            dk_mpi_post_receive(t, place, bytes[rank], rank);
        } else {
            mine = place;
        }
        place += bytes[rank];
    }
    for (int step = 1; step < base->ranks; step++) {
        dk_mpi_post_send(t, src, bytes[base->rank], (base->rank + step) % base->ranks);
    }
    copy(mine, src, bytes[base->rank]);
    return dk_mpi_wait(t, at, err);
}

static dk_status all_to_all(dk_transport *base, void *dst, const size_t *dst_bytes,
                            const void *src, const size_t *src_bytes, const dk_comm_at *at,
                            dk_error *err)
{
    dk_mpi_transport *t = own(base);
    char *in = dst;
    const char *out = src;
    for (int rank = 0; rank < base->ranks; rank++) {
        if (rank != base->rank) {
            dk_mpi_post_receive(t, in, dst_bytes[rank], rank);
        }
        in += dst_bytes[rank];
    }
    in = dst;
    for (int rank = 0; rank < base->ranks; rank++) {
        if (rank != base->rank) {
            dk_mpi_post_send(t, out, src_bytes[rank], rank);
        } else {
            copy(in, out, src_bytes[rank]);
        }
        in += dst_bytes[rank];
        out += src_bytes[rank];
    }
    return dk_mpi_wait(t, at, err);
}

static dk_status check_type(dk_dtype type, const dk_comm_at *at, dk_error *err)
{
    if (dk_reduces(type)) {
        return DK_OK;
    }
    return dk_fail(err, DK_UNSUPPORTED,
                   "%s: numbers of type %s, accepted are F32, BF16 and I32", at->what,
                   dk_dtype_name(type));
}

/* Elements [begin, begin + count) of everybody's part: src is [sum of counts], and this rank's
   part is reduced into dst[counts[rank]]. */
static dk_status reduce_block(dk_mpi_transport *t, char *dst, const char *src, dk_dtype type,
                              const size_t *counts, size_t begin, size_t block,
                              dk_reduction reduction, const dk_comm_at *at, dk_error *err)
{
    size_t unit = dk_dtype_bytes(type), before = 0, mine = 0;
    const void *parts[DK_COMM_MOST_RANKS];
    int rank = t->base.rank, ranks = t->base.ranks;
    if (counts[rank] > begin) {
        mine = counts[rank] - begin < block ? counts[rank] - begin : block;
    }
    for (int i = 0; i < ranks; i++) {
        char *place = (char *)t->scratch + (size_t)i * block * unit;
        parts[i] = place;
        if (i != rank) {
            dk_mpi_post_receive(t, place, mine * unit, i);
        }
    }
    for (int i = 0; i < ranks; i++) {
        const char *part = src + (before + begin) * unit;
        size_t left = counts[i] > begin ? counts[i] - begin : 0;
        if (i == rank) {
            parts[i] = part;
        } else {
            dk_mpi_post_send(t, part, (left < block ? left : block) * unit, i);
        }
        before += counts[i];
    }
    DK_TRY(dk_mpi_wait(t, at, err));
    if (mine > 0) {
        dk_reduce(dst + begin * unit, parts, ranks, type, mine, reduction);
    }
    return DK_OK;
}

/* dst may be this rank's part of src. */
static dk_status reduce_scatter(dk_transport *base, void *dst, const void *src, dk_dtype type,
                                const size_t *counts, dk_reduction reduction,
                                const dk_comm_at *at, dk_error *err)
{
    dk_mpi_transport *t = own(base);
    size_t most = 0, unit = dk_dtype_bytes(type);
    DK_TRY(check_type(type, at, err));
    for (int i = 0; i < base->ranks; i++) {
        most = counts[i] > most ? counts[i] : most;
    }
    size_t block = SCRATCH_BYTES / ((size_t)base->ranks * unit);
    block = most < block ? most : block;
    DK_TRY(dk_try_reserve(&t->scratch, &t->scratch_bytes, (size_t)base->ranks * block * unit,
                          MEMORY_FOR, err));
    for (size_t begin = 0; begin < most; begin += block) {
        DK_TRY(reduce_block(t, dst, src, type, counts, begin, block, reduction, at, err));
    }
    return DK_OK;
}

static dk_status all_reduce_small(dk_mpi_transport *t, void *data, dk_dtype type, size_t count,
                                  dk_reduction reduction, const dk_comm_at *at, dk_error *err)
{
    size_t bytes = count * dk_dtype_bytes(type), sizes[DK_COMM_MOST_RANKS];
    const void *parts[DK_COMM_MOST_RANKS];
    DK_TRY(dk_try_reserve(&t->scratch, &t->scratch_bytes, (size_t)t->base.ranks * bytes,
                          MEMORY_FOR, err));
    for (int i = 0; i < t->base.ranks; i++) {
        sizes[i] = bytes;
        parts[i] = (const char *)t->scratch + (size_t)i * bytes;
    }
    DK_TRY(all_gather(&t->base, t->scratch, data, sizes, at, err));
    dk_reduce(data, parts, t->base.ranks, type, count, reduction);
    return DK_OK;
}

static dk_status all_reduce(dk_transport *base, void *data, dk_dtype type, size_t count,
                            dk_reduction reduction, const dk_comm_at *at, dk_error *err)
{
    size_t unit = dk_dtype_bytes(type), ranks = (size_t)base->ranks, begin = 0;
    size_t counts[DK_COMM_MOST_RANKS], sizes[DK_COMM_MOST_RANKS];
    DK_TRY(check_type(type, at, err));
    if (count * unit <= SMALL_BYTES) {
        return all_reduce_small(own(base), data, type, count, reduction, at, err);
    }
    for (size_t i = 0; i < ranks; i++) {
        counts[i] = count / ranks + (i < count % ranks ? 1 : 0);
        sizes[i] = counts[i] * unit;
        begin += i < (size_t)base->rank ? counts[i] : 0;
    }
    char *mine = (char *)data + begin * unit;
    DK_TRY(reduce_scatter(base, mine, data, type, counts, reduction, at, err));
    return all_gather(base, data, mine, sizes, at, err);
}

static dk_status broadcast_whole(dk_mpi_transport *t, void *data, size_t bytes, int root,
                                 const dk_comm_at *at, dk_error *err)
{
    if (t->base.rank != root) {
        dk_mpi_post_receive(t, data, bytes, root);
    }
    for (int i = 0; t->base.rank == root && i < t->base.ranks; i++) {
        if (i != root) {
            dk_mpi_post_send(t, data, bytes, i);
        }
    }
    return dk_mpi_wait(t, at, err);
}

static dk_status broadcast(dk_transport *base, void *data, size_t bytes, int root,
                           const dk_comm_at *at, dk_error *err)
{
    dk_mpi_transport *t = own(base);
    size_t ranks = (size_t)base->ranks, sizes[DK_COMM_MOST_RANKS], begin = 0;
    if (ranks <= 2 || bytes < LARGE_BROADCAST_BYTES) {
        return broadcast_whole(t, data, bytes, root, at, err);
    }
    char *mine = data;
    for (size_t i = 0; i < ranks; i++) {
        sizes[i] = bytes / ranks + (i < bytes % ranks ? 1 : 0);
        if (i == (size_t)base->rank) {
            mine = (char *)data + begin;
        } else if (base->rank == root) {
            dk_mpi_post_send(t, (char *)data + begin, sizes[i], (int)i);
        }
        begin += sizes[i];
    }
    if (base->rank != root) {
        dk_mpi_post_receive(t, mine, sizes[base->rank], root);
    }
    DK_TRY(dk_mpi_wait(t, at, err));
    return all_gather(base, data, mine, sizes, at, err);
}

static dk_status send_receive(dk_transport *base, const void *src, size_t src_bytes, int to,
                              void *dst, size_t dst_bytes, int from, const dk_comm_at *at,
                              dk_error *err)
{
    dk_mpi_transport *t = own(base);
    if (from >= 0 && from != base->rank) {
        dk_mpi_post_receive(t, dst, dst_bytes, from);
    }
    if (to >= 0 && to != base->rank) {
        dk_mpi_post_send(t, src, src_bytes, to);
    } else if (to == base->rank) {
        copy(dst, src, src_bytes);
    }
    return dk_mpi_wait(t, at, err);
}

static dk_status barrier(dk_transport *base, const dk_comm_at *at, dk_error *err)
{
    char here = 1, all[DK_COMM_MOST_RANKS];
    size_t sizes[DK_COMM_MOST_RANKS];
    for (int i = 0; i < base->ranks; i++) {
        sizes[i] = 1;
    }
    return all_gather(base, all, &here, sizes, at, err);
}

/* What a rank says in a split. */
typedef struct wish {
    int color, key, next_tag;
} wish;

static const dk_transport_ops ops;

static dk_mpi_transport *make_group(const dk_mpi_transport *t, const wish *wishes, int color)
{
    dk_mpi_transport *made = dk_alloc(sizeof *made);
    made->base = (dk_transport){.ops = &ops};
    made->life = t->life;
    int members[DK_COMM_MOST_RANKS], count = 0;
    for (int rank = 0; rank < t->base.ranks; rank++) {
        if (wishes[rank].color != color) {
            continue;
        }
        int at = count++; /* sorted by key, then by rank */
        for (; at > 0 && wishes[members[at - 1]].key > wishes[rank].key; at--) {
            members[at] = members[at - 1];
        }
        members[at] = rank;
    }
    for (int i = 0; i < count; i++) {
        made->world[i] = t->world[members[i]];
        made->base.rank = members[i] == t->base.rank ? i : made->base.rank;
    }
    made->base.ranks = count;
    return made;
}

/* A group is a list of ranks and a tag that no other group of any of its ranks has: nothing of
   MPI's, whose way of making groups knows no deadline. */
static dk_status split(dk_transport **out, dk_transport *base, int color, int key,
                       const dk_comm_at *at, dk_error *err)
{
    dk_mpi_transport *t = own(base);
    const wish mine = {.color = color, .key = key, .next_tag = t->life->next_tag};
    wish wishes[DK_COMM_MOST_RANKS];
    size_t sizes[DK_COMM_MOST_RANKS];
    for (int i = 0; i < base->ranks; i++) {
        sizes[i] = sizeof mine;
    }
    DK_TRY(all_gather(base, wishes, &mine, sizes, at, err));
    int tag = 0;
    for (int i = 0; i < base->ranks; i++) {
        tag = wishes[i].next_tag > tag ? wishes[i].next_tag : tag;
    }
    t->life->next_tag = tag + 1;
    *out = NULL;
    if (color >= 0) {
        dk_mpi_transport *made = make_group(t, wishes, color);
        made->tag = tag;
        *out = &made->base;
    }
    return DK_OK;
}

static void abandon(dk_transport *base, const char *why)
{
    dk_mpi_life_tell(own(base)->life, false, why);
}

static void close_transport(dk_transport *base)
{
    dk_mpi_transport *t = own(base);
    if (t->outermost) {
        dk_mpi_life_end(t->life);
    }
    dk_free(t->requests);
    dk_free(t->peers);
    dk_free(t->receives);
    dk_free(t->statuses);
    dk_free(t->found);
    dk_free(t->scratch);
    dk_free(t);
}

static const dk_transport_ops ops = {.name = "mpi",
                                     .all_reduce = all_reduce,
                                     .reduce_scatter = reduce_scatter,
                                     .all_gather = all_gather,
                                     .all_to_all = all_to_all,
                                     .broadcast = broadcast,
                                     .send_receive = send_receive,
                                     .barrier = barrier,
                                     .split = split,
                                     .abandon = abandon,
                                     .close = close_transport};

static dk_status open_transport(dk_transport **out, const dk_transport_options *options,
                                dk_error *err)
{
    dk_mpi_life *life;
    DK_TRY(dk_mpi_life_begin(&life, options, err));
    dk_mpi_transport *t = dk_alloc(sizeof *t);
    t->base = (dk_transport){.ops = &ops, .rank = life->rank, .ranks = life->ranks};
    t->life = life;
    t->outermost = true;
    t->tag = DK_MPI_TAG;
    for (int i = 0; i < life->ranks; i++) {
        t->world[i] = i;
    }
    *out = &t->base;
    return DK_OK;
}

#define TEXT_OF(number) #number
#define DOTTED(x, y, z) TEXT_OF(x) "." TEXT_OF(y) "." TEXT_OF(z)
#if defined(OMPI_MAJOR_VERSION)
#define LIBRARY "Open MPI " DOTTED(OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION, OMPI_RELEASE_VERSION)
#elif defined(MPICH_VERSION)
#define LIBRARY "MPICH " MPICH_VERSION
#else
#define LIBRARY "MPI"
#endif

__attribute__((visibility("default"))) const dk_transport_module *dk_transport_module_get(void);

const dk_transport_module *dk_transport_module_get(void)
{
    static const dk_transport_module module = {.version = DK_TRANSPORT_MODULE_VERSION,
                                               .transport_bytes = sizeof(dk_transport),
                                               .libraries = LIBRARY,
                                               .open = open_transport};
    return &module;
}
