/* Inside of `darkroom bench serve`: sends requests to a server and notes what became of each.
 */
#ifndef DK_CLI_BENCH_LOAD_H
#define DK_CLI_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { DK_LOAD_MAX_SIZES = 32 };

typedef struct dk_load_size {
    int width, height, frames; /* frames 1: a picture, else a video */
    double weight;             /* > 0: its share of the requests, relative to the others' */
} dk_load_size;

typedef struct dk_load_options {
    const char *base_url; /* with or without "/" or "/v1" at its end */
    const char *api_key;  /* NULL: none is sent */
    const char *prompt;   /* NULL: every request has another */
    const dk_load_size *sizes;
    int size_count;
    double rate;       /* Poisson arrivals per second; 0: a request follows a reply */
    int concurrency;   /* requests in flight at most; 0: no limit, only where rate is set */
    int requests;      /* 0: no limit */
    double duration_s; /* nothing arrives later than this; 0: no limit */
    int steps;         /* 0: the server's default */
    int outputs;       /* per request */
    uint64_t seed;     /* of arrivals, sizes and pictures; the low 32 bits count */
    double timeout_s;  /* of one request */
} dk_load_options;

/* Times in ms since the start of the load. */
typedef struct dk_load_result {
    int size;            /* index */
    int http_status;     /* 0: no reply */
    const char *problem; /* static; NULL: the reply was as wanted */
    double arrival_ms;   /* when it was due */
    double sent_ms, ended_ms;
    double queue_ms, engine_ms; /* as the server tells; NAN where it does not */
} dk_load_result;

typedef struct dk_load {
    dk_load_result *results; /* [count], owned, in the order of arrival */
    int count;
    double seconds;          /* from the start to the last reply */
    char first_failure[256]; /* what the server, or libcurl, said; "" */
    bool interrupted;
} dk_load;

/* Sends the load and waits for every reply; a signal ends it early. Failed requests are
   results, not failures of the call. */
DK_MUST_USE dk_status dk_load_run(dk_load *out, const dk_load_options *options, dk_error *err);
void dk_load_release(dk_load *load);

#endif
