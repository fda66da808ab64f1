/* A worker as the scheduler sees it: a process, its socket, what it runs and how it is. The
   worker of a replica that a launcher started elsewhere is behind a relay (worker/relay.h),
   which starts, feeds and ends it in the scheduler's place. */
#ifndef DK_SERVER_SCHEDULER_SLOT_H
#define DK_SERVER_SCHEDULER_SLOT_H

#include <sys/types.h>

#include "server/scheduler/queue.h"
#include "server/wire/link.h"
#include "server/wire/pipe.h"

enum { DK_SLOT_MAX_BATCH = 64 };

typedef enum dk_slot_state {
    DK_SLOT_DOWN,    /* no process; comes back at restart_ms */
    DK_SLOT_LOADING, /* opens the model */
    DK_SLOT_IDLE,
    DK_SLOT_BUSY
} dk_slot_state;
const char *dk_slot_state_name(dk_slot_state state);

/* The relay of a worker elsewhere. */
typedef struct dk_slot_relay {
    dk_link *link;     /* borrowed; NULL: the worker is a process of the scheduler's own */
    dk_link_peer peer; /* size 0: it has not come, or is gone */
    int pid;           /* the worker's, of its host; 0: it is down */
    char host[64];     /* its name */
    double heard_ms, patience_ms;
    bool blind; /* it does not see the files of this host: they are sent */
    double rival_since_ms,
        rival_ms; /* when another one came first, and last, for its replica */
} dk_slot_relay;

typedef struct dk_slot {
    int index, of; /* worker `index` of `of` */
    dk_slot_state state;
    pid_t pid;
    dk_pipe *pipe;
    dk_slot_relay relay;
    json_int_t life; /* of this process: a number that no other has, of other slots neither */
    dk_task *running[DK_SLOT_MAX_BATCH]; /* [running_count], owned */
    int running_count, batch_size;       /* of the batch, so many are still running */
    json_t *ready, *alive;               /* what it told last; NULL */
    double pulse, sign_ms; /* the engine's pulse, and when there was a sign of life */
    double restart_ms;
    int failures; /* in a row, without being ready between */
    long restarts, watchdog_kills;
    double batch_ms, busy_ms, born_ms; /* start of the batch; busy so far; start of the slot */
} dk_slot;

/* Of the worker's process, on its host. 0: it is down. */
static inline int dk_slot_pid(const dk_slot *slot)
{
    return slot->relay.link != NULL ? slot->relay.pid : (int)slot->pid;
}

/* Whether it can be started: a relay has to be there. */
bool dk_slot_may_start(const dk_slot *slot);
/* Starts the process with its share of the cores; argv as in dk_scheduler_setup. */
DK_MUST_USE dk_status dk_slot_start(dk_slot *slot, const char *const *argv, dk_error *err);
/* Ends the process at once and waits for it. Its tasks stay in running[]. */
void dk_slot_kill(dk_slot *slot);
void dk_slot_release(dk_slot *slot);
/* Asks an idle worker to end by itself, so that what it writes has an end; busy ones are left,
   a relay ends whatever it has. */
void dk_slot_ask_to_end(dk_slot *slot);

/* To the worker. DK_IO: it is gone, as far as that is known. */
DK_MUST_USE dk_status dk_slot_send(dk_slot *slot, dk_message *message, dk_error *err);

/* Hands over a batch; the tasks are taken. */
DK_MUST_USE dk_status dk_slot_run(dk_slot *slot, dk_task *const *tasks, int count,
                                  dk_error *err);
void dk_slot_cancel(dk_slot *slot, const char *id);         /* asks the worker to stop a task */
dk_task *dk_slot_find(const dk_slot *slot, const char *id); /* borrowed; NULL: not here */
dk_task *dk_slot_take(dk_slot *slot, const char *id);       /* owned; NULL: not here */

/* Longest silence in ms that the watchdog accepts of what runs. */
double dk_slot_patience(const dk_slot *slot, double factor, double least_s);

#endif
