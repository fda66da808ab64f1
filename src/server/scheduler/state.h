/* The inside of the scheduler, shared by its files. One thread does everything. */
#ifndef DK_SERVER_SCHEDULER_STATE_H
#define DK_SERVER_SCHEDULER_STATE_H

#include "server/scheduler/scheduler.h"
#include "server/scheduler/slot.h"

enum { DK_SCHEDULER_MAX_PEERS = 64 };

/* Frames that wait for their reader to map them. */
typedef struct dk_held_frames {
    char *task; /* owned */
    int fd;     /* owned */
    struct dk_held_frames *next;
} dk_held_frames;

typedef struct dk_open_plan dk_open_plan;

typedef struct dk_scheduler {
    const dk_scheduler_setup *setup;
    const dk_scheduler_options *options;
    dk_link *link;
    dk_link *relays; /* of workers elsewhere; NULL: there are none */
    dk_queue *queue;
    dk_slot *slots; /* [slot_count] */
    int slot_count;
    dk_link_peer peers[DK_SCHEDULER_MAX_PEERS]; /* that said hello */
    int peer_count;
    dk_held_frames *held;
    dk_open_plan *plans; /* that workers were asked for */
    long plan_number;    /* of the latest */
    bool ends;           /* who leaves now is no loss */
    bool on_hold;        /* nothing is dispatched */
    bool was_ready;      /* some worker opened the model once */
    dk_error fatal;      /* why no worker will ever be ready; status DK_OK: they may */
    dk_error failure;    /* the latest that a worker told while it loaded; status DK_OK: none */
    bool changed;        /* the report is out of date */
    double reported_ms;
    double wake_ms; /* when a batch has waited long enough; 0: none waits */
    long done, failed, retried;
} dk_scheduler;

/* clients.c */
void dk_scheduler_take_client_message(dk_scheduler *s, const dk_link_peer *peer,
                                      dk_message *message);
void dk_scheduler_send(dk_scheduler *s, const dk_link_peer *peer, dk_message *message);
void dk_scheduler_send_to(dk_scheduler *s, dk_link *link, const dk_link_peer *peer,
                          dk_message *message);
void dk_scheduler_reply_error(dk_scheduler *s, const dk_task *task, dk_status status,
                              const char *text);

/* workers.c */
void dk_scheduler_take_worker_message(dk_scheduler *s, dk_slot *slot, dk_message *message);
void dk_scheduler_lose_worker(dk_scheduler *s, dk_slot *slot, const char *why);
/* A batch that a worker cannot begin, since it does not see this host's files: it waits again,
   and from now on they are sent there. */
void dk_scheduler_take_back(dk_scheduler *s, dk_slot *slot);
void dk_scheduler_dispatch(dk_scheduler *s);
/* Deadlines, the watchdog, workers that come back. */
void dk_scheduler_look_around(dk_scheduler *s);

/* plans.c: any worker that is up can plan, and read what the request names. Every question is
   answered, be it by the end of the worker that was asked. */
void dk_scheduler_plan(dk_scheduler *s, const dk_link_peer *peer, const dk_message *message);
void dk_scheduler_answer_plan(dk_scheduler *s, const dk_slot *slot, dk_message *message);
void dk_scheduler_lose_plans(dk_scheduler *s, const dk_slot *slot);
void dk_scheduler_forget_plans(dk_scheduler *s);

/* prepare.c: tells busy workers of the requests that come next */
void dk_scheduler_prepare(dk_scheduler *s);

/* remotes.c: all slots but the first, when the setup has an introduction */
DK_MUST_USE dk_status dk_scheduler_open_remotes(dk_scheduler *s, dk_error *err);
void dk_scheduler_read_remotes(dk_scheduler *s);
void dk_scheduler_look_at_remotes(dk_scheduler *s);
/* The slot's relay ends, and says why; its replica can come again. */
void dk_scheduler_send_away(dk_scheduler *s, dk_slot *slot, const char *why);
void dk_scheduler_end_remotes(dk_scheduler *s, double until_ms);

/* report.c */
void dk_scheduler_report(dk_scheduler *s, const dk_link_peer *to);
void dk_scheduler_report_if_due(dk_scheduler *s);

double dk_unix_ms(void);

#endif
