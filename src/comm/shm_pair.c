/* Sending and receiving between two ranks, of which the others know nothing: a channel for
   every ordered pair, with two slots. */
#include <string.h>

#include "comm/shm.h"

/* One direction of a call. */
typedef struct one_way {
    dk_shm_channel *channel; /* NULL: none */
    int peer;
    uint32_t round, end; /* the next, and behind the last */
    size_t bytes, moved;
    bool is_first;
} one_way;

typedef struct both_ways {
    one_way out, in;
    const unsigned char *src;
    unsigned char *dst;
} both_ways;

static one_way begin_way(dk_shm *g, int from, int to, size_t bytes, uint32_t round)
{
    int peer = from == g->head.rank ? to : from;
    uint32_t rounds =
        bytes == 0 ? 1 : (uint32_t)((bytes + DK_SHM_PAIR_BYTES - 1) / DK_SHM_PAIR_BYTES);
    return (one_way){.channel = &g->channels[from * g->head.ranks + to],
                     .peer = peer,
                     .round = round,
                     .end = round + rounds,
                     .bytes = bytes,
                     .is_first = true};
}

static bool is_done(const one_way *way)
{
    return way->channel == NULL || way->round == way->end;
}

static bool can_send(const one_way *way)
{
    return !is_done(way) && dk_shm_reached(atomic_load(&way->channel->taken), way->round - 1);
}

static bool can_take(const one_way *way)
{
    return !is_done(way) && dk_shm_reached(atomic_load(&way->channel->sent), way->round + 1);
}

static size_t next_piece(const one_way *way)
{
    size_t left = way->bytes - way->moved;
    return left < DK_SHM_PAIR_BYTES ? left : DK_SHM_PAIR_BYTES;
}

static void go_on(dk_shm *g, one_way *way, size_t piece, atomic_uint *counter)
{
    way->moved += piece;
    way->round++;
    way->is_first = false;
    atomic_store(counter, way->round); /* in one order for all, as in dk_shm_post */
    dk_shm_knock(g, way->peer);
}

static void send_piece(dk_shm *g, both_ways *b)
{
    one_way *way = &b->out;
    size_t piece = next_piece(way);
    if (way->is_first) {
        way->channel->bytes[way->round % 2] = way->bytes;
    }
    if (piece > 0) {
        memcpy(dk_shm_pair_slot(g, g->head.rank, way->peer, way->round), b->src + way->moved,
               piece);
    }
    go_on(g, way, piece, &way->channel->sent);
}

static dk_status take_piece(dk_shm *g, both_ways *b, const dk_comm_at *at, dk_error *err)
{
    one_way *way = &b->in;
    size_t piece = next_piece(way);
    uint64_t bytes = way->channel->bytes[way->round % 2];
    char name[DK_SHM_NAME_BYTES], own[DK_SHM_NAME_BYTES];
    if (way->is_first && bytes != way->bytes) {
        return dk_fail(err, DK_INVALID, "%s: %s sends %llu bytes to %s, which expects %zu",
                       at->what, dk_shm_name(g, way->peer, name), (unsigned long long)bytes,
                       dk_shm_name(g, g->head.rank, own), way->bytes);
    }
    if (piece > 0) {
        memcpy(b->dst + way->moved, dk_shm_pair_slot(g, way->peer, g->head.rank, way->round),
               piece);
    }
    go_on(g, way, piece, &way->channel->taken);
    return DK_OK;
}

static bool can_move(const dk_shm *g, const dk_shm_wait *wait)
{
    const both_ways *b = wait->context;
    (void)g;
    return can_send(&b->out) || can_take(&b->in);
}

static bool is_late(const dk_shm *g, const dk_shm_wait *wait, int rank)
{
    const both_ways *b = wait->context;
    (void)g;
    return (!is_done(&b->out) && !can_send(&b->out) && b->out.peer == rank) ||
           (!is_done(&b->in) && !can_take(&b->in) && b->in.peer == rank);
}

static dk_status move_all(dk_shm *g, both_ways *b, const dk_comm_at *at, dk_error *err)
{
    dk_shm_wait wait = {
        .is_over = can_move, .is_late = is_late, .awaits = DK_SHM_ANY, .context = b};
    DK_TRY(dk_shm_check_life(g, at, err));
    while (!is_done(&b->out) || !is_done(&b->in)) {
        DK_TRY(dk_shm_await(g, &wait, at, err));
        if (can_send(&b->out)) {
            send_piece(g, b);
        }
        if (can_take(&b->in)) {
            DK_TRY(take_piece(g, b, at, err));
        }
    }
    return DK_OK;
}

static dk_status to_itself(const void *src, size_t src_bytes, int to, void *dst,
                           size_t dst_bytes, int from, const dk_comm_at *at, dk_error *err)
{
    if (to != from || src_bytes != dst_bytes) {
        return dk_fail(err, DK_INVALID,
                       "%s: a rank sends %zu bytes to itself and receives %zu, expected the "
                       "same number in both directions",
                       at->what, to < 0 ? 0 : src_bytes, from < 0 ? 0 : dst_bytes);
    }
    if (src_bytes > 0) {
        memmove(dst, src, src_bytes);
    }
    return DK_OK;
}

dk_status dk_shm_send_receive(dk_transport *t, const void *src, size_t src_bytes, int to,
                              void *dst, size_t dst_bytes, int from, const dk_comm_at *at,
                              dk_error *err)
{
    dk_shm *g = (dk_shm *)t;
    dk_error reason = {0};
    both_ways b = {.src = src, .dst = dst};
    if (to >= t->ranks || from >= t->ranks) {
        return dk_fail(err, DK_INVALID, "%s: to rank %d, from rank %d, expected below %d",
                       at->what, to, from, t->ranks);
    }
    if (to == t->rank || from == t->rank) {
        return to_itself(src, src_bytes, to, dst, dst_bytes, from, at, err);
    }
    if (to >= 0) {
        b.out = begin_way(g, t->rank, to, src_bytes, g->sent[to]);
    }
    if (from >= 0) {
        b.in = begin_way(g, from, t->rank, dst_bytes, g->taken[from]);
    }
    dk_status status = move_all(g, &b, at, &reason);
    if (status == DK_OK && to >= 0) {
        g->sent[to] = b.out.round;
    }
    if (status == DK_OK && from >= 0) {
        g->taken[from] = b.in.round;
    }
    return dk_shm_end_call(g, status, &reason, err);
}
