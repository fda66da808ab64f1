/* Started calls in a ring of entries; one thread, made with the first. */
#include "comm/queue.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"

enum { MOST_STARTED = 64 };

struct dk_comm_queue {
    dk_comm_carry_fn *carry;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock: */
    bool ends;
    dk_comm_call *calls[MOST_STARTED]; /* owned; of call n at n % MOST_STARTED */
    uint64_t started, done;            /* calls so far */
    dk_status status;                  /* first failure */
    dk_error error;
};

static void note(dk_comm_queue *q, dk_status status, const dk_error *error)
{
    if (status != DK_OK && q->status == DK_OK) {
        q->status = status;
        q->error = *error;
    }
}

static void *carry_on(void *context)
{
    dk_comm_queue *q = context;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (q->done == q->started && !q->ends) {
            pthread_cond_wait(&q->changed, &q->lock);
        }
        if (q->done == q->started) {
            break;
        }
        dk_comm_call *call = q->calls[q->done % MOST_STARTED];
        dk_status status = q->status;
        dk_error error = {0};
        pthread_mutex_unlock(&q->lock);
        if (status == DK_OK) {
            status = q->carry(call, true, &error);
        }
        dk_free(call);
        pthread_mutex_lock(&q->lock);
        note(q, status, &error);
        q->done++;
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

dk_comm_queue *dk_comm_queue_create(dk_comm_carry_fn *carry)
{
    dk_comm_queue *q = dk_alloc(sizeof *q);
    q->carry = carry;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    return q;
}

void dk_comm_queue_destroy(dk_comm_queue **queue)
{
    dk_comm_queue *q = *queue;
    if (q == NULL) {
        return;
    }
    pthread_mutex_lock(&q->lock);
    q->ends = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    if (q->has_thread) {
        pthread_join(q->thread, NULL);
    }
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    dk_free(q);
    *queue = NULL;
}

/* Signals are the caller's threads'. */
static void make_thread(dk_comm_queue *q)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    q->has_thread = pthread_create(&q->thread, NULL, carry_on, q) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!q->has_thread) {
        q->status =
            dk_fail(&q->error, DK_MEMORY, "the thread of collective calls does not start");
    }
}

static dk_status failure(const dk_comm_queue *q, dk_error *err)
{
    return q->status == DK_OK ? DK_OK : dk_fail(err, q->status, "%s", q->error.message);
}

uint64_t dk_comm_queue_start(dk_comm_queue *q, const dk_comm_call *call)
{
    pthread_mutex_lock(&q->lock);
    if (!q->has_thread && q->status == DK_OK) {
        make_thread(q);
    }
    while (q->status == DK_OK && q->started - q->done == MOST_STARTED) {
        pthread_cond_wait(&q->changed, &q->lock);
    }
    if (q->status == DK_OK) {
        dk_comm_call *copy = dk_alloc(sizeof *copy);
        memcpy(copy, call, sizeof *copy);
        q->calls[q->started++ % MOST_STARTED] = copy;
        pthread_cond_broadcast(&q->changed);
    }
    uint64_t number = q->started;
    pthread_mutex_unlock(&q->lock);
    return number;
}

dk_status dk_comm_queue_wait(dk_comm_queue *q, uint64_t number, dk_error *err)
{
    pthread_mutex_lock(&q->lock);
    while (q->done < number) {
        pthread_cond_wait(&q->changed, &q->lock);
    }
    dk_status status = failure(q, err);
    pthread_mutex_unlock(&q->lock);
    return status;
}

dk_status dk_comm_queue_run(dk_comm_queue *q, const dk_comm_call *call, dk_error *err)
{
    pthread_mutex_lock(&q->lock);
    bool waits = q->done < q->started;
    dk_status status = failure(q, err);
    pthread_mutex_unlock(&q->lock);
    if (status != DK_OK) {
        return status;
    }
    if (waits) {
        return dk_comm_queue_wait(q, dk_comm_queue_start(q, call), err);
    }
    dk_error error = {0};
    status = q->carry(call, false, &error);
    pthread_mutex_lock(&q->lock);
    note(q, status, &error);
    status = failure(q, err);
    pthread_mutex_unlock(&q->lock);
    return status;
}
