/* What has to happen without a byte arriving: senders that take too long are cut, sockets whose
   request was refused half read are drained before they close, event streams get comments. */
#ifndef DK_SERVER_HTTP_WATCH_H
#define DK_SERVER_HTTP_WATCH_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"
#include "server/http/http.h"

enum { DK_HTTP_MAX_LINGERING = 128, DK_HTTP_LINGER_MS = 2000 };

/* One client's connection: libmicrohttpd's socket context. */
typedef struct dk_http_connection {
    struct dk_http_connection *previous, *next; /* in the watch's list */
    int fd;
    dk_http_exchange *exchange; /* from the request line on: then a cut is told */
    double deadline_ms;         /* 0: nothing is waited for */
    char client[INET6_ADDRSTRLEN];
} dk_http_connection;

typedef struct dk_http_lingering {
    int fd; /* owned */
    bool shut;
    double deadline_ms;
} dk_http_lingering;

typedef struct dk_http_watch {
    pthread_mutex_t lock;
    pthread_t thread;
    int wake_fd;
    bool running, stopping, tell_cut; /* tell_cut: the sockets speak plain HTTP */
    int comment_ms;
    dk_http_connection *connections;
    dk_http_stream *streams;
    dk_http_lingering lingering[DK_HTTP_MAX_LINGERING];
    int lingering_count;
    atomic_int connection_count;
} dk_http_watch;

DK_MUST_USE dk_status dk_http_watch_init(dk_http_watch *watch, bool tell_cut, int comment_ms,
                                         dk_error *err);
void dk_http_watch_release(dk_http_watch *watch);

void dk_http_watch_add(dk_http_watch *watch, dk_http_connection *connection, double seconds);
void dk_http_watch_remove(dk_http_watch *watch, dk_http_connection *connection);
/* The rest of a request must have arrived in `seconds`; 0: nothing is waited for. */
void dk_http_watch_expect(dk_http_watch *watch, dk_http_connection *connection, double seconds);
/* A request's line has arrived; the reply is over. `seconds` as above. */
void dk_http_watch_begin(dk_http_watch *watch, dk_http_connection *connection,
                         dk_http_exchange *exchange, double seconds);
void dk_http_watch_end(dk_http_watch *watch, dk_http_connection *connection, double seconds);
/* Wakes what is still suspended, so that libmicrohttpd can be stopped. */
void dk_http_watch_abandon(dk_http_watch *watch);
/* The client may still be sending what nobody reads; were the socket closed over that, its
   system would throw the reply away. A copy of fd stays open until the client has stopped. */
void dk_http_watch_linger(dk_http_watch *watch, int fd);

#endif
