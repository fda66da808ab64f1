/* Making a call with known data, comparing, agreeing. */
#include "comm/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"
#include "comm/check_data.h"

enum { MOST_REPEATS = 64, STARTED = 2, SHOWN = 64 };
static const int64_t MAGIC = 0x6b63656863746b64;
static const char MEMORY_FOR[] = "the check of a transport";

void dk_comm_checker_init(dk_comm_checker *checker, dk_comm *comm)
{
    *checker = (dk_comm_checker){.comm = comm};
}

void dk_comm_checker_release(dk_comm_checker *checker)
{
    dk_device_lane *lane = dk_comm_lane(checker->comm);
    dk_lane_release(NULL, &checker->src);
    dk_lane_release(NULL, &checker->dst);
    dk_lane_release(lane, &checker->row);
    dk_lane_release(lane, &checker->src_twin);
    dk_lane_release(lane, &checker->dst_twin);
    *checker = (dk_comm_checker){0};
}

static bool reduces(dk_comm_op op)
{
    return op == DK_COMM_ALL_REDUCE || op == DK_COMM_REDUCE_SCATTER;
}

bool dk_comm_case_exists(const dk_comm *comm, const dk_comm_case *c)
{
    bool message = c->op == DK_COMM_SEND || c->op == DK_COMM_RECEIVE;
    bool parts = c->op == DK_COMM_REDUCE_SCATTER || c->op == DK_COMM_ALL_GATHER ||
                 c->op == DK_COMM_GATHER || c->op == DK_COMM_ALL_TO_ALL ||
                 c->op == DK_COMM_SHIFT;
    bool starts = c->op == DK_COMM_ALL_TO_ALL || c->op == DK_COMM_ALL_GATHER ||
                  c->op == DK_COMM_ALL_REDUCE || c->op == DK_COMM_SHIFT;
    return (!message || dk_comm_has_messages(comm)) && (!c->uneven || parts) &&
           (!c->started || starts);
}

/* A rank's part of about the same size, or of one of its own. */
static size_t part_of(size_t size, int rank, bool uneven)
{
    return !uneven ? size : rank % 2 == 0 ? size + 3 * (size_t)rank + 1 : size / 2;
}

/* What `from` sends to `to` in an all_to_all. */
static size_t pair_of(size_t size, int from, int to, bool uneven)
{
    return !uneven ? size
                   : size * (size_t)((from * 2 + to * 3) % 4) / 3 + (size_t)(from + to) % 2;
}

static size_t sum(const size_t *sizes, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += sizes[i];
    }
    return total;
}

static void list_gather(dk_comm_parts *p, const dk_comm_case *c, size_t size, int rank,
                        int ranks)
{
    for (int i = 0; i < ranks; i++) {
        p->dst[i] = part_of(size, i, c->uneven);
    }
    p->peer = ranks - 1;
    p->src_bytes = p->dst[rank];
    p->dst_bytes = c->op == DK_COMM_GATHER && rank != p->peer ? 0 : sum(p->dst, ranks);
}

static void list_shift(dk_comm_parts *p, const dk_comm_case *c, size_t size, int rank,
                       int ranks)
{
    p->peer = (rank + ranks - 1) % ranks;
    p->src_bytes = p->src[0] = part_of(size, rank, c->uneven);
    p->dst_bytes = p->dst[0] = part_of(size, p->peer, c->uneven);
}

/* Pairs of neighbours: the lower rank sends, the higher one sends back. */
static void list_message(dk_comm_parts *p, size_t size, int rank, int ranks)
{
    p->peer = rank ^ 1;
    if (p->peer >= ranks) {
        p->peer = -1;
    }
    p->src_bytes = p->dst_bytes = p->peer < 0 ? 0 : size;
}

static void list_parts(dk_comm_parts *p, const dk_comm *comm, const dk_comm_case *c)
{
    int rank = dk_comm_rank(comm), ranks = dk_comm_ranks(comm);
    size_t unit = reduces(c->op) ? dk_dtype_bytes(c->type) : 1;
    size_t whole = c->bytes / unit > 0 ? c->bytes / unit : 1;
    size_t size = whole / (size_t)ranks > 0 ? whole / (size_t)ranks : 1;
    *p = (dk_comm_parts){.peer = -1};
    switch (c->op) {
    case DK_COMM_ALL_REDUCE:
        p->src_bytes = p->dst_bytes = whole * unit;
        break;
    case DK_COMM_REDUCE_SCATTER:
        for (int i = 0; i < ranks; i++) {
            p->dst[i] = part_of(size, i, c->uneven);
        }
        p->src_bytes = sum(p->dst, ranks) * unit;
        p->dst_bytes = p->dst[rank] * unit;
        break;
    case DK_COMM_ALL_GATHER:
    case DK_COMM_GATHER:
        list_gather(p, c, size, rank, ranks);
        break;
    case DK_COMM_ALL_TO_ALL:
        for (int i = 0; i < ranks; i++) {
            p->src[i] = pair_of(size, rank, i, c->uneven);
            p->dst[i] = pair_of(size, i, rank, c->uneven);
        }
        p->src_bytes = sum(p->src, ranks);
        p->dst_bytes = sum(p->dst, ranks);
        break;
    case DK_COMM_BROADCAST:
        p->peer = ranks - 1;
        p->dst_bytes = whole;
        break;
    case DK_COMM_SHIFT:
        list_shift(p, c, size, rank, ranks);
        break;
    case DK_COMM_SEND:
    case DK_COMM_RECEIVE:
        list_message(p, whole, rank, ranks);
        break;
    default:
        break;
    }
}

/* What this rank brings, in src; where a call works in place, in dst. Returns it. */
static unsigned char *bring(dk_comm_checker *k, const dk_comm_case *c, const dk_comm_parts *p)
{
    int rank = dk_comm_rank(k->comm), ranks = dk_comm_ranks(k->comm);
    unsigned char *src = k->src.memory;
    memset(k->dst.memory, 0xa5, p->dst_bytes);
    if (reduces(c->op)) {
        size_t unit = dk_dtype_bytes(c->type);
        void *place = c->op == DK_COMM_ALL_REDUCE ? k->dst.memory : k->src.memory;
        dk_comm_fill_numbers(place, c->type, 0, p->src_bytes / unit, rank, k->salt);
        return place;
    }
    if (c->op == DK_COMM_BROADCAST) {
        if (rank == p->peer) {
            dk_comm_fill_bytes(k->dst.memory, p->dst_bytes, rank, -1, k->salt);
            return k->dst.memory;
        }
        return NULL;
    }
    if (c->op != DK_COMM_ALL_TO_ALL) {
        dk_comm_fill_bytes(src, p->src_bytes, rank, -1, k->salt);
        return src;
    }
    for (int i = 0; i < ranks; i++) {
        dk_comm_fill_bytes(src, p->src[i], rank, i, k->salt);
        src += p->src[i];
    }
    return k->src.memory;
}

/* Where the calls find what they work on. */
static void *source(const dk_comm_checker *k)
{
    return dk_comm_lane(k->comm) != NULL ? k->src_twin.memory : k->src.memory;
}

static void *result(const dk_comm_checker *k)
{
    return dk_comm_lane(k->comm) != NULL ? k->dst_twin.memory : k->dst.memory;
}

static dk_status exchange_messages(dk_comm_checker *k, const dk_comm_parts *p, dk_error *err)
{
    void *src = source(k), *dst = result(k);
    if (p->peer < 0) {
        return DK_OK;
    }
    if (p->peer > dk_comm_rank(k->comm)) {
        DK_TRY(dk_comm_send(k->comm, src, p->src_bytes, p->peer, err));
        return dk_comm_receive(k->comm, dst, p->dst_bytes, p->peer, err);
    }
    DK_TRY(dk_comm_receive(k->comm, dst, p->dst_bytes, p->peer, err));
    return dk_comm_send(k->comm, src, p->src_bytes, p->peer, err);
}

static dk_status make_call(dk_comm_checker *k, const dk_comm_case *c, const dk_comm_parts *p,
                           dk_error *err)
{
    dk_comm *comm = k->comm;
    void *src = source(k), *dst = result(k);
    switch (c->op) {
    case DK_COMM_ALL_REDUCE:
        return dk_comm_all_reduce(comm, dst, c->type, p->dst_bytes / dk_dtype_bytes(c->type),
                                  c->reduction, err);
    case DK_COMM_REDUCE_SCATTER:
        return dk_comm_reduce_scatter(comm, dst, src, c->type, p->dst, c->reduction, err);
    case DK_COMM_ALL_GATHER:
        return dk_comm_all_gather(comm, dst, src, 1, p->dst, err);
    case DK_COMM_GATHER:
        return dk_comm_gather(comm, dst, src, 1, p->dst, p->peer, err);
    case DK_COMM_ALL_TO_ALL:
        return dk_comm_all_to_all(comm, dst, p->dst, src, p->src, err);
    case DK_COMM_BROADCAST:
        return dk_comm_broadcast(comm, dst, p->dst_bytes, p->peer, err);
    case DK_COMM_SHIFT:
        return dk_comm_shift(comm, dst, p->dst[0], src, p->src[0], err);
    case DK_COMM_SEND:
    case DK_COMM_RECEIVE:
        return exchange_messages(k, p, err);
    default:
        return dk_comm_barrier(comm, err);
    }
}

/* The asynchronous form; another call of it is under way at the same time, and its result not
   looked at. `other` is as large as dst. */
static dk_status start_call(dk_comm_checker *k, const dk_comm_case *c, const dk_comm_parts *p,
                            void *other, dk_error *err)
{
    dk_comm_ticket tickets[STARTED];
    void *places[STARTED] = {other, result(k)}, *src = source(k);
    for (int i = 0; i < STARTED; i++) {
        if (c->op == DK_COMM_ALL_REDUCE) {
            tickets[i] =
                dk_comm_start_all_reduce(k->comm, places[i], c->type,
                                         p->dst_bytes / dk_dtype_bytes(c->type), c->reduction);
        } else if (c->op == DK_COMM_ALL_GATHER) {
            tickets[i] = dk_comm_start_all_gather(k->comm, places[i], src, 1, p->dst);
        } else if (c->op == DK_COMM_ALL_TO_ALL) {
            tickets[i] = dk_comm_start_all_to_all(k->comm, places[i], p->dst, src, p->src);
        } else {
            tickets[i] = dk_comm_start_shift(k->comm, places[i], p->dst[0], src, p->src[0]);
        }
    }
    DK_TRY(dk_comm_wait(k->comm, tickets[1], err));
    return dk_comm_wait(k->comm, tickets[0], err);
}

/* Between the host's memory and its twins on the lane's device. */
static dk_status copy_twins(const dk_comm_checker *k, const dk_comm_parts *p, bool back,
                            dk_error *err)
{
    dk_device_lane *lane = dk_comm_lane(k->comm);
    if (lane == NULL) {
        return DK_OK;
    }
    if (back) {
        dk_lane_copy(lane, k->dst.memory, k->dst_twin.memory, p->dst_bytes);
    } else {
        dk_lane_copy(lane, k->src_twin.memory, k->src.memory, p->src_bytes);
        dk_lane_copy(lane, k->dst_twin.memory, k->dst.memory, p->dst_bytes);
    }
    return dk_lane_wait(lane, MEMORY_FOR, err);
}

static dk_status run_case(dk_comm_checker *k, const dk_comm_case *c, const dk_comm_parts *p,
                          dk_error *err)
{
    dk_device_lane *lane = dk_comm_lane(k->comm);
    DK_TRY(copy_twins(k, p, false, err));
    if (c->started) {
        DK_TRY(dk_lane_reserve(lane, &k->row, p->dst_bytes + 1, MEMORY_FOR, err));
        /* An all_reduce reads it too: the same numbers. */
        dk_lane_copy(lane, k->row.memory, result(k), p->dst_bytes);
        DK_TRY(dk_lane_wait(lane, MEMORY_FOR, err));
        DK_TRY(start_call(k, c, p, k->row.memory, err));
    } else {
        DK_TRY(make_call(k, c, p, err));
    }
    return copy_twins(k, p, true, err);
}

static void note_wrong(dk_comm_verdict *v, int culprit, int64_t at, const char *text)
{
    if (at >= 0 && !v->wrong) {
        v->wrong = 1;
        v->culprit = culprit;
        v->at = at;
        snprintf(v->text, sizeof v->text, "%s", text);
    }
}

/* Parts of all ranks, one behind the other. */
static void compare_parts(dk_comm_verdict *v, const dk_comm_checker *k, const size_t *sizes,
                          int to)
{
    const char *part = k->dst.memory;
    for (int i = 0; i < dk_comm_ranks(k->comm); i++) {
        note_wrong(v, i, dk_comm_find_wrong(part, sizes[i], i, to, k->salt), "byte");
        part += sizes[i];
    }
}

static void compare(dk_comm_verdict *v, const dk_comm_checker *k, const dk_comm_case *c,
                    const dk_comm_parts *p)
{
    int rank = dk_comm_rank(k->comm), ranks = dk_comm_ranks(k->comm);
    bool exact = strcmp(dk_comm_backend(k->comm), "xccl") != 0;
    size_t unit = reduces(c->op) ? dk_dtype_bytes(c->type) : 1;
    if (reduces(c->op)) {
        size_t begin = c->op == DK_COMM_ALL_REDUCE ? 0 : sum(p->dst, rank);
        note_wrong(v, -1,
                   dk_comm_find_wrong_number(k->dst.memory, c, begin, p->dst_bytes / unit,
                                             ranks, exact, k->salt),
                   "element");
    } else if (c->op == DK_COMM_ALL_GATHER || (c->op == DK_COMM_GATHER && rank == p->peer)) {
        compare_parts(v, k, p->dst, -1);
    } else if (c->op == DK_COMM_ALL_TO_ALL) {
        compare_parts(v, k, p->dst, rank);
    } else if (c->op != DK_COMM_BARRIER && c->op != DK_COMM_GATHER && p->peer >= 0) {
        note_wrong(v, p->peer,
                   dk_comm_find_wrong(k->dst.memory, p->dst_bytes, p->peer, -1, k->salt),
                   "byte");
    }
}

/* The start of what a rank brings to a reduction, which an all_reduce overwrites. */
typedef struct start {
    char data[SHOWN];
    size_t bytes;
} start;

/* A sum is wrong: everybody shows the first numbers it brought, to tell whose were wrong. */
static dk_status find_culprit(dk_comm_checker *k, const dk_comm_case *c, const start *mine,
                              int *culprit, dk_error *err)
{
    char all[DK_COMM_MOST_RANKS][SHOWN], wanted[SHOWN];
    size_t sizes[DK_COMM_MOST_RANKS], unit = dk_dtype_bytes(c->type);
    size_t count = mine->bytes / unit;
    for (int i = 0; i < dk_comm_ranks(k->comm); i++) {
        sizes[i] = SHOWN;
    }
    DK_TRY(dk_comm_all_gather(k->comm, all, mine->data, 1, sizes, err));
    *culprit = -1;
    for (int i = dk_comm_ranks(k->comm) - 1; i >= 0; i--) {
        dk_comm_fill_numbers(wanted, c->type, 0, count, i, k->salt);
        *culprit = memcmp(all[i], wanted, count * unit) != 0 ? i : *culprit;
    }
    return DK_OK;
}

static void describe(dk_string *out, const dk_comm *comm, const dk_comm_case *c)
{
    dk_string_printf(out, "%s of %s, ", dk_comm_op_names[c->op], dk_comm_name(comm));
    if (reduces(c->op)) {
        dk_string_printf(out, "%s %s, ", dk_dtype_name(c->type),
                         c->reduction == DK_REDUCE_SUM ? "sum" : "max");
    }
    dk_string_printf(out, "%zu bytes%s%s", c->bytes, c->uneven ? ", uneven" : "",
                     c->started ? ", started" : "");
}

/* One message, the same on every rank, from what all have found. */
static dk_status tell(const dk_comm *comm, const dk_comm_case *c, const dk_comm_verdict *all,
                      int culprit, dk_error *err)
{
    dk_string text = DK_STRING_EMPTY;
    describe(&text, comm, c);
    for (int i = 0; i < dk_comm_ranks(comm); i++) {
        const dk_comm_verdict *v = &all[i];
        if (v->magic != MAGIC) {
            dk_string_printf(&text, "; what rank %d found came spoiled", i);
        } else if (v->wrong && v->culprit >= 0) {
            dk_string_printf(&text, "; rank %d got wrong data from rank %d (%s %lld)", i,
                             v->culprit, v->text, (long long)v->at);
        } else if (v->wrong && culprit >= 0) {
            dk_string_printf(&text,
                             "; rank %d got a wrong result (%s %lld): rank %d brought "
                             "wrong data",
                             i, v->text, (long long)v->at, culprit);
        } else if (v->wrong) {
            dk_string_printf(&text, "; rank %d got a wrong result (%s %lld) of right data", i,
                             v->text, (long long)v->at);
        }
    }
    dk_status status = dk_fail(err, DK_MISMATCH, "%s", text.data);
    dk_string_release(&text);
    return status;
}

static dk_status agree(dk_comm_checker *k, const dk_comm_case *c, const dk_comm_verdict *mine,
                       const start *brought, dk_error *err)
{
    dk_comm_verdict all[DK_COMM_MOST_RANKS];
    size_t sizes[DK_COMM_MOST_RANKS];
    bool wrong = false, unclear = false;
    int culprit = -1;
    for (int i = 0; i < dk_comm_ranks(k->comm); i++) {
        sizes[i] = sizeof *mine;
    }
    DK_TRY(dk_comm_all_gather(k->comm, all, mine, 1, sizes, err));
    for (int i = 0; i < dk_comm_ranks(k->comm); i++) {
        wrong = wrong || all[i].wrong || all[i].magic != MAGIC;
        unclear = unclear || (all[i].wrong && all[i].culprit < 0);
    }
    if (unclear) {
        DK_TRY(find_culprit(k, c, brought, &culprit, err));
    }
    return wrong ? tell(k->comm, c, all, culprit, err) : DK_OK;
}

static dk_status prepare(dk_comm_checker *k, start *kept, const dk_comm_case *c,
                         const dk_comm_parts *p, dk_error *err)
{
    dk_device_lane *lane = dk_comm_lane(k->comm);
    DK_TRY(dk_lane_reserve(NULL, &k->src, p->src_bytes + 1, MEMORY_FOR, err));
    DK_TRY(dk_lane_reserve(NULL, &k->dst, p->dst_bytes + 1, MEMORY_FOR, err));
    if (lane != NULL) {
        DK_TRY(dk_lane_reserve(lane, &k->src_twin, p->src_bytes + 1, MEMORY_FOR, err));
        DK_TRY(dk_lane_reserve(lane, &k->dst_twin, p->dst_bytes + 1, MEMORY_FOR, err));
    }
    unsigned char *brought = bring(k, c, p);
    size_t size = c->op == DK_COMM_BROADCAST ? p->dst_bytes : p->src_bytes;
    *kept = (start){.bytes = size < SHOWN ? size : SHOWN};
    if (k->corrupts && brought != NULL && size > 0) {
        brought[reduces(c->op) ? dk_dtype_bytes(c->type) - 1 : 0] ^= 0xc0; /* a sign */
    }
    if (brought != NULL) {
        memcpy(kept->data, brought, kept->bytes);
    }
    return DK_OK;
}

dk_status dk_comm_check(dk_comm_checker *k, const dk_comm_case *c, dk_error *err)
{
    dk_comm_parts parts;
    start kept;
    dk_comm_verdict mine = {.magic = MAGIC, .culprit = -1};
    list_parts(&parts, k->comm, c);
    k->salt++;
    DK_TRY(prepare(k, &kept, c, &parts, err));
    DK_TRY(run_case(k, c, &parts, err));
    compare(&mine, k, c, &parts);
    return agree(k, c, &mine, &kept, err);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

dk_status dk_comm_time(dk_comm_checker *k, const dk_comm_case *c, int repeats, double *seconds,
                       dk_error *err)
{
    dk_comm_parts parts;
    start kept;
    double times[MOST_REPEATS];
    repeats = repeats < MOST_REPEATS ? repeats : MOST_REPEATS;
    list_parts(&parts, k->comm, c);
    DK_TRY(prepare(k, &kept, c, &parts, err));
    DK_TRY(copy_twins(k, &parts, false, err));
    DK_TRY(make_call(k, c, &parts, err)); /* pages are touched, ways are known */
    for (int i = 0; i < repeats; i++) {
        DK_TRY(dk_comm_barrier(k->comm, err));
        double start_ms = dk_now_ms();
        DK_TRY(make_call(k, c, &parts, err));
        times[i] = (dk_now_ms() - start_ms) * 1e-3;
    }
    qsort(times, (size_t)repeats, sizeof *times, compare_doubles);
    float slowest = (float)times[repeats / 2];
    DK_TRY(dk_comm_all_reduce(k->comm, &slowest, DK_F32, 1, DK_REDUCE_MAX, err));
    *seconds = (double)slowest;
    return DK_OK;
}

double dk_comm_case_bytes(const dk_comm *comm, const dk_comm_case *c)
{
    int ranks = dk_comm_ranks(comm);
    dk_comm_parts p;
    list_parts(&p, comm, c);
    switch (c->op) {
    case DK_COMM_GATHER:
        return (double)sum(p.dst, ranks);
    case DK_COMM_SHIFT:
        return (double)p.src_bytes;
    case DK_COMM_SEND:
        return (double)c->bytes;
    case DK_COMM_REDUCE_SCATTER:
        return (double)p.src_bytes;
    default:
        return (double)p.dst_bytes;
    }
}

double dk_comm_bus_factor(dk_comm_op op, int ranks)
{
    double n = ranks;
    switch (op) {
    case DK_COMM_ALL_REDUCE:
        return 2 * (n - 1) / n;
    case DK_COMM_ALL_GATHER:
    case DK_COMM_REDUCE_SCATTER:
    case DK_COMM_ALL_TO_ALL:
    case DK_COMM_GATHER:
        return (n - 1) / n;
    case DK_COMM_BARRIER:
        return 0;
    default:
        return 1;
    }
}
