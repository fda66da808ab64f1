/* GET over libcurl with the hub's manners: time-outs, redirects, ranges, retries with growing
   pauses, Retry-After, and errors that say what the user can do. */
#ifndef DK_HUB_HTTP_H
#define DK_HUB_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "hub/hub.h"

typedef struct dk_http dk_http;

/* options are borrowed for the life of the session; their endpoint, token and revision are
   checked here. */
DK_MUST_USE dk_status dk_http_create(dk_http **out, const dk_hub_options *options,
                                     dk_error *err);
void dk_http_destroy(dk_http **http);

/* What the hub's own reply said about the file, "" or UINT64_MAX where it said nothing. */
typedef struct dk_http_facts {
    char etag[128];  /* X-Linked-Etag, without quotes and W/ */
    char commit[64]; /* X-Repo-Commit */
    uint64_t size;   /* X-Linked-Size */
} dk_http_facts;

/* Where a body goes. `offset` bytes are held already and the rest is asked for; a server that
   sends everything again causes a restart. */
typedef struct dk_http_sink dk_http_sink;
struct dk_http_sink {
    uint64_t offset;   /* kept by dk_http_get */
    uint64_t expected; /* bytes of the whole; UINT64_MAX when unknown: then never resumed */
    /* Called before the first byte; a failure ends the transfer. May be NULL. */
    dk_status (*accept)(dk_http_sink *sink, const dk_http_facts *facts, dk_error *err);
    dk_status (*write)(dk_http_sink *sink, const void *bytes, size_t size, dk_error *err);
    dk_status (*restart)(dk_http_sink *sink, dk_error *err); /* forgets what it holds */
};

typedef struct dk_http_request {
    const char *url;
    const char *what;        /* names the thing in messages: "org/name: vae/config.json" */
    const char *model;       /* the page to accept a licence on: "org/name" */
    const char *absent_hint; /* appended to the message of a 404; may be NULL */
} dk_http_request;

/* Fetches the URL into the sink until it holds all of it. The token goes to the endpoint's
   host only. */
DK_MUST_USE dk_status dk_http_get(dk_http *http, const dk_http_request *request,
                                  dk_http_sink *sink, dk_error *err);

/* <endpoint>/<path>, owned; `path` is escaped by the caller. */
char *dk_http_url(const dk_http *http, const char *path);
/* text with everything but letters, digits and "-._~" as %XX, owned. '/' stays when asked. */
char *dk_http_escape(const char *text, bool keep_slashes);

#endif
