/* The shm transport against plain computation: random calls of 1 to 4 ranks and of their
   sub-groups; every rank knows what the others bring. With "bench" behind the program's name it
   measures instead. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "comm/reduce.h"
#include "comm_fixture.h"
#include "tensor/convert.h"
#include "test.h"

enum { CALLS = 1000, CALL_MS = 20000 };

typedef struct party {
    dk_transport *t;
    int world[MOST_RANKS]; /* of its ranks */
    char name[16];
} party;

typedef struct run {
    party parties[8];
    int parties_count;
    uint32_t choices; /* the same on all ranks */
    uint32_t call;
} run;

static uint32_t choose(run *r, uint32_t below)
{
    return known_number(&r->choices) % below;
}

/* Sizes: none, few, unaligned, several slots. */
static size_t choose_size(run *r)
{
    switch (choose(r, 12)) {
    case 0:
        return 0;
    case 1:
    case 2:
        return 1 + choose(r, 70);
    case 3:
        return (1 << 20) + choose(r, 3 << 19);
    default:
        return 1 + choose(r, 100000);
    }
}

/* What a world rank brings to a call. */
static void fill_bytes(unsigned char *dst, size_t bytes, uint32_t call, int world)
{
    uint32_t state = call * 97u + (uint32_t)world * 7919u;
    for (size_t i = 0; i < bytes; i++) {
        dst[i] = (unsigned char)known_number(&state);
    }
}

static void fill_values(void *dst, dk_dtype type, size_t count, uint32_t call, int world)
{
    uint32_t state = call * 97u + (uint32_t)world * 7919u;
    for (size_t i = 0; i < count; i++) {
        uint32_t number = known_number(&state);
        float value = (float)(int32_t)number * 1e-7f;
        if (type == DK_F32) {
            ((float *)dst)[i] = value;
        } else if (type == DK_BF16) {
            ((uint16_t *)dst)[i] = dk_bf16_from_f32(value);
        } else {
            ((uint32_t *)dst)[i] = number;
        }
    }
}

/* One element of the reduction, written down plainly. */
static void reference_at(void *dst, void *const *src, int sources, dk_dtype type, size_t i,
                         dk_reduction reduction)
{
    bool adds = reduction == DK_REDUCE_SUM;
    if (type == DK_I32) {
        int32_t most = ((const int32_t *)src[0])[i];
        uint32_t sum = (uint32_t)most;
        for (int s = 1; s < sources; s++) {
            int32_t value = ((const int32_t *)src[s])[i];
            sum += (uint32_t)value;
            most = value > most ? value : most;
        }
        ((uint32_t *)dst)[i] = adds ? sum : (uint32_t)most;
        return;
    }
    float sum = 0, most = 0;
    for (int s = 0; s < sources; s++) {
        float value = type == DK_F32 ? ((const float *)src[s])[i]
                                     : dk_f32_from_bf16(((const uint16_t *)src[s])[i]);
        sum = s == 0 ? value : sum + value;
        most = s == 0 || value > most ? value : most;
    }
    if (type == DK_F32) {
        ((float *)dst)[i] = adds ? sum : most;
    } else {
        ((uint16_t *)dst)[i] = dk_bf16_from_f32(adds ? sum : most);
    }
}

static dk_status same(const void *got, const void *expected, size_t bytes, const char *what,
                      dk_error *err)
{
    const unsigned char *a = got, *b = expected;
    for (size_t i = 0; i < bytes; i++) {
        if (a[i] != b[i]) {
            return dk_fail(err, DK_MISMATCH, "%s: byte %zu of %zu is %u, expected %u", what, i,
                           bytes, a[i], b[i]);
        }
    }
    return DK_OK;
}

static dk_status try_reduce(run *r, party *p, bool scatters, const dk_comm_at *at,
                            dk_error *err)
{
    static const dk_dtype types[] = {DK_F32, DK_BF16, DK_I32};
    dk_dtype type = types[choose(r, 3)];
    dk_reduction reduction = choose(r, 3) == 0 ? DK_REDUCE_MAX : DK_REDUCE_SUM;
    size_t size = dk_dtype_bytes(type), counts[MOST_RANKS], total = 0, offset = 0;
    int ranks = p->t->ranks;
    for (int i = 0; i < ranks; i++) {
        counts[i] = choose_size(r) / 4;
        offset += i < p->t->rank ? counts[i] : 0;
        total += counts[i];
    }
    void *all[MOST_RANKS], *expected = dk_alloc(total * size), *got = dk_alloc(total * size);
    for (int i = 0; i < ranks; i++) {
        all[i] = dk_alloc(total * size);
        fill_values(all[i], type, total, r->call, p->world[i]);
    }
    for (size_t i = 0; i < total; i++) {
        reference_at(expected, all, ranks, type, i, reduction);
    }
    dk_status status;
    if (scatters) {
        status = p->t->ops->reduce_scatter(p->t, got, all[p->t->rank], type, counts, reduction,
                                           at, err);
        if (status == DK_OK) {
            status = same(got, (unsigned char *)expected + offset * size,
                          counts[p->t->rank] * size, at->what, err);
        }
    } else {
        memcpy(got, all[p->t->rank], total * size);
        status = p->t->ops->all_reduce(p->t, got, type, total, reduction, at, err);
        if (status == DK_OK) {
            status = same(got, expected, total * size, at->what, err);
        }
    }
    for (int i = 0; i < ranks; i++) {
        dk_free(all[i]);
    }
    dk_free(expected);
    dk_free(got);
    return status;
}

static dk_status try_gather(run *r, party *p, const dk_comm_at *at, dk_error *err)
{
    size_t bytes[MOST_RANKS], total = 0, offset = 0;
    for (int i = 0; i < p->t->ranks; i++) {
        bytes[i] = choose_size(r);
        offset += i < p->t->rank ? bytes[i] : 0;
        total += bytes[i];
    }
    bool in_place = choose(r, 2) == 0;
    unsigned char *expected = dk_alloc(total), *got = dk_alloc(total), *next = expected;
    for (int i = 0; i < p->t->ranks; i++) {
        fill_bytes(next, bytes[i], r->call, p->world[i]);
        next += bytes[i];
    }
    memcpy(got + offset, expected + offset, in_place ? bytes[p->t->rank] : 0);
    dk_status status =
        p->t->ops->all_gather(p->t, got, (in_place ? got : expected) + offset, bytes, at, err);
    if (status == DK_OK) {
        status = same(got, expected, total, at->what, err);
    }
    dk_free(expected);
    dk_free(got);
    return status;
}

/* What rank i sends to rank j is a part of its own numbers. */
static dk_status try_all_to_all(run *r, party *p, const dk_comm_at *at, dk_error *err)
{
    size_t sizes[MOST_RANKS][MOST_RANKS], to[MOST_RANKS], from[MOST_RANKS];
    size_t sent = 0, received = 0, done = 0;
    int me = p->t->rank;
    for (int i = 0; i < p->t->ranks; i++) {
        for (int j = 0; j < p->t->ranks; j++) {
            sizes[i][j] = choose_size(r);
        }
    }
    for (int i = 0; i < p->t->ranks; i++) {
        to[i] = sizes[me][i];
        from[i] = sizes[i][me];
        sent += to[i];
        received += from[i];
    }
    unsigned char *src = dk_alloc(sent), *got = dk_alloc(received);
    fill_bytes(src, sent, r->call, p->world[me]);
    dk_status status = p->t->ops->all_to_all(p->t, got, from, src, to, at, err);
    for (int i = 0; i < p->t->ranks && status == DK_OK; i++) {
        size_t before = 0;
        for (int j = 0; j < me; j++) {
            before += sizes[i][j];
        }
        unsigned char *theirs = dk_alloc(before + from[i]);
        fill_bytes(theirs, before + from[i], r->call, p->world[i]);
        status = same(got + done, theirs + before, from[i], at->what, err);
        done += from[i];
        dk_free(theirs);
    }
    dk_free(src);
    dk_free(got);
    return status;
}

static dk_status try_broadcast(run *r, party *p, const dk_comm_at *at, dk_error *err)
{
    int root = (int)choose(r, (uint32_t)p->t->ranks);
    size_t bytes = choose_size(r);
    unsigned char *expected = dk_alloc(bytes), *got = dk_alloc(bytes);
    fill_bytes(expected, bytes, r->call, p->world[root]);
    memcpy(got, expected, root == p->t->rank ? bytes : 0);
    dk_status status = p->t->ops->broadcast(p->t, got, bytes, root, at, err);
    if (status == DK_OK) {
        status = same(got, expected, bytes, at->what, err);
    }
    dk_free(expected);
    dk_free(got);
    return status;
}

/* Either a shift of all, or one message between two. */
static dk_status try_send(run *r, party *p, const dk_comm_at *at, dk_error *err)
{
    int ranks = p->t->ranks, me = p->t->rank;
    bool shifts = choose(r, 2) == 0;
    int first = (int)choose(r, (uint32_t)ranks), second = (int)choose(r, (uint32_t)ranks);
    size_t sizes[MOST_RANKS];
    for (int i = 0; i < ranks; i++) {
        sizes[i] = choose_size(r); /* that rank i sends */
    }
    int to = shifts ? (me + 1) % ranks : me == first ? second : -1;
    int from = shifts ? (me + ranks - 1) % ranks : me == second ? first : -1;
    size_t in = from >= 0 ? sizes[from] : 0;
    unsigned char *src = dk_alloc(sizes[me]), *expected = dk_alloc(in), *got = dk_alloc(in);
    dk_status status = DK_OK;
    fill_bytes(src, sizes[me], r->call, p->world[me]);
    if (from >= 0) {
        fill_bytes(expected, in, r->call, p->world[from]);
    }
    if (to >= 0 || from >= 0) {
        status = p->t->ops->send_receive(p->t, src, to >= 0 ? sizes[me] : 0, to, got, in, from,
                                         at, err);
    }
    if (status == DK_OK) {
        status = same(got, expected, in, at->what, err);
    }
    dk_free(src);
    dk_free(expected);
    dk_free(got);
    return status;
}

static dk_status try_call(run *r, party *p, uint32_t kind, dk_error *err)
{
    static const char *const names[] = {"all_reduce", "reduce_scatter", "all_gather",
                                        "all_to_all", "broadcast",      "send_receive",
                                        "barrier"};
    char what[64];
    snprintf(what, sizeof what, "%s %u of %s", names[kind], r->call, p->name);
    dk_comm_at at = {.what = what, .deadline_ms = dk_now_ms() + CALL_MS};
    switch (kind) {
    case 0:
    case 1:
        return try_reduce(r, p, kind == 1, &at, err);
    case 2:
        return try_gather(r, p, &at, err);
    case 3:
        return try_all_to_all(r, p, &at, err);
    case 4:
        return try_broadcast(r, p, &at, err);
    case 5:
        return try_send(r, p, &at, err);
    default:
        return p->t->ops->barrier(p->t, &at, err);
    }
}

/* Adds a sub-group of the first party, or of the last one. `reversed`: by descending rank. */
static dk_status add_party(run *r, party *parent, int colors, bool reversed, const char *name,
                           dk_error *err)
{
    dk_comm_at at = {.what = "split", .deadline_ms = dk_now_ms() + CALL_MS};
    party *p = &r->parties[r->parties_count];
    int color = parent->t->rank % colors, count = 0;
    DK_TRY(parent->t->ops->split(&p->t, parent->t, color,
                                 reversed ? -parent->t->rank : parent->t->rank, &at, err));
    for (int i = 0; i < parent->t->ranks; i++) {
        int from = reversed ? parent->t->ranks - 1 - i : i;
        if (from % colors == color) {
            p->world[count++] = parent->world[from];
        }
    }
    snprintf(p->name, sizeof p->name, "%s", name);
    if (p->t->ranks != count || p->world[p->t->rank] != parent->world[parent->t->rank]) {
        return dk_fail(err, DK_MISMATCH, "split: rank %d of %d, expected of %d", p->t->rank,
                       p->t->ranks, count);
    }
    r->parties_count++;
    return DK_OK;
}

static dk_status open_party(run *r, const dk_transport_options *options, dk_error *err)
{
    party *all = &r->parties[0];
    DK_TRY(dk_transport_shm(&all->t, options, err));
    for (int i = 0; i < options->ranks; i++) {
        all->world[i] = i;
    }
    snprintf(all->name, sizeof all->name, "all");
    r->parties_count = 1;
    return DK_OK;
}

static void close_parties(run *r)
{
    while (r->parties_count > 0) {
        dk_transport *t = r->parties[--r->parties_count].t;
        t->ops->close(t);
    }
}

/* Random calls; sub-groups, and those of sub-groups, make them side by side. */
static dk_status random_calls(const dk_transport_options *options, const char *argument,
                              dk_error *err)
{
    run r = {.choices = 1};
    dk_status status = open_party(&r, options, err);
    DK_TRY(status);
    DK_TRY_DONE(add_party(&r, &r.parties[0], 2, false, "halves", err));
    DK_TRY_DONE(add_party(&r, &r.parties[0], 1, true, "reversed", err));
    DK_TRY_DONE(add_party(&r, &r.parties[1], 2, false, "quarters", err));
    DK_TRY_DONE(add_party(&r, &r.parties[2], 1, false, "again", err));
    for (int calls = atoi(argument); r.call < (uint32_t)calls; r.call++) {
        party *p = &r.parties[choose(&r, (uint32_t)r.parties_count)];
        /* Sub-groups of different sizes draw differently: each call has its own numbers. */
        run own = r;
        own.choices = r.call * 31u + 5u;
        DK_TRY_DONE(try_call(&own, p, choose(&r, 7), err));
    }
done:
    close_parties(&r);
    return status;
}

/* As where no rank can read another one's memory. */
static dk_status random_copies(const dk_transport_options *options, const char *argument,
                               dk_error *err)
{
    dk_transport_options copies = *options;
    copies.copies = true;
    return random_calls(&copies, argument, err);
}

/* A rank of color -1 belongs to none. */
static dk_status no_color(const dk_transport_options *options, const char *argument,
                          dk_error *err)
{
    dk_transport *t, *sub = (dk_transport *)&sub;
    dk_comm_at at = {.what = "split of all", .deadline_ms = dk_now_ms() + CALL_MS};
    (void)argument;
    DK_TRY(dk_transport_shm(&t, options, err));
    dk_status status = t->ops->split(&sub, t, t->rank == 1 ? -1 : 0, 0, &at, err);
    if (status == DK_OK && (sub == NULL) != (t->rank == 1)) {
        status = dk_fail(err, DK_MISMATCH, "the wrong rank is without a group");
    }
    if (status == DK_OK && sub != NULL && sub->ranks != t->ranks - 1) {
        status = dk_fail(err, DK_MISMATCH, "%d ranks in the sub-group", sub->ranks);
    }
    if (status == DK_OK && sub != NULL) {
        status = sub->ops->barrier(sub, &at, err);
        sub->ops->close(sub);
    }
    t->ops->close(t);
    return status;
}

/* --- figures */

typedef dk_status measured_fn(dk_transport *t, void *a, void *b, size_t bytes,
                              const dk_comm_at *at, dk_error *err);

static dk_status do_all_reduce(dk_transport *t, void *a, void *b, size_t bytes,
                               const dk_comm_at *at, dk_error *err)
{
    (void)b;
    return t->ops->all_reduce(t, a, DK_F32, bytes / 4, DK_REDUCE_SUM, at, err);
}

static dk_status do_all_reduce_bf16(dk_transport *t, void *a, void *b, size_t bytes,
                                    const dk_comm_at *at, dk_error *err)
{
    (void)b;
    return t->ops->all_reduce(t, a, DK_BF16, bytes / 2, DK_REDUCE_SUM, at, err);
}

static dk_status do_all_gather(dk_transport *t, void *a, void *b, size_t bytes,
                               const dk_comm_at *at, dk_error *err)
{
    size_t sizes[MOST_RANKS];
    for (int i = 0; i < t->ranks; i++) {
        sizes[i] = bytes / (size_t)t->ranks;
    }
    return t->ops->all_gather(t, a, b, sizes, at, err);
}

static dk_status do_all_to_all(dk_transport *t, void *a, void *b, size_t bytes,
                               const dk_comm_at *at, dk_error *err)
{
    size_t sizes[MOST_RANKS];
    for (int i = 0; i < t->ranks; i++) {
        sizes[i] = bytes / (size_t)t->ranks;
    }
    return t->ops->all_to_all(t, a, sizes, b, sizes, at, err);
}

static dk_status do_shift(dk_transport *t, void *a, void *b, size_t bytes, const dk_comm_at *at,
                          dk_error *err)
{
    return t->ops->send_receive(t, b, bytes, (t->rank + 1) % t->ranks, a, bytes,
                                (t->rank + t->ranks - 1) % t->ranks, at, err);
}

static dk_status do_barrier(dk_transport *t, void *a, void *b, size_t bytes,
                            const dk_comm_at *at, dk_error *err)
{
    (void)a, (void)b, (void)bytes;
    return t->ops->barrier(t, at, err);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dk_status measure(dk_transport *t, const char *name, measured_fn *call, size_t bytes,
                         dk_error *err)
{
    enum { TIMES = 200 };
    double times[TIMES];
    dk_comm_at at = {.what = name, .deadline_ms = dk_now_ms() + CALL_MS};
    unsigned char *a = dk_alloc(bytes), *b = dk_alloc(bytes);
    memset(a, 1, bytes);
    memset(b, 1, bytes);
    dk_status status = DK_OK;
    for (int i = 0; i < TIMES && status == DK_OK; i++) {
        double start = dk_now_ms();
        status = call(t, a, b, bytes, &at, err);
        times[i] = dk_now_ms() - start;
    }
    qsort(times, TIMES, sizeof times[0], compare_doubles);
    if (t->rank == 0 && status == DK_OK) {
        printf("%d ranks, %-16s %9zu bytes: median %8.4f ms, least %8.4f ms\n", t->ranks, name,
               bytes, times[TIMES / 2], times[0]);
        fflush(stdout);
    }
    dk_free(a);
    dk_free(b);
    return status;
}

static dk_status figures(const dk_transport_options *options, const char *argument,
                         dk_error *err)
{
    static const size_t sizes[] = {1 << 10, 32 << 10, 256 << 10, 1 << 20, 16 << 20};
    static const struct {
        const char *name;
        measured_fn *call;
    } calls[] = {{"all_reduce", do_all_reduce},
                 {"all_reduce bf16", do_all_reduce_bf16},
                 {"all_gather", do_all_gather},
                 {"all_to_all", do_all_to_all},
                 {"shift", do_shift}};
    dk_transport *t;
    (void)argument;
    DK_TRY(dk_transport_shm(&t, options, err));
    dk_status status = measure(t, "barrier", do_barrier, 0, err);
    for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0] && status == DK_OK; s++) {
            status = measure(t, calls[c].name, calls[c].call, sizes[s], err);
        }
    }
    t->ops->close(t);
    return status;
}

/* Calls of two rounds, whose parts just exceed a share of a slot, in turns with calls of one,
   that are read where they lie: a rank may lay its next call while others take the last round.
 */
static dk_status long_and_short(const dk_transport_options *options, const char *argument,
                                dk_error *err)
{
    enum { LONG = 63 << 10, SHORT = 64 << 10 };
    int ranks = options->ranks, me = options->rank;
    size_t sizes[MOST_RANKS];
    dk_transport *t;
    DK_TRY(dk_transport_shm(&t, options, err));
    unsigned char *src = dk_alloc((size_t)ranks * SHORT),
                  *got = dk_alloc((size_t)ranks * SHORT);
    dk_status status = DK_OK;
    for (int call = 0; call < 2 * atoi(argument) && status == DK_OK; call++) {
        dk_comm_at at = {.what = "all_to_all", .deadline_ms = dk_now_ms() + CALL_MS};
        size_t part = call % 2 == 0 ? LONG : SHORT;
        for (int i = 0; i < ranks; i++) {
            sizes[i] = part;
        }
        memset(src, call * ranks + me, (size_t)ranks * part);
        memset(got, ~(call * ranks + me), (size_t)ranks * part);
        status = t->ops->all_to_all(t, got, sizes, src, sizes, &at, err);
        for (size_t i = 0; i < (size_t)ranks * part && status == DK_OK; i++) {
            int from = (int)(i / part);
            if (got[i] != (unsigned char)(call * ranks + from)) {
                status = dk_fail(err, DK_MISMATCH, "call %d: byte %zu from rank %d", call,
                                 i % part, from);
            }
        }
    }
    t->ops->close(t);
    dk_free(src);
    dk_free(got);
    return status;
}

/* --- the tests */

static void test_random_calls(void **state)
{
    (void)state;
    char calls[16];
    snprintf(calls, sizeof calls, "%d", CALLS);
    run_ranks("random calls", 4, calls);
    run_ranks("random calls", 3, "200");
    run_ranks("random calls", 2, "200");
    run_ranks("random calls", 1, "100");
    run_ranks("random copies", 4, "200");
    run_ranks("random copies", 2, "200");
}

static void test_no_color(void **state)
{
    (void)state;
    run_ranks("no color", 3, "");
    run_ranks("no color", 2, "");
}

static void test_long_and_short(void **state)
{
    (void)state;
    run_ranks("long and short", MOST_RANKS, "25");
}

static const rank_case cases[] = {{"random calls", random_calls},
                                  {"random copies", random_copies},
                                  {"no color", no_color},
                                  {"long and short", long_and_short},
                                  {"figures", figures}};

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_calls),
        cmocka_unit_test(test_no_color),
        cmocka_unit_test(test_long_and_short),
    };
    int code;
    if (ran_as_rank(argc, argv, cases, sizeof cases / sizeof cases[0], &code)) {
        return code;
    }
    if (argc == 2 && strcmp(argv[1], "bench") == 0) {
        run_ranks("figures", 2, "");
        run_ranks("figures", 4, "");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
