/* The queue: tasks that wait, and which comes next. Highest priority first; among equals the
   owner (API key) that the devices have served least; among its tasks the oldest. */
#ifndef DK_SERVER_SCHEDULER_QUEUE_H
#define DK_SERVER_SCHEDULER_QUEUE_H

#include <jansson.h>
#include <stdbool.h>

#include "server/wire/link.h"

/* One output to make. Owned by the queue while it waits, else by the slot that runs it. */
typedef struct dk_task {
    char *id;
    dk_link_peer peer; /* who gets the reply */
    json_t *request;
    char *signature; /* equal ones may share a batch; NULL: this one shares with none */
    char *owner, *checkpoint;
    int priority;
    double deadline_ms;  /* Unix time; 0: none */
    double step_seconds; /* planned */
    int attempts;        /* workers that were lost with it */
    double queued_ms;    /* dk_now_ms */
    long order;          /* of arrival; kept when it comes back */
    bool cancelled, late;
    json_int_t prepared_by; /* life of the worker that was told of it early; 0: none */
    struct dk_task *next;
} dk_task;

void dk_task_destroy(dk_task **task);

typedef struct dk_queue dk_queue;
dk_queue *dk_queue_create(void);
void dk_queue_destroy(dk_queue **queue);

void dk_queue_add(dk_queue *queue, dk_task *task /* taken */);
int dk_queue_depth(const dk_queue *queue);
dk_task *dk_queue_first(const dk_queue *queue); /* the oldest; borrowed, NULL: none */
dk_task *dk_queue_find(const dk_queue *queue, const char *id); /* borrowed, NULL: none */

/* Up to `most` tasks for one worker: the next one and those that may share its batch; owned by
   the caller. None, and *wait_ms > 0, while a batch that is not full may still wait delay_ms
   for others. */
int dk_queue_take(dk_queue *queue, dk_task **out, int most, double delay_ms, double now_ms,
                  double *wait_ms);

/* The tasks that would go next, up to `most`, which wait on; borrowed. Returns their number. */
int dk_queue_next(const dk_queue *queue, dk_task **out, int most);

/* Takes out one task by its id, or the first whose deadline is before unix_ms; NULL: none. */
dk_task *dk_queue_remove(dk_queue *queue, const char *id);
dk_task *dk_queue_remove_late(dk_queue *queue, double unix_ms);

/* Device time that an owner got. */
void dk_queue_charge(dk_queue *queue, const char *owner, double seconds);

/* The ids in the order in which they would go, up to `most`: an array of strings. Owned. */
json_t *dk_queue_order(const dk_queue *queue, int most);

#endif
