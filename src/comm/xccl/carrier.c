/* The thread, and those who wait for it. */
#include "comm/xccl/carrier.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"

/* A rank that leaves may have done its part of the call that the others are still in. */
static const double LOST_GRACE_MS = 1e3;

typedef enum state { IDLE, GIVEN, DONE, LEAVING } state;

struct dk_xccl_carrier {
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows, but what the thread has taken */
    pthread_cond_t given, done;
    state state;
    dk_device_lane *lane; /* borrowed; NULL: host memory */
    dk_xccl_call call;
    onecclComm_t made;
    int result;
    bool device_failed; /* though oneCCL enqueued the call */
    onecclUniqueId id;
    bool failed;   /* a call has: no more */
    bool left;     /* its owner is gone: the thread frees everything, should it ever return */
    int lost_rank; /* -1: none */
    double lost_ms;
    char why[256];
};

static int send_messages(const dk_xccl_call *c, void *queue)
{
    int result = onecclGroupStart();
    if (result == onecclSuccess && c->from >= 0) {
        result = onecclRecv(c->dst, c->dst_count, c->type, c->from, c->comm, queue);
    }
    if (result == onecclSuccess && c->to >= 0) {
        result = onecclSend(c->src, c->count, c->type, c->to, c->comm, queue);
    }
    int ended = onecclGroupEnd();
    return result != onecclSuccess ? result : ended;
}

static int begin(const dk_xccl_call *c, onecclComm_t *made)
{
    int result = c->device >= 0 ? onecclSetDevice((uint32_t)c->device) : onecclSuccess;
    return result != onecclSuccess
               ? result
               : onecclCommInitRank(made, (size_t)c->ranks, *c->id, c->rank);
}

static int make_call(const dk_xccl_call *c, onecclComm_t *made, void *queue)
{
    void *src = (void *)(uintptr_t)c->src; /* all_reduce's source is not const there */
    switch (c->kind) {
    case DK_XCCL_INIT:
        return begin(c, made);
    case DK_XCCL_SPLIT:
        return onecclCommSplit(c->comm, c->color, c->key, made, NULL);
    case DK_XCCL_DESTROY:
        return onecclCommDestroy(c->comm);
    case DK_XCCL_ALL_REDUCE:
        return onecclAllReduce(src, c->dst, c->count, c->type, c->reduction, c->comm, queue);
    case DK_XCCL_REDUCE_SCATTER:
        return onecclReduceScatter(c->src, c->dst, c->count, c->type, c->reduction, c->comm,
                                   queue);
    case DK_XCCL_ALL_GATHER:
        return onecclAllGather(c->src, c->dst, c->count, c->type, c->comm, queue);
    case DK_XCCL_ALL_TO_ALL:
        return onecclAllToAll(c->src, c->dst, c->count, c->type, c->comm, queue);
    case DK_XCCL_BROADCAST:
        return onecclBroadcast(c->src, c->dst, c->count, c->type, c->root, c->comm, queue);
    default:
        return send_messages(c, queue);
    }
}

static void release(dk_xccl_carrier *c)
{
    pthread_cond_destroy(&c->given);
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->lock);
    dk_free(c);
}

static void *work(void *context)
{
    dk_xccl_carrier *c = context;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (c->state != GIVEN && c->state != LEAVING) {
            pthread_cond_wait(&c->given, &c->lock);
        }
        if (c->state == LEAVING) {
            pthread_mutex_unlock(&c->lock);
            return NULL;
        }
        onecclComm_t made = NULL;
        pthread_mutex_unlock(&c->lock);
        int result = make_call(&c->call, &made, c->lane != NULL ? c->lane->queue : NULL);
        bool waited = result != onecclSuccess || c->lane == NULL || c->lane->wait(c->lane);
        pthread_mutex_lock(&c->lock);
        c->device_failed = !waited;
        c->made = made;
        c->result = result;
        c->state = DONE;
        pthread_cond_signal(&c->done);
        if (c->left) {
            pthread_mutex_unlock(&c->lock);
            release(c);
            return NULL;
        }
    }
}

dk_status dk_xccl_carrier_create(dk_xccl_carrier **out, dk_device_lane *lane, dk_error *err)
{
    dk_xccl_carrier *c = dk_alloc(sizeof *c);
    pthread_condattr_t attributes;
    *c = (dk_xccl_carrier){.lane = lane, .lost_rank = -1};
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c->given, &attributes);
    pthread_cond_init(&c->done, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&c->thread, NULL, work, c) != 0) {
        release(c);
        return dk_fail(err, DK_MEMORY, "xccl: its thread cannot be started");
    }
    *out = c;
    return DK_OK;
}

void dk_xccl_carrier_destroy(dk_xccl_carrier *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->state == GIVEN) {
        c->left = true;
        pthread_detach(c->thread);
        pthread_mutex_unlock(&c->lock);
        return;
    }
    c->state = LEAVING;
    pthread_cond_signal(&c->given);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    release(c);
}

onecclUniqueId *dk_xccl_carrier_id(dk_xccl_carrier *c)
{
    return &c->id;
}

/* Under the lock. What a group leaves is freed all the same. */
static bool is_lost(const dk_xccl_carrier *c)
{
    return c->lost_rank >= 0 && c->call.kind != DK_XCCL_DESTROY;
}

enum { SLICE_MS = 1000 }; /* waits of any length, a while at a time */

/* Under the lock, of the call that was taken. DK_OK: none is lost. */
static dk_status check_lost(const dk_xccl_carrier *c, const dk_comm_at *at, dk_error *err)
{
    if (is_lost(c)) {
        return dk_fail(err, DK_NETWORK, "%s: rank %d: %s", at->what, c->lost_rank, c->why);
    }
    if (c->failed) {
        return dk_fail(err, DK_NETWORK, "%s: a call of this group has failed before", at->what);
    }
    return DK_OK;
}

/* Under the lock: until the thread is done. */
static dk_status wait_for(dk_xccl_carrier *c, const dk_comm_at *at, dk_error *err)
{
    while (c->state == GIVEN) {
        double now_ms = dk_now_ms(), until_ms = at->deadline_ms;
        if (is_lost(c) && c->lost_ms + LOST_GRACE_MS < until_ms) {
            until_ms = c->lost_ms + LOST_GRACE_MS;
        }
        double slice_ms = now_ms + SLICE_MS < until_ms ? now_ms + SLICE_MS : until_ms;
        struct timespec until = {.tv_sec = (time_t)(slice_ms / 1e3)};
        until.tv_nsec = (long)((slice_ms - (double)until.tv_sec * 1e3) * 1e6);
        pthread_cond_timedwait(&c->done, &c->lock, &until);
        if (c->state == GIVEN && dk_now_ms() >= until_ms) {
            dk_status status = check_lost(c, at, err);
            if (status == DK_OK) {
                status = dk_fail(err, DK_TIMEOUT, "%s: it did not end in time", at->what);
            }
            return status;
        }
    }
    c->state = IDLE;
    if (c->result != onecclSuccess) {
        return dk_fail(err, DK_NETWORK, "%s: oneCCL says: %s", at->what,
                       onecclGetErrorString(c->result));
    }
    if (c->device_failed) {
        return dk_fail(err, DK_DEVICE, "%s: the device does not answer any more", at->what);
    }
    return DK_OK;
}

dk_status dk_xccl_carrier_call(dk_xccl_carrier *c, onecclComm_t *made, const dk_xccl_call *call,
                               const dk_comm_at *at, dk_error *err)
{
    pthread_mutex_lock(&c->lock);
    if (c->state != GIVEN) { /* one that is left behind keeps its own */
        c->call = *call;
    }
    dk_status status = check_lost(c, at, err);
    if (status == DK_OK) {
        c->state = GIVEN;
        pthread_cond_signal(&c->given);
        status = wait_for(c, at, err);
        c->failed = c->failed || status != DK_OK;
    }
    if (status == DK_OK && made != NULL) {
        *made = c->made;
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

void dk_xccl_carrier_lose(dk_xccl_carrier *c, int rank, const char *why)
{
    pthread_mutex_lock(&c->lock);
    if (c->lost_rank < 0) {
        c->lost_rank = rank;
        c->lost_ms = dk_now_ms();
        snprintf(c->why, sizeof c->why, "%s", why);
    }
    pthread_cond_broadcast(&c->done);
    pthread_mutex_unlock(&c->lock);
}

bool dk_xccl_carrier_failed(dk_xccl_carrier *c)
{
    pthread_mutex_lock(&c->lock);
    bool failed = c->failed;
    pthread_mutex_unlock(&c->lock);
    return failed;
}

bool dk_xccl_carrier_lost(dk_xccl_carrier *c)
{
    pthread_mutex_lock(&c->lock);
    bool is_gone = c->lost_rank >= 0;
    pthread_mutex_unlock(&c->lock);
    return is_gone;
}
