/* The routes: what HTTP asks becomes jobs, what jobs give becomes replies. */
#ifndef DK_SERVER_API_API_H
#define DK_SERVER_API_API_H

#include "comm/groups.h"
#include "server/http/http.h"
#include "server/service/service.h"

typedef struct dk_api_options {
    dk_service *service;           /* borrowed */
    const char *served_model_name; /* NULL: as the worker calls it */
    const char *program;           /* this program, for children that decode pictures */
    const char *run_folder;        /* for files that live for a moment */
    double max_pixels;             /* of one output: width x height x frames */
    const char *allowed_url_hosts; /* by commas; NULL: no pictures by URL */
    dk_layout layout;              /* of the workers */
    int port;                      /* filled in when it is known */
    bool with_tls, with_keys;
    dk_http_server *const *http; /* for the number of connections; *http NULL: not yet */
    const dk_log *access_log;    /* a line per request; NULL: none */
} dk_api_options;

typedef struct dk_api dk_api;

/* Owned; lives longer than the HTTP server. options are borrowed. */
dk_api *dk_api_create(const dk_api_options *options);
void dk_api_destroy(dk_api **api);

/* For dk_http_options: the routes, and the report that feeds the metrics. Borrowed. */
const dk_http_route *dk_api_http_routes(const dk_api *api, int *count);
void dk_api_report(void *api, const dk_http_report *report);

#endif
