/* Posting and waiting. */
#include "comm/mpi/exchange.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"

/* MPI counts in int. */
static const size_t PIECE_BYTES = (size_t)1 << 30;
/* A rank that has left may still have messages under way. */
static const double LEFT_GRACE_MS = 1e3, CANCEL_MS = 200;
/* Waiting: in a tight loop, then giving the core away, then asleep. */
static const double TIGHT_MS = 0.05, YIELD_MS = 2, SLEEP_MOST_MS = 0.2;

static MPI_Request *add_request(dk_mpi_transport *t, int peer, bool receives)
{
    if (t->count == t->capacity) {
        size_t capacity = (size_t)(t->capacity > 0 ? 2 * t->capacity : 16);
        t->requests = dk_realloc(t->requests, capacity * sizeof *t->requests);
        t->peers = dk_realloc(t->peers, capacity * sizeof *t->peers);
        t->receives = dk_realloc(t->receives, capacity * sizeof *t->receives);
        t->statuses = dk_realloc(t->statuses, capacity * sizeof *t->statuses);
        t->found = dk_realloc(t->found, capacity * sizeof *t->found);
        t->capacity = (int)capacity;
    }
    t->peers[t->count] = peer;
    t->receives[t->count] = receives;
    t->left++;
    return &t->requests[t->count++];
}

void dk_mpi_post_receive(dk_mpi_transport *t, void *dst, size_t bytes, int from)
{
    dk_mpi_life *life = t->life;
    pthread_mutex_lock(&life->lock);
    for (size_t at = 0; at < bytes && !life->failed; at += PIECE_BYTES) {
        size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        MPI_Request *request = add_request(t, from, true);
        if (MPI_Irecv((char *)dst + at, (int)piece, MPI_BYTE, t->world[from], t->tag,
                      life->data, request) != MPI_SUCCESS) {
            *request = MPI_REQUEST_NULL;
            life->failed = true;
        }
    }
    pthread_mutex_unlock(&life->lock);
}

void dk_mpi_post_send(dk_mpi_transport *t, const void *src, size_t bytes, int to)
{
    dk_mpi_life *life = t->life;
    pthread_mutex_lock(&life->lock);
    for (size_t at = 0; at < bytes && !life->failed; at += PIECE_BYTES) {
        size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        MPI_Request *request = add_request(t, to, false);
        if (MPI_Isend((const char *)src + at, (int)piece, MPI_BYTE, t->world[to], t->tag,
                      life->data, request) != MPI_SUCCESS) {
            *request = MPI_REQUEST_NULL;
            life->failed = true;
        }
    }
    pthread_mutex_unlock(&life->lock);
}

/* "rank 1", "ranks 1, 3", with the outermost group's numbers where they are others. */
static void name_missing(dk_string *out, const dk_mpi_transport *t)
{
    bool missing[DK_COMM_MOST_RANKS] = {false};
    int found = 0;
    for (int i = 0; i < t->count; i++) {
        if (t->requests[i] != MPI_REQUEST_NULL && !missing[t->peers[i]]) {
            missing[t->peers[i]] = true;
            found++;
        }
    }
    dk_string_puts(out, found == 1 ? "rank " : "ranks ");
    const char *between = "";
    for (int rank = 0; rank < t->base.ranks; rank++) {
        if (missing[rank]) {
            dk_string_printf(out, "%s%d", between, rank);
            if (t->world[rank] != rank) {
                dk_string_printf(out, " (%d of all)", t->world[rank]);
            }
            between = ", ";
        }
    }
}

/* Under the lock: takes back what is still under way, since its memory is the caller's. */
static void take_back(dk_mpi_transport *t)
{
    dk_mpi_life *life = t->life;
    double until_ms = dk_now_ms() + CANCEL_MS;
    int done = 0;
    life->failed = true;
    for (int i = 0; i < t->count; i++) {
        if (t->requests[i] != MPI_REQUEST_NULL && t->receives[i]) {
            MPI_Cancel(&t->requests[i]);
        }
    }
    while (!done && dk_now_ms() < until_ms) {
        if (MPI_Testall(t->count, t->requests, &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS) {
            break;
        }
    }
    life->spoiled = life->spoiled || !done;
    t->count = t->left = 0;
}

/* The message whose other rank is gone, by its notes; -1: none. */
static int find_left(const dk_mpi_transport *t, double now_ms)
{
    for (int i = 0; i < t->count; i++) {
        double left_ms = t->life->left_ms[t->world[t->peers[i]]];
        if (t->requests[i] != MPI_REQUEST_NULL && left_ms > 0 &&
            now_ms > left_ms + LEFT_GRACE_MS) {
            return i;
        }
    }
    return -1;
}

/* code: of a look that found `found` messages; the ones that failed say how. */
static dk_status tell_failure(const dk_mpi_transport *t, int code, int found,
                              const dk_comm_at *at, dk_error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length, peer = -1;
    for (int i = 0; code == MPI_ERR_IN_STATUS && peer < 0 && i < found; i++) {
        if (t->statuses[i].MPI_ERROR != MPI_SUCCESS) {
            code = t->statuses[i].MPI_ERROR;
            peer = t->peers[t->found[i]];
        }
    }
    MPI_Error_string(code, text, &length);
    if (peer < 0) {
        return dk_fail(err, DK_NETWORK, "%s: %s", at->what, text);
    }
    return dk_fail(err, DK_NETWORK, "%s: rank %d: %s", at->what, peer, text);
}

/* Under the lock: one look. *over: all is done, or it has failed. */
static dk_status look(dk_mpi_transport *t, bool *over, const dk_comm_at *at, dk_error *err)
{
    dk_mpi_life *life = t->life;
    int found = 0;
    *over = true;
    dk_mpi_life_hear(life);
    if (life->failed || life->spoiled) {
        return dk_fail(err, DK_NETWORK, "%s: a call of this group has failed before", at->what);
    }
    int code = MPI_Testsome(t->count, t->requests, &found, t->found, t->statuses);
    if (code != MPI_SUCCESS) {
        return tell_failure(t, code, found, at, err);
    }
    t->left -= found == MPI_UNDEFINED ? t->left : found;
    if (t->left == 0) {
        t->count = 0;
        return DK_OK;
    }
    if (life->gave_up >= 0) { /* what has come from that rank before is good */
        return dk_fail(err, DK_NETWORK, "%s: rank %d%s gave up: %s", at->what, life->gave_up,
                       t->outermost ? "" : " of all", life->why);
    }
    *over = false;
    return DK_OK;
}

/* Under the lock, where the look was long enough ago: is it time to stop? */
static dk_status check_time(const dk_mpi_transport *t, double now_ms, const dk_comm_at *at,
                            dk_error *err)
{
    int left = find_left(t, now_ms);
    if (left >= 0) {
        return dk_fail(err, DK_NETWORK, "%s: rank %d has left the group", at->what,
                       t->peers[left]);
    }
    if (now_ms < at->deadline_ms) {
        return DK_OK;
    }
    dk_string missing = DK_STRING_EMPTY;
    name_missing(&missing, t);
    dk_status status =
        dk_fail(err, DK_TIMEOUT, "%s: %s did not arrive in time", at->what, missing.data);
    dk_string_release(&missing);
    return status;
}

/* Gives the core away, longer and longer. */
static void rest(const dk_mpi_life *life, double waited_ms)
{
    if (waited_ms < TIGHT_MS && !life->cores_are_short) {
        return;
    }
    if (waited_ms < YIELD_MS) {
        sched_yield();
        return;
    }
    double ms = waited_ms / 50 < SLEEP_MOST_MS ? waited_ms / 50 : SLEEP_MOST_MS;
    nanosleep(&(struct timespec){.tv_nsec = (long)(ms * 1e6)}, NULL);
}

dk_status dk_mpi_wait(dk_mpi_transport *t, const dk_comm_at *at, dk_error *err)
{
    dk_mpi_life *life = t->life;
    double start_ms = dk_now_ms(), now_ms = start_ms;
    for (;;) {
        bool over;
        pthread_mutex_lock(&life->lock);
        dk_status status = look(t, &over, at, err);
        if (status == DK_OK && !over) {
            status = check_time(t, now_ms, at, err);
        }
        if (status != DK_OK) {
            take_back(t);
        }
        pthread_mutex_unlock(&life->lock);
        if (status != DK_OK || over) {
            return status;
        }
        rest(life, now_ms - start_ms);
        now_ms = dk_now_ms();
    }
}
