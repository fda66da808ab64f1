/* A rank of comm-test: all calls with known data, on all ranks and in sub-groups, then timed.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/string.h"
#include "cli/comm_test.h"
#include "cli/ranks.h"
#include "comm/check.h"

enum { FAULT_AFTER_CHECKS = 20 };

typedef struct tester {
    const dk_comm_test_flags *flags;
    dk_comm_injection injection;
    dk_comm *world;
    int rank, checks;
    json_t *groups, *calls, *missing;
} tester;

static dk_status read_rank(int *out, const char *text, dk_error *err)
{
    char *end;
    long rank = strtol(text, &end, 10);
    if (end == text || *end != '\0' || rank < 0 || rank >= DK_COMM_MOST_RANKS) {
        return dk_fail(err, DK_INVALID, "--inject: '%s' is no rank", text);
    }
    *out = (int)rank;
    return DK_OK;
}

dk_status dk_comm_injection_parse(dk_comm_injection *out, const char *text, dk_error *err)
{
    static const struct {
        const char *prefix;
        dk_comm_fault fault;
    } faults[] = {
        {"late:", DK_FAULT_LATE}, {"kill:", DK_FAULT_KILL}, {"corrupt:", DK_FAULT_CORRUPT}};
    *out = (dk_comm_injection){.rank = -1};
    if (text == NULL) {
        return DK_OK;
    }
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        if (dk_starts_with(text, faults[i].prefix)) {
            out->fault = faults[i].fault;
            return read_rank(&out->rank, text + strlen(faults[i].prefix), err);
        }
    }
    return dk_fail(err, DK_INVALID,
                   "--inject is '%s', accepted are late:RANK, kill:RANK and corrupt:RANK",
                   text);
}

/* The fault of this rank, when its time has come. */
static void misbehave(const tester *t)
{
    if (t->injection.rank != t->rank || t->checks != FAULT_AFTER_CHECKS) {
        return;
    }
    if (t->injection.fault == DK_FAULT_KILL) {
        raise(SIGKILL);
    }
    if (t->injection.fault == DK_FAULT_LATE) {
        double seconds = 1.5 * t->flags->deadline_s + 1;
        nanosleep(&(struct timespec){.tv_sec = (time_t)seconds}, NULL);
    }
}

static bool reduces(dk_comm_op op)
{
    return op == DK_COMM_ALL_REDUCE || op == DK_COMM_REDUCE_SCATTER;
}

static dk_status check_forms(tester *t, dk_comm_checker *k, dk_comm_case c, dk_error *err)
{
    for (int form = 0; form < 3; form++) {
        c.uneven = form == 1;
        c.started = form == 2;
        if (dk_comm_case_exists(k->comm, &c)) {
            misbehave(t);
            DK_TRY(dk_comm_check(k, &c, err));
            t->checks++;
        }
    }
    return DK_OK;
}

/* One call: every type and reduction that it has, sizes up to the largest. */
static dk_status check_op(tester *t, dk_comm_checker *k, dk_comm_op op, dk_error *err)
{
    static const size_t sizes[] = {1, 1000, 65537, 1 << 20};
    static const dk_dtype types[] = {DK_F32, DK_BF16, DK_I32};
    size_t most = (size_t)t->flags->max_bytes;
    for (size_t i = 0; i <= sizeof sizes / sizeof *sizes; i++) {
        dk_comm_case c = {.op = op, .type = DK_U8, .bytes = most};
        if (i < sizeof sizes / sizeof *sizes) {
            c.bytes = sizes[i];
        } else if (k->comm != t->world) {
            continue; /* the largest size is for all ranks together */
        }
        if (c.bytes > most || (op == DK_COMM_BARRIER && i > 0)) {
            continue;
        }
        for (int kind = 0; kind < (reduces(op) ? 6 : 1); kind++) {
            c.type = reduces(op) ? types[kind / 2] : DK_U8;
            c.reduction = kind % 2 == 0 ? DK_REDUCE_SUM : DK_REDUCE_MAX;
            DK_TRY(check_forms(t, k, c, err));
        }
    }
    return DK_OK;
}

static dk_status check_group(tester *t, dk_comm *comm, dk_error *err)
{
    dk_comm_checker k;
    dk_status status = DK_OK;
    dk_comm_checker_init(&k, comm);
    k.corrupts = t->injection.fault == DK_FAULT_CORRUPT && t->injection.rank == t->rank;
    for (int op = 0; op < DK_COMM_OP_COUNT && status == DK_OK; op++) {
        const dk_comm_case c = {.op = (dk_comm_op)op, .type = DK_U8};
        if (!dk_comm_case_exists(comm, &c)) {
            if (comm == t->world) {
                json_array_append_new(t->missing, json_string(dk_comm_op_names[op]));
            }
        } else if (op != DK_COMM_RECEIVE) { /* a message is sent and received in one case */
            status = check_op(t, &k, (dk_comm_op)op, err);
        }
    }
    dk_comm_checker_release(&k);
    return status;
}

/* Neighbours together, then every other rank together: both kinds of a replica's groups. */
static dk_status check_groups(tester *t, dk_error *err)
{
    int ranks = dk_comm_ranks(t->world);
    json_array_append_new(t->groups, json_string(dk_comm_name(t->world)));
    DK_TRY(check_group(t, t->world, err));
    for (int kind = 0; kind < 2; kind++) {
        dk_comm *part;
        const char *name = kind == 0 ? "halves" : "odd_even";
        int color = kind == 0 ? t->rank * 2 / ranks : t->rank % 2;
        int key = kind == 0 ? t->rank : -t->rank; /* the second kind is in reverse order */
        DK_TRY(dk_comm_split(&part, t->world, color, key, name, err));
        dk_status status = check_group(t, part, err);
        dk_comm_close(&part);
        DK_TRY(status);
        json_array_append_new(t->groups, json_string(name));
    }
    return dk_comm_barrier(t->world, err);
}

static dk_status time_case(tester *t, dk_comm_checker *k, const dk_comm_case *c, dk_error *err)
{
    enum { SMALL = 1 << 16, MIDDLE = 1 << 20 };
    double seconds, bytes = dk_comm_case_bytes(t->world, c);
    int repeats = c->bytes <= SMALL ? 20 : c->bytes <= MIDDLE ? 10 : 3;
    DK_TRY(dk_comm_time(k, c, repeats, &seconds, err));
    double rate = seconds > 0 ? bytes / seconds * 1e-9 : 0;
    json_array_append_new(
        t->calls,
        json_pack("{s:s, s:o, s:f, s:f, s:f, s:f}", "call", dk_comm_op_names[c->op], "dtype",
                  reduces(c->op) ? json_string(dk_dtype_name(c->type)) : json_null(), "bytes",
                  bytes, "latency_us", seconds * 1e6, "algorithm_gbs", rate, "bus_gbs",
                  rate * dk_comm_bus_factor(c->op, dk_comm_ranks(t->world))));
    return DK_OK;
}

static dk_status time_op(tester *t, dk_comm_checker *k, dk_comm_op op, dk_error *err)
{
    static const size_t sizes[] = {8, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20};
    dk_comm_case c = {.op = op, .type = DK_U8};
    if (op == DK_COMM_RECEIVE || !dk_comm_case_exists(t->world, &c)) {
        return DK_OK;
    }
    for (int kind = 0; kind < (reduces(op) ? 2 : 1); kind++) {
        c.type = !reduces(op) ? DK_U8 : kind == 0 ? DK_F32 : DK_BF16;
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            c.bytes = sizes[i];
            if (c.bytes <= (size_t)t->flags->max_bytes && (op != DK_COMM_BARRIER || i == 0)) {
                DK_TRY(time_case(t, k, &c, err));
            }
        }
    }
    return DK_OK;
}

static dk_status time_calls(tester *t, dk_error *err)
{
    dk_comm_checker k;
    dk_status status = DK_OK;
    dk_comm_checker_init(&k, t->world);
    for (int op = 0; op < DK_COMM_OP_COUNT && status == DK_OK; op++) {
        status = time_op(t, &k, (dk_comm_op)op, err);
    }
    dk_comm_checker_release(&k);
    return status;
}

static void print_warning(void *context, dk_log_level level, const char *line)
{
    (void)context;
    (void)level;
    fprintf(stderr, "darkroom: %s\n", line);
}

/* *out: NULL for the CPU. */
static dk_status open_lane(dk_device_lane **out, const dk_comm_test_flags *flags,
                           const dk_launch *launch, dk_error *err)
{
    char own[DK_RANK_DEVICE_BYTES];
    const char *name = dk_rank_device(own, flags->device, launch->local_rank);
    const char *backend = dk_comm_spell_backend(flags->backend);
    if (strcmp(name, "cpu") != 0 && strcmp(backend, "xccl") != 0 &&
        strcmp(backend, "auto") != 0) {
        return dk_fail(err, DK_INVALID,
                       "--device is '%s' and --backend '%s', which sends memory of the host: "
                       "accepted are --backend xccl or auto, or --device cpu",
                       flags->device, flags->backend);
    }
    return dk_device_lane_open(out, name, err);
}

static dk_status open_world(tester *t, const dk_launch *launch, dk_error *err)
{
    const char *backend = t->flags->backend;
    const dk_log log = {.write = print_warning, .level = DK_LOG_WARNING};
    dk_comm_options options = {.backend = backend,
                               .rank = launch->rank,
                               .ranks = launch->ranks,
                               .address = launch->address,
                               .key = launch->key,
                               .deadline_s = t->flags->deadline_s,
                               .probe = strcmp(backend, "auto") == 0,
                               .log = &log};
    if (launch->address[0] == '\0' && launch->ranks > 1 && strcmp(backend, "mpi") != 0 &&
        !(strcmp(backend, "auto") == 0 && launch->by_mpi)) {
        return dk_fail(err, DK_INVALID,
                       "where the ranks meet is not told: MASTER_ADDR and MASTER_PORT say it");
    }
    DK_TRY(open_lane(&options.lane, t->flags, launch, err));
    DK_TRY(dk_comm_open(&t->world, &options, err));
    t->rank = dk_comm_rank(t->world);
    return DK_OK;
}

dk_status dk_comm_test_rank(json_t **report, const dk_comm_test_flags *flags,
                            const dk_comm_injection *injection, const dk_launch *launch,
                            dk_error *err)
{
    tester t = {.flags = flags,
                .injection = *injection,
                .groups = json_array(),
                .calls = json_array(),
                .missing = json_array()};
    dk_status status = open_world(&t, launch, err);
    if (status == DK_OK && injection->rank >= dk_comm_ranks(t.world)) {
        status = dk_fail(err, DK_INVALID, "--inject: there is no rank %d", injection->rank);
    }
    if (status == DK_OK) {
        status = check_groups(&t, err);
    }
    if (status == DK_OK) {
        status = time_calls(&t, err);
    }
    bool on_device = t.world != NULL && dk_comm_lane(t.world) != NULL;
    *report = json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:o, s:b}", "backend",
                        t.world != NULL ? dk_comm_backend(t.world) : flags->backend, "device",
                        on_device ? flags->device : "cpu", "ranks",
                        t.world != NULL ? dk_comm_ranks(t.world) : launch->ranks, "checks",
                        t.checks, "groups", t.groups, "not_offered", t.missing, "calls",
                        t.calls, "passed", status == DK_OK);
    if (status != DK_OK && t.world != NULL) {
        dk_comm_abandon(t.world, err->message);
    }
    dk_comm_close(&t.world);
    return status;
}
