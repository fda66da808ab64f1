/* A worker of a replica that a launcher started, beside a scheduler that is elsewhere: the
   relay starts and ends it as that scheduler says, and passes messages on, frames as bytes. To
   the worker it is the scheduler. */
#ifndef DK_SERVER_WORKER_RELAY_H
#define DK_SERVER_WORKER_RELAY_H

#include "base/log.h"
#include "server/wire/introduction.h"

typedef struct dk_relay_options {
    int replica;                         /* from 1 on */
    const char *const *worker_argv;      /* as dk_scheduler_setup's, with its parent */
    const dk_introduction *introduction; /* NULL: the worker tells it, see below */
    bool once;          /* the worker's other ranks end with it: it is not started again here */
    const char *folder; /* for files of the scheduler's host, see relay_files.h */
    /* Without a word from the scheduler, and besides what a file takes that it has announced;
       0: 20,000, in which a server gives up a scheduler and starts another. */
    double silence_ms;
    const dk_log *log;
} dk_relay_options;

/* Until the scheduler asks for the end (DK_OK), the worker has ended for good, or nothing was
   heard of the scheduler for too long (DK_NETWORK).

   Ranks that only MPI connects learn from it where the scheduler is: then the worker is started
   at once, and the first that it says is an "introduction". */
DK_MUST_USE dk_status dk_relay_run(const dk_relay_options *options, dk_error *err);

#endif
