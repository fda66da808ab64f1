/* The handler threads and the exchanges that wait for one. */
#ifndef DK_SERVER_HTTP_TEAM_H
#define DK_SERVER_HTTP_TEAM_H

#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "server/http/http.h"

typedef struct dk_http_team {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    pthread_t *threads; /* [count], owned */
    int count;
    bool stopping;
    dk_http_exchange *first, *last;
} dk_http_team;

DK_MUST_USE dk_status dk_http_team_init(dk_http_team *team, int threads, dk_error *err);
/* Waits for handlers that run; what waits in the queue, and what still comes, is answered 503.
 */
void dk_http_team_stop(dk_http_team *team);
void dk_http_team_release(dk_http_team *team); /* once nobody pushes */
void dk_http_team_push(dk_http_team *team, dk_http_exchange *exchange);

/* Starts a thread that takes no signals: those are the program's. */
DK_MUST_USE dk_status dk_http_thread_create(pthread_t *out, void *(*run)(void *), void *context,
                                            dk_error *err);

#endif
