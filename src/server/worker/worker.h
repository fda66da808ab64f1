/* A worker process: an engine that takes tasks from the scheduler through a socket. One thread
   talks, one computes; the talking one also answers plans beside a running generation. */
#ifndef DK_SERVER_WORKER_WORKER_H
#define DK_SERVER_WORKER_WORKER_H

#include "base/error.h"
#include "darkroom/darkroom.h"

typedef struct dk_worker_options {
    int fd; /* the socket; taken */
    double checkpoint_every_s;
    /* Opens the engine, in the computing thread. Owned by the worker. */
    dk_status (*open)(void *context, dk_engine **out, dk_error *err);
    void *context;
    const char *const *introduction; /* what `open` learnt of where the scheduler is, told to a
                                        relay; NULL, or of NULL: nothing */
    const char *model_name;
} dk_worker_options;

/* Works until the scheduler says stop or is gone. A failure to open the engine is told to the
   scheduler and returned. */
DK_MUST_USE dk_status dk_worker_run(const dk_worker_options *options, dk_error *err);

#endif
