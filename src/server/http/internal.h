/* What the files of src/server/http share: the server, its connections and exchanges.

   Threads: the mover runs libmicrohttpd, which accepts, reads, writes and calls on_…;
   the team runs handlers; the watch cuts slow senders, lingers and keeps streams alive.
   Locks, in the order in which they may be taken: watch.lock, a stream's lock, an exchange's
   lock, libmicrohttpd's own. No handler or report runs under any of them. */
#ifndef DK_SERVER_HTTP_INTERNAL_H
#define DK_SERVER_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#include "server/http/auth.h"
#include "server/http/form.h"
#include "server/http/http.h"
#include "server/http/mover.h"
#include "server/http/route.h"
#include "server/http/target.h"
#include "server/http/team.h"
#include "server/http/watch.h"

enum {
    DK_HTTP_CONNECTION_MEMORY = 32 * 1024,
    DK_HTTP_BACKLOG = 4096,           /* the kernel takes less where its own limit is lower */
    DK_HTTP_SEND_BUFFER = 256 * 1024, /* that a slow reader holds in the kernel */
    DK_HTTP_COMMENT_MS = 15 * 1000,   /* between comments of an event stream */
};

typedef struct dk_http_tag
    dk_http_tag; /* the ETag of static bytes, known after its first use */

struct dk_http_server {
    dk_http_options options; /* strings that are needed later are copies or borrowed for good */
    char *cors_origin;       /* owned; NULL: off */
    char *certificate, *certificate_key; /* owned, NULL without TLS */
    pthread_t
        starter; /* the thread that starts the server, and what libmicrohttpd said to it */
    char problem[256];
    dk_http_mover mover;
    int listen_fd, port;
    bool quiesced;
    dk_http_routes routes;
    dk_http_auth auth;
    dk_http_team team;
    dk_http_watch watch;
    pthread_mutex_t tags_lock;
    dk_http_tag *tags;
    atomic_size_t body_bytes; /* held for all exchanges */
    atomic_int exchanges;     /* that the mover still knows */
};

typedef struct dk_http_line {
    char *name, *value; /* owned */
} dk_http_line;

typedef enum dk_http_phase {
    DK_HTTP_ARRIVING, /* from the request line to the last byte of the body */
    DK_HTTP_WAITING,  /* for the handler; not suspended (yet) */
    DK_HTTP_SUSPENDED,
    DK_HTTP_QUEUED /* the reply is libmicrohttpd's */
} dk_http_phase;

/* Known to the mover from the request line to the end of the reply, and to its handler until
   it is answered: the one who is last frees it. */
struct dk_http_exchange {
    dk_http_server *server;
    dk_http_connection *connection;
    atomic_int references;
    char *raw_target; /* owned until it is parsed */
    dk_http_target target;
    dk_http_request request;
    const dk_http_route *route; /* NULL: none */
    dk_http_pair *headers;      /* [header_count] of the request, owned, one block */
    int header_count;
    char *method;            /* owned */
    char *content_type;      /* owned; request.content_type */
    const char *type_header; /* Content-Type as sent, with its parameters */
    dk_http_form form;
    struct {
        char *data; /* owned until answered */
        size_t size, capacity;
        size_t counted;     /* in the server's body_bytes */
        uint64_t announced; /* Content-Length; 0: none */
        uint64_t arrived;   /* also what is not kept */
        bool expected;      /* the request has a body */
    } body;
    int problem_http; /* status of a refusal that is settled before the handler; 0: none */
    const char *problem_code;
    char *problem_text; /* owned */
    bool begun, early;  /* early: answered before the body had arrived */
    double started_ms;
    uint64_t bytes_out;
    dk_http_line *lines; /* headers of the reply */
    int line_count;
    dk_http_exchange *next; /* in the team's queue */

    pthread_mutex_t lock; /* of what follows */
    dk_http_phase phase;
    struct MHD_Connection *mhd; /* NULL: the mover has forgotten the exchange */
    struct MHD_Response *reply; /* owned until queued */
    int http_status;            /* 0: not answered */
};

/* exchange.c: called by the mover. */
void *dk_http_on_line(void *server, const char *uri, struct MHD_Connection *connection);
enum MHD_Result dk_http_on_access(void *server, struct MHD_Connection *connection,
                                  const char *url, const char *method, const char *version,
                                  const char *data, size_t *size, void **exchange);
void dk_http_on_completed(void *server, struct MHD_Connection *connection, void **exchange,
                          enum MHD_RequestTerminationCode code);
/* Runs the exchange's handler; on the team or, for inline routes, on the mover. */
void dk_http_exchange_run(dk_http_exchange *exchange);
void dk_http_exchange_unref(dk_http_exchange *exchange);
/* The server stops without an answer: a sleeping connection wakes up and is closed. */
void dk_http_exchange_abandon(dk_http_exchange *exchange);
/* Gives back what only the handler needs. */
void dk_http_release_body(dk_http_exchange *exchange);

/* reply.c. Every reply ends here: takes the response and the handler's reference. */
void dk_http_finish(dk_http_exchange *exchange, int http_status, struct MHD_Response *response);
/* The connection is gone, since the server stopped. */
bool dk_http_is_forgotten(dk_http_exchange *exchange);
/* Adds a header unless the exchange's reply has one of this name. */
void dk_http_add_default(dk_http_exchange *exchange, const char *name, const char *value);
void dk_http_reply_problem(dk_http_exchange *exchange, int http_status, const char *message,
                           const char *param, const char *code);
void dk_http_tags_release(dk_http_server *server);

/* reply_file.c. True when If-None-Match holds the ETag (weak comparison): the reply is 304. */
bool dk_http_is_known(const dk_http_exchange *exchange, const char *etag);
/* Without a body: 204, 304. */
void dk_http_reply_empty(dk_http_exchange *exchange, int http_status);

/* listen.c: a listening socket, and the port it got. */
DK_MUST_USE dk_status dk_http_listen(int *out, int *port, const char *host, int wanted_port,
                                     dk_error *err);
/* Lets the process open as many files as `connections` need; returns how many it can serve. */
int dk_http_raise_files(int connections, const dk_log *log);

#endif
