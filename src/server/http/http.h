/* HTTP/1.1 on libmicrohttpd: the protocol and its limits; what is served, the routes know.

   One thread moves bytes and never waits. A request that has arrived whole goes to a small team
   of handler threads; its handler answers at once, or keeps the exchange and lets another
   thread answer later. Every exchange is answered exactly once, by one of the dk_http_reply
   functions, which end it: after the call neither the exchange nor its request may be used. */
#ifndef DK_SERVER_HTTP_HTTP_H
#define DK_SERVER_HTTP_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

typedef struct dk_http_server dk_http_server;
typedef struct dk_http_exchange dk_http_exchange;
typedef struct dk_http_stream dk_http_stream;

enum { DK_HTTP_MAX_CAPTURES = 2, DK_HTTP_KEY_BYTES = 17 };

/* A field of a multipart/form-data or x-www-form-urlencoded body. A NUL follows the data. */
typedef struct dk_http_part {
    const char *name;
    const char *file_name;    /* NULL: a plain field */
    const char *content_type; /* NULL: not told */
    const char *data;
    size_t size;
} dk_http_part;

/* Borrowed until the exchange is answered. */
typedef struct dk_http_request {
    const char *method, *path;
    const char *captures[DK_HTTP_MAX_CAPTURES]; /* what stood for {…} in the route's pattern */
    const char *content_type;                   /* lower case, without parameters; "" */
    const char *body;                           /* whole; NULL for forms; a NUL follows it;
                                                   "" when there is none */
    size_t body_size;
    const dk_http_part *parts; /* [part_count] of a form, in order */
    int part_count;
    const char *client;          /* numeric address */
    char key[DK_HTTP_KEY_BYTES]; /* names the API key without telling it: 16 hex digits of its
                                    SHA-256; "" when no keys are configured */
} dk_http_request;

const dk_http_request *dk_http_request_of(const dk_http_exchange *exchange);
/* Header by name (any case), query value by name (decoded); NULL when absent. */
const char *dk_http_header(const dk_http_exchange *exchange, const char *name);
const char *dk_http_query(const dk_http_exchange *exchange, const char *name);
const dk_http_part *dk_http_part_find(const dk_http_request *request, const char *name);

/* Adds a header to the coming reply. Cache-Control replaces the default: no-store for replies
   from memory, no-cache for static bytes and files. */
void dk_http_add_header(dk_http_exchange *exchange, const char *name, const char *value);

/* The replies. type: media type. */
void dk_http_reply_bytes(dk_http_exchange *exchange, int http_status, const char *type,
                         void *bytes /* taken, dk_free */, size_t size);
/* Bytes that live as long as the server, such as the page's files; with an ETag and 304. */
void dk_http_reply_static(dk_http_exchange *exchange, const char *type, const void *bytes,
                          size_t size);
void dk_http_reply_json(dk_http_exchange *exchange, int http_status, json_t *value /* taken */);
/* OpenAI's error object: {"error": {"message", "type", "param", "code"}}, HTTP status by
   dk_status_http. param (the field) and code ("model_not_found") may be NULL. */
void dk_http_reply_error(dk_http_exchange *exchange, dk_status status, const char *message,
                         const char *param, const char *code);
/* A file: Content-Length, ETag, Last-Modified, HEAD, Range (one range: 206, 416), If-Range,
   If-None-Match. download_name may be NULL: no Content-Disposition. When the file cannot be
   opened the reply is a 404 or 500 error object. */
void dk_http_reply_file(dk_http_exchange *exchange, const char *path, const char *type,
                        const char *download_name);
/* Server-sent events. The stream is owned until dk_http_stream_end, which flushes what waits
   and ends the reply. A comment every 15 s keeps proxies patient and finds the dead. */
dk_http_stream *dk_http_reply_events(dk_http_exchange *exchange);
/* event may be NULL: only "data:" lines. `droppable`: left out when more than 64 KiB wait for
   the reader (progress and previews). Others are kept; when more than 256 KiB wait behind the
   event that is on its way, which may be of any size, the connection is cut. False: the reader
   is gone or was cut; the stream takes nothing more, but must still be ended. Any thread. */
bool dk_http_stream_send(dk_http_stream *stream, const char *event, const char *data,
                         bool droppable);
void dk_http_stream_end(dk_http_stream **stream);

typedef void dk_http_handler(void *context, dk_http_exchange *exchange,
                             const dk_http_request *request);

enum {
    DK_HTTP_OPEN = 1,   /* needs no API key */
    DK_HTTP_INLINE = 2, /* never waits: runs on the thread that moves bytes */
};

typedef struct dk_http_route {
    const char *method;  /* "GET" also answers HEAD */
    const char *pattern; /* "/v1/videos/{id}/content": {…} is one segment */
    unsigned flags;
    dk_http_handler *handle;
} dk_http_route;

/* What one exchange was, when it is over: for metrics and the access log. `route` is the
   pattern, "" when none matched. Called from any thread. */
typedef struct dk_http_report {
    const char *method, *route, *path, *client;
    int http_status;
    double seconds;
    uint64_t bytes_in, bytes_out;
} dk_http_report;

/* Start from dk_http_options_init. */
typedef struct dk_http_options {
    const char *host;                       /* "127.0.0.1", "::", a name */
    int port;                               /* 0: any free one */
    const char *ssl_certfile, *ssl_keyfile; /* both or none: PEM files */
    const char *const *api_keys;            /* [api_key_count]; none: everybody may come in */
    int api_key_count;
    const char *cors_origin; /* NULL: off; "*" or one origin */
    int max_connections;     /* more are closed at once */
    size_t max_body_bytes;   /* 413 above */
    size_t max_total_bytes;  /* bodies held for all exchanges together: 503 above */
    int max_parts;
    int idle_timeout_s;    /* of a connection that sends or takes nothing */
    int request_timeout_s; /* for a request to arrive whole */
    int handler_threads;
    const dk_http_route *routes; /* [route_count], borrowed */
    int route_count;
    void *context;                                               /* for handlers */
    void (*report)(void *context, const dk_http_report *report); /* may be NULL */
    const dk_log *log;                                           /* may be NULL */
} dk_http_options;

void dk_http_options_init(dk_http_options *options);

/* Listens. Owned. Errors say what to do: port taken, certificate unreadable. */
DK_MUST_USE dk_status dk_http_server_start(dk_http_server **out, const dk_http_options *options,
                                           dk_error *err);
int dk_http_server_port(const dk_http_server *server);
int dk_http_server_connections(const dk_http_server *server);
/* No new connections; those that exist go on. */
void dk_http_server_quiesce(dk_http_server *server);
/* Ends everything: waits for handlers, ends the streams, gives replies on their way 2 s.
   Exchanges that are kept elsewhere should have been answered before: their clients get no
   reply, and an answer that still comes only frees them. Streams that are still held must be
   ended all the same. */
void dk_http_server_stop(dk_http_server **server);

#endif
