/* Communicators: a transport, the queue of the outermost group, and what calls have cost. */
#include "comm/communicator.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "comm/backend.h"
#include "comm/module.h"
#include "comm/queue.h"

enum { NAME_BYTES = 32 };

/* What a group and its sub-groups share. */
typedef struct shared {
    dk_comm_queue *queue;
    dk_lane_memory scratch; /* of the call that is carried out */
    bool failed;            /* a call has: it may still use its scratch */
    atomic_int under_way;   /* calls */
    dk_trace *trace;        /* borrowed; NULL: none */
    const char *lane;       /* in it; a static text */
    pthread_mutex_t lock;
    dk_comm_work work[DK_COMM_OP_COUNT]; /* under the lock */
    dk_log log;
} shared;

struct dk_comm {
    dk_transport *transport; /* owned */
    dk_comm *outermost;      /* itself, or borrowed */
    shared *shared;          /* owned by the outermost */
    double deadline_s;
    dk_comm_wait_fn *wait; /* of the next call */
    void *mark;
    char name[NAME_BYTES];
};

static dk_status carry(const dk_comm_call *call, bool beside, dk_error *err)
{
    dk_comm *comm = call->comm;
    shared *s = comm->shared;
    char what[64];
    if (call->wait != NULL) {
        call->wait(call->mark);
    }
    int64_t start_ns = dk_now_ns();
    double start = (double)start_ns * 1e-6;
    snprintf(what, sizeof what, "%s of %s", dk_comm_op_names[call->op], comm->name);
    const dk_comm_at at = {
        .what = what, .deadline_ms = start + comm->deadline_s * 1e3, .beside = beside};
    atomic_fetch_add(&s->under_way, 1);
    dk_status status = dk_comm_call_run(call, comm->transport, &s->scratch, &at, err);
    atomic_fetch_sub(&s->under_way, 1);
    s->failed = s->failed || status != DK_OK;
    int64_t end_ns = dk_now_ns();
    double bytes = dk_comm_call_bytes(call, comm->transport->rank, comm->transport->ranks);
    dk_trace_add(s->trace, &(dk_trace_span){.lane = s->lane,
                                            .name = dk_comm_op_names[call->op],
                                            .begin_ns = start_ns,
                                            .end_ns = end_ns,
                                            .bytes = (int64_t)bytes,
                                            .group = comm->name});
    pthread_mutex_lock(&s->lock);
    dk_comm_work *work = &s->work[call->op];
    work->calls++;
    work->bytes += bytes;
    work->seconds += (double)(end_ns - start_ns) * 1e-9;
    pthread_mutex_unlock(&s->lock);
    return status;
}

static void note_waited(shared *s, dk_comm_op op, double start_ms)
{
    pthread_mutex_lock(&s->lock);
    s->work[op].waited += (dk_now_ms() - start_ms) * 1e-3;
    pthread_mutex_unlock(&s->lock);
}

/* The call as it is carried out: after what it was told to come after. */
static void take_mark(dk_comm_call *call)
{
    call->wait = call->comm->wait;
    call->mark = call->comm->mark;
    dk_comm_after(call->comm, NULL, NULL);
}

static dk_status run(dk_comm_call *call, dk_error *err)
{
    double start = dk_now_ms();
    take_mark(call);
    dk_status status = dk_comm_queue_run(call->comm->shared->queue, call, err);
    note_waited(call->comm->shared, call->op, start);
    return status;
}

dk_comm *dk_comm_create(dk_transport *transport, const dk_comm_options *options)
{
    dk_comm *comm = dk_alloc(sizeof *comm);
    shared *s = dk_alloc(sizeof *s);
    *s = (shared){.queue = dk_comm_queue_create(carry),
                  .log = options->log != NULL ? *options->log : (dk_log){0}};
    pthread_mutex_init(&s->lock, NULL);
    *comm = (dk_comm){.transport = transport,
                      .outermost = comm,
                      .shared = s,
                      .deadline_s =
                          options->deadline_s > 0 ? options->deadline_s : DK_COMM_DEADLINE_S,
                      .name = "world"};
    return comm;
}

void dk_comm_close(dk_comm **comm)
{
    if (*comm == NULL) {
        return;
    }
    dk_comm *c = *comm;
    if (c->outermost == c) {
        dk_comm_queue_destroy(&c->shared->queue);
        if (!c->shared->failed) {
            dk_lane_release(c->transport->lane, &c->shared->scratch);
        }
        dk_transport_close(&c->transport);
        pthread_mutex_destroy(&c->shared->lock);
        dk_free(c->shared);
    } else {
        c->transport->ops->close(c->transport);
    }
    dk_free(c);
    *comm = NULL;
}

dk_status dk_comm_split(dk_comm **out, dk_comm *comm, int color, int key, const char *name,
                        dk_error *err)
{
    char what[64];
    dk_transport *part = NULL;
    *out = NULL;
    /* Nothing that was started may be under way in the same transport. */
    DK_TRY(dk_comm_barrier(comm, err));
    snprintf(what, sizeof what, "making the groups %s", name);
    const dk_comm_at at = {.what = what, .deadline_ms = dk_now_ms() + comm->deadline_s * 1e3};
    DK_TRY(comm->transport->ops->split(&part, comm->transport, color, key, &at, err));
    if (part != NULL) {
        dk_comm *made = dk_alloc(sizeof *made);
        *made = (dk_comm){.transport = part,
                          .outermost = comm->outermost,
                          .shared = comm->shared,
                          .deadline_s = comm->deadline_s};
        snprintf(made->name, sizeof made->name, "%s", name);
        *out = made;
    }
    return DK_OK;
}

void dk_comm_set_trace(dk_comm *comm, dk_trace *trace, const char *lane)
{
    comm->shared->lane = lane;
    comm->shared->trace = trace;
}

void dk_comm_set_deadline(dk_comm *comm, double seconds)
{
    comm->deadline_s = seconds;
}

int dk_comm_rank(const dk_comm *comm)
{
    return comm->transport->rank;
}

int dk_comm_ranks(const dk_comm *comm)
{
    return comm->transport->ranks;
}

const char *dk_comm_name(const dk_comm *comm)
{
    return comm->name;
}

const char *dk_comm_backend(const dk_comm *comm)
{
    return comm->outermost->transport->ops->name;
}

dk_device_lane *dk_comm_lane(const dk_comm *comm)
{
    return comm->transport->lane;
}

bool dk_comm_has_messages(const dk_comm *comm)
{
    return comm->transport->ops->send_receive != NULL;
}

void dk_comm_after(dk_comm *comm, dk_comm_wait_fn *wait, void *mark)
{
    comm->wait = wait;
    comm->mark = mark;
}

void dk_comm_abandon(dk_comm *comm, const char *why)
{
    dk_transport *transport = comm->outermost->transport;
    transport->ops->abandon(transport, why);
}

bool dk_comm_is_busy(const dk_comm *comm)
{
    return atomic_load(&comm->shared->under_way) > 0;
}

void dk_comm_get_work(const dk_comm *comm, dk_comm_work out[DK_COMM_OP_COUNT])
{
    pthread_mutex_lock(&comm->shared->lock);
    memcpy(out, comm->shared->work, sizeof comm->shared->work);
    pthread_mutex_unlock(&comm->shared->lock);
}

static void set_sizes(size_t *out, const size_t *sizes, const dk_comm *comm)
{
    memcpy(out, sizes, (size_t)comm->transport->ranks * sizeof *sizes);
}

static dk_comm_call reduction_call(dk_comm *comm, void *data, dk_dtype type, size_t count,
                                   dk_reduction reduction)
{
    return (dk_comm_call){.comm = comm,
                          .op = DK_COMM_ALL_REDUCE,
                          .dst = data,
                          .type = type,
                          .count = count,
                          .reduction = reduction};
}

static dk_comm_call gather_call(dk_comm *comm, dk_comm_op op, void *dst, const void *src,
                                size_t outer, const size_t *bytes)
{
    dk_comm_call call = {.comm = comm, .op = op, .dst = dst, .src = src, .outer = outer};
    set_sizes(call.dst_bytes, bytes, comm);
    return call;
}

static dk_comm_call all_to_all_call(dk_comm *comm, void *dst, const size_t *dst_bytes,
                                    const void *src, const size_t *src_bytes)
{
    dk_comm_call call = {.comm = comm, .op = DK_COMM_ALL_TO_ALL, .dst = dst, .src = src};
    set_sizes(call.dst_bytes, dst_bytes, comm);
    set_sizes(call.src_bytes, src_bytes, comm);
    return call;
}

static dk_comm_call shift_call(dk_comm *comm, void *dst, size_t dst_bytes, const void *src,
                               size_t src_bytes)
{
    return (dk_comm_call){.comm = comm,
                          .op = DK_COMM_SHIFT,
                          .dst = dst,
                          .src = src,
                          .src_bytes = {src_bytes},
                          .dst_bytes = {dst_bytes}};
}

dk_status dk_comm_all_reduce(dk_comm *comm, void *data, dk_dtype type, size_t count,
                             dk_reduction reduction, dk_error *err)
{
    dk_comm_call call = reduction_call(comm, data, type, count, reduction);
    return run(&call, err);
}

dk_status dk_comm_reduce_scatter(dk_comm *comm, void *dst, const void *src, dk_dtype type,
                                 const size_t *counts, dk_reduction reduction, dk_error *err)
{
    dk_comm_call call = {.comm = comm,
                         .op = DK_COMM_REDUCE_SCATTER,
                         .dst = dst,
                         .src = src,
                         .type = type,
                         .reduction = reduction};
    set_sizes(call.dst_bytes, counts, comm);
    return run(&call, err);
}

dk_status dk_comm_all_gather(dk_comm *comm, void *dst, const void *src, size_t outer,
                             const size_t *bytes, dk_error *err)
{
    dk_comm_call call = gather_call(comm, DK_COMM_ALL_GATHER, dst, src, outer, bytes);
    return run(&call, err);
}

dk_status dk_comm_gather(dk_comm *comm, void *dst, const void *src, size_t outer,
                         const size_t *bytes, int root, dk_error *err)
{
    dk_comm_call call = gather_call(comm, DK_COMM_GATHER, dst, src, outer, bytes);
    call.peer = root;
    return run(&call, err);
}

dk_status dk_comm_all_to_all(dk_comm *comm, void *dst, const size_t *dst_bytes, const void *src,
                             const size_t *src_bytes, dk_error *err)
{
    dk_comm_call call = all_to_all_call(comm, dst, dst_bytes, src, src_bytes);
    return run(&call, err);
}

dk_status dk_comm_broadcast(dk_comm *comm, void *data, size_t bytes, int root, dk_error *err)
{
    dk_comm_call call = {
        .comm = comm, .op = DK_COMM_BROADCAST, .dst = data, .count = bytes, .peer = root};
    return run(&call, err);
}

dk_status dk_comm_send(dk_comm *comm, const void *src, size_t bytes, int to, dk_error *err)
{
    dk_comm_call call = {
        .comm = comm, .op = DK_COMM_SEND, .src = src, .src_bytes = {bytes}, .peer = to};
    return run(&call, err);
}

dk_status dk_comm_receive(dk_comm *comm, void *dst, size_t bytes, int from, dk_error *err)
{
    dk_comm_call call = {
        .comm = comm, .op = DK_COMM_RECEIVE, .dst = dst, .dst_bytes = {bytes}, .peer = from};
    return run(&call, err);
}

dk_status dk_comm_shift(dk_comm *comm, void *dst, size_t dst_bytes, const void *src,
                        size_t src_bytes, dk_error *err)
{
    dk_comm_call call = shift_call(comm, dst, dst_bytes, src, src_bytes);
    return run(&call, err);
}

dk_status dk_comm_barrier(dk_comm *comm, dk_error *err)
{
    dk_comm_call call = {.comm = comm, .op = DK_COMM_BARRIER};
    return run(&call, err);
}

/* A ticket carries its call's kind in the low bits. */
enum { OP_BITS = 4 };
_Static_assert(DK_COMM_OP_COUNT <= 1 << OP_BITS, "kinds of calls fit their bits");

static dk_comm_ticket start(dk_comm_call *call)
{
    take_mark(call);
    uint64_t number = dk_comm_queue_start(call->comm->shared->queue, call);
    return number << OP_BITS | (uint64_t)call->op;
}

dk_comm_ticket dk_comm_start_all_to_all(dk_comm *comm, void *dst, const size_t *dst_bytes,
                                        const void *src, const size_t *src_bytes)
{
    dk_comm_call call = all_to_all_call(comm, dst, dst_bytes, src, src_bytes);
    return start(&call);
}

dk_comm_ticket dk_comm_start_all_gather(dk_comm *comm, void *dst, const void *src, size_t outer,
                                        const size_t *bytes)
{
    dk_comm_call call = gather_call(comm, DK_COMM_ALL_GATHER, dst, src, outer, bytes);
    return start(&call);
}

dk_comm_ticket dk_comm_start_all_reduce(dk_comm *comm, void *data, dk_dtype type, size_t count,
                                        dk_reduction reduction)
{
    dk_comm_call call = reduction_call(comm, data, type, count, reduction);
    return start(&call);
}

dk_comm_ticket dk_comm_start_shift(dk_comm *comm, void *dst, size_t dst_bytes, const void *src,
                                   size_t src_bytes)
{
    dk_comm_call call = shift_call(comm, dst, dst_bytes, src, src_bytes);
    return start(&call);
}

dk_status dk_comm_wait(dk_comm *comm, dk_comm_ticket ticket, dk_error *err)
{
    double start_ms = dk_now_ms();
    dk_status status = dk_comm_queue_wait(comm->shared->queue, ticket >> OP_BITS, err);
    if (ticket != 0) {
        note_waited(comm->shared, (dk_comm_op)(ticket & ((1 << OP_BITS) - 1)), start_ms);
    }
    return status;
}
