/* A worker as the scheduler sees it: a process, its socket, what it runs and how it is. */
#ifndef DK_SERVER_SCHEDULER_SLOT_H
#define DK_SERVER_SCHEDULER_SLOT_H

#include <sys/types.h>

#include "server/scheduler/queue.h"
#include "server/wire/pipe.h"

enum { DK_SLOT_MAX_BATCH = 64 };

typedef enum dk_slot_state {
    DK_SLOT_DOWN,    /* no process; comes back at restart_ms */
    DK_SLOT_LOADING, /* opens the model */
    DK_SLOT_IDLE,
    DK_SLOT_BUSY
} dk_slot_state;
const char *dk_slot_state_name(dk_slot_state state);

typedef struct dk_slot {
    int index, of; /* worker `index` of `of` */
    dk_slot_state state;
    pid_t pid;
    dk_pipe *pipe;
    dk_task *running[DK_SLOT_MAX_BATCH]; /* [running_count], owned */
    int running_count, batch_size;       /* of the batch, so many are still running */
    json_t *ready, *alive;               /* what it told last; NULL */
    double pulse, sign_ms; /* the engine's pulse, and when there was a sign of life */
    double restart_ms;
    int failures; /* in a row, without being ready between */
    long restarts, watchdog_kills;
    double batch_ms, busy_ms, born_ms; /* start of the batch; busy so far; start of the slot */
} dk_slot;

/* Starts the process with its share of the cores; argv as in dk_scheduler_setup. */
DK_MUST_USE dk_status dk_slot_start(dk_slot *slot, const char *const *argv, dk_error *err);
/* Ends the process at once and waits for it. Its tasks stay in running[]. */
void dk_slot_kill(dk_slot *slot);
void dk_slot_release(dk_slot *slot);
/* Asks an idle worker to end by itself, so that what it writes has an end; others are left. */
void dk_slot_ask_to_end(dk_slot *slot);

/* Hands over a batch; the tasks are taken. */
DK_MUST_USE dk_status dk_slot_run(dk_slot *slot, dk_task *const *tasks, int count,
                                  dk_error *err);
void dk_slot_cancel(dk_slot *slot, const char *id);         /* asks the worker to stop a task */
dk_task *dk_slot_find(const dk_slot *slot, const char *id); /* borrowed; NULL: not here */
dk_task *dk_slot_take(dk_slot *slot, const char *id);       /* owned; NULL: not here */

/* Longest silence in ms that the watchdog accepts of what runs. */
double dk_slot_patience(const dk_slot *slot, double factor, double least_s);

#endif
