/* The inside of the service, shared by its files. */
#ifndef DK_SERVER_SERVICE_STATE_H
#define DK_SERVER_SERVICE_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "server/service/service.h"
#include "server/wire/message.h"

typedef struct dk_outbox_entry {
    dk_message message;
    struct dk_outbox_entry *next;
} dk_outbox_entry;

/* A call for a plan that waits for its answer. */
typedef struct dk_plan_call {
    long number;
    json_t *answer; /* NULL: none yet; owned */
    struct dk_plan_call *next;
} dk_plan_call;

/* Frames that came, on their way into the store. */
typedef struct dk_finish_work {
    char *id;
    int output;
    dk_message message; /* "result" */
    void *frames;       /* of the message, or: */
    void *mapped;       /* shared memory; NULL: none */
    size_t bytes;       /* that are mapped */
    bool taken;         /* a thread works on it */
    struct dk_finish_work *next;
} dk_finish_work;

typedef struct dk_plan_entry {
    char *key;
    json_t *plan;
    double made_ms;
    struct dk_plan_entry *next;
} dk_plan_entry;

struct dk_service {
    dk_service_options options;
    dk_watch *watch;
    dk_metrics *metrics;

    /* link.c: the thread that talks to the scheduler */
    pthread_t link_thread;
    dk_link *link;
    pid_t scheduler;
    int wake; /* eventfd */
    atomic_bool stopping, draining;
    atomic_bool full;  /* the disk: nothing new is dispatched */
    double heard_ms;   /* last message of the scheduler */
    double started_ms; /* of the scheduler */
    bool greeted;      /* its first report came: jobs were submitted */
    bool ever_greeted; /* or that of one before it */
    int stillborn;     /* schedulers that ended before, while none had ever reported */
    int instance;      /* of the scheduler */

    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t changed;
    dk_outbox_entry *outbox, *outbox_last;
    json_t *report, *model;
    dk_error fatal;
    dk_plan_call *calls;
    long next_call;
    dk_plan_entry *plans;
    int plan_count;

    /* finish.c */
    pthread_t *finishers;
    pthread_cond_t finish_woken;
    dk_finish_work *finish;
    int finishing; /* waiting or being worked on */
};

/* link.c */
DK_MUST_USE dk_status dk_service_link_start(dk_service *service, dk_error *err);
void dk_service_link_stop(dk_service *service);
void dk_service_post(dk_service *service, dk_message *message); /* taken; sent soon */

/* messages.c */
void dk_service_take_message(dk_service *service, dk_message *message);
void dk_service_submit_stored(dk_service *service, const dk_job_record *record);
/* Stored jobs that have not ended: in flight from the start, submitted when there is a
 * scheduler. */
void dk_service_note_unfinished(dk_service *service);
void dk_service_submit_unfinished(dk_service *service);
void dk_service_cancel_tasks(dk_service *service, const char *id, int outputs);
/* "ID/3" -> ID (owned) and 3. */
char *dk_service_task_job(const char *task, int *output);

/* finish.c */
DK_MUST_USE dk_status dk_service_finish_start(dk_service *service, dk_error *err);
void dk_service_finish_stop(dk_service *service);
bool dk_service_is_finishing(dk_service *service, const char *id, int output);
void dk_service_finish_add(dk_service *service, dk_finish_work *work /* taken */);

/* Ends a job in the store and tells the watchers. */
void dk_service_end_failed(dk_service *service, const char *id, dk_status status,
                           const char *message);
void dk_service_note_end(dk_service *service, const char *id, const char *state);

/* plan.c */
/* The scheduler has ended: who waits for a plan asks its successor. */
void dk_service_plan_lost(dk_service *service);
void dk_service_plan_answer(dk_service *service, dk_message *message);

#endif
