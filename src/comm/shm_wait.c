/* Waiting for other ranks, and what is noticed meanwhile: a group that was given up, a rank
   that left or whose process has ended, a deadline. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/string.h"
#include "comm/shm.h"

enum {
    PAUSES = 32,   /* between two looks at the clock */
    SLICE_MS = 50, /* of sleep, between two looks at what may have happened */
};
static const double spin_ms = 0.05;

const char *dk_shm_name(const dk_shm *g, int rank, char out[DK_SHM_NAME_BYTES])
{
    if (g->is_outermost) {
        snprintf(out, DK_SHM_NAME_BYTES, "rank %d", rank);
    } else {
        snprintf(out, DK_SHM_NAME_BYTES, "rank %d (%d of all)", rank, g->world[rank]);
    }
    return out;
}

void dk_shm_life_end(dk_shm_life *life, int rank, const char *why)
{
    pthread_mutex_lock(&life->mutex);
    if (!atomic_load(&life->is_over)) {
        life->rank = rank;
        snprintf(life->why, sizeof life->why, "%.*s", DK_SHM_WHY_BYTES - 1, why);
        atomic_store(&life->is_over, true);
    }
    pthread_mutex_unlock(&life->mutex);
}

dk_status dk_shm_check_life(const dk_shm *g, const dk_comm_at *at, dk_error *err)
{
    const dk_shm_life *life = g->life;
    if (!atomic_load_explicit(&g->life->is_over, memory_order_acquire)) {
        return DK_OK;
    }
    if (life->rank == g->world[g->head.rank]) {
        return dk_fail(err, DK_NETWORK, "%s: this rank (%d of all) gave up: %s", at->what,
                       life->rank, life->why);
    }
    return dk_fail(err, DK_NETWORK, "%s: rank %d of all is gone: %s", at->what, life->rank,
                   life->why);
}

void dk_shm_abandon(dk_transport *t, const char *why)
{
    dk_shm *g = (dk_shm *)t;
    dk_shm_life_end(g->life, g->world[g->head.rank], why);
    dk_rendezvous_abandon(g->life->meeting, why);
}

dk_status dk_shm_end_call(dk_shm *g, dk_status status, const dk_error *reason, dk_error *err)
{
    if (status == DK_OK) {
        return DK_OK;
    }
    if (!atomic_load(&g->life->is_over)) {
        dk_shm_abandon(&g->head, reason->message);
    }
    return dk_fail(err, status, "%s", reason->message);
}

static void sleep_at(atomic_uint *door, uint32_t value, double until_ms)
{
    double left = until_ms - dk_now_ms();
    left = left < 0 ? 0 : left > SLICE_MS ? SLICE_MS : left;
    struct timespec time = {.tv_nsec = (long)(left * 1e6)};
    syscall(SYS_futex, door, FUTEX_WAIT, value, &time, NULL, 0);
}

void dk_shm_knock(dk_shm *g, int rank)
{
    dk_shm_rank *other = &g->ranks[rank];
    uint32_t awaits = atomic_load(&other->awaits);
    if (awaits == (uint32_t)g->head.rank + 1 || awaits == DK_SHM_ANY) {
        atomic_fetch_add(&other->door, 1);
        syscall(SYS_futex, &other->door, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

void dk_shm_post(dk_shm *g, dk_shm_count count, uint32_t value)
{
    /* In one order for all: either this rank sees who waits, or the one who waits sees the
       counter. */
    atomic_store(&g->ranks[g->head.rank].counts[count], value);
    for (int i = 0; i < g->head.ranks; i++) {
        if (i != g->head.rank) {
            dk_shm_knock(g, i);
        }
    }
}

/* A process that has ended and was not heard of: when rank 0 has left before the others, nobody
   tells. */
static bool has_ended(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        return errno == ESRCH;
    }
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    bool result = poll(&ended, 1, 0) == 1;
    close(fd);
    return result;
}

static dk_status too_late(const dk_shm *g, const dk_shm_wait *wait, const dk_comm_at *at,
                          double waited_ms, dk_error *err)
{
    dk_string names = DK_STRING_EMPTY;
    char name[DK_SHM_NAME_BYTES];
    for (int i = 0; i < g->head.ranks; i++) {
        if (wait->is_late(g, wait, i)) {
            dk_string_puts(&names, names.length > 0 ? ", " : "");
            dk_string_puts(&names, dk_shm_name(g, i, name));
        }
    }
    dk_status status =
        dk_fail(err, DK_TIMEOUT, "%s: its deadline passed after %.1f s; did not arrive: %s",
                at->what, waited_ms * 1e-3, dk_string_text(&names));
    dk_string_release(&names);
    return status;
}

/* What may have happened while this rank slept. */
static dk_status look_around(const dk_shm *g, const dk_shm_wait *wait, const dk_comm_at *at,
                             double since_ms, dk_error *err)
{
    double now = dk_now_ms();
    char name[DK_SHM_NAME_BYTES];
    DK_TRY(dk_shm_check_life(g, at, err));
    for (int i = 0; i < g->head.ranks; i++) {
        if (!wait->is_late(g, wait, i)) {
            continue;
        }
        bool has_left = atomic_load(&g->ranks[i].has_left) != 0;
        bool is_dead = now - since_ms > SLICE_MS && has_ended(g->life->pids[g->world[i]]);
        /* Its last step may have come just before its end. */
        if ((has_left || is_dead) && wait->is_late(g, wait, i)) {
            return dk_fail(err, DK_NETWORK, "%s: %s is gone: %s", at->what,
                           dk_shm_name(g, i, name),
                           has_left ? "it has left the group" : "its process has ended");
        }
    }
    return now >= at->deadline_ms ? too_late(g, wait, at, now - since_ms, err) : DK_OK;
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool spin(const dk_shm *g, const dk_shm_wait *wait)
{
    double until = dk_now_ms() + spin_ms;
    do {
        for (int i = 0; i < PAUSES; i++) {
            if (wait->is_over(g, wait)) {
                return true;
            }
            pause_briefly();
        }
        sched_yield(); /* the one that is waited for may want this very core */
    } while (dk_now_ms() < until);
    return false;
}

dk_status dk_shm_await(dk_shm *g, const dk_shm_wait *wait, const dk_comm_at *at, dk_error *err)
{
    dk_shm_rank *own = &g->ranks[g->head.rank];
    dk_status status = DK_OK;
    if (wait->is_over(g, wait) || (g->life->spins && !at->beside && spin(g, wait))) {
        return DK_OK;
    }
    double since = dk_now_ms();
    atomic_store(&own->awaits, wait->awaits);
    for (;;) {
        uint32_t value = atomic_load(&own->door);
        if (wait->is_over(g, wait)) {
            break;
        }
        status = look_around(g, wait, at, since, err);
        if (status != DK_OK) {
            break;
        }
        sleep_at(&own->door, value, at->deadline_ms);
    }
    atomic_store_explicit(&own->awaits, 0, memory_order_relaxed);
    return status;
}

static bool has_reached(const dk_shm *g, int rank, const dk_shm_wait *wait)
{
    return dk_shm_reached(atomic_load(&g->ranks[rank].counts[wait->count]), wait->target);
}

static bool one_is_over(const dk_shm *g, const dk_shm_wait *wait)
{
    return has_reached(g, (int)wait->awaits - 1, wait);
}

static bool one_is_late(const dk_shm *g, const dk_shm_wait *wait, int rank)
{
    return !has_reached(g, rank, wait);
}

dk_status dk_shm_await_all(dk_shm *g, dk_shm_count count, uint32_t target, const dk_comm_at *at,
                           dk_error *err)
{
    dk_shm_wait wait = {
        .is_over = one_is_over, .is_late = one_is_late, .count = count, .target = target};
    for (int i = 0; i < g->head.ranks; i++) {
        if (!has_reached(g, i, &wait) && i != g->head.rank) {
            wait.awaits = (uint32_t)i + 1;
            DK_TRY(dk_shm_await(g, &wait, at, err));
        }
    }
    return DK_OK;
}
