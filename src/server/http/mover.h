/* The thread that runs libmicrohttpd: it accepts, reads and writes, and calls what the daemon
   was given. */
#ifndef DK_SERVER_HTTP_MOVER_H
#define DK_SERVER_HTTP_MOVER_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"

typedef struct dk_http_mover {
    struct MHD_Daemon *daemon; /* owned */
    int wake_fd;
    atomic_bool moving;
    pthread_t thread;
} dk_http_mover;

/* Takes the daemon, started with MHD_USE_EPOLL and without a thread, also on failure. */
DK_MUST_USE dk_status dk_http_mover_start(dk_http_mover *mover, struct MHD_Daemon *daemon,
                                          dk_error *err);
/* From any thread: it looks at everything again. */
void dk_http_mover_wake(dk_http_mover *mover);
/* From any thread: a suspended connection goes on. */
void dk_http_mover_resume(dk_http_mover *mover, struct MHD_Connection *connection);
/* Closes all connections. */
void dk_http_mover_stop(dk_http_mover *mover);

#endif
