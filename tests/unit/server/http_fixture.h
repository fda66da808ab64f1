/* A real server with routes of its own, and two clients: libcurl, and a bare socket for what
   libcurl would not send. */
#ifndef DK_TESTS_HTTP_FIXTURE_H
#define DK_TESTS_HTTP_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/string.h"
#include "server/http/http.h"
#include "test.h"

typedef struct http_fixture {
    dk_http_options options; /* as the server was started, but for what a test changes */
    dk_http_server *server;
    char *folder; /* for files */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    dk_http_exchange *kept; /* by GET /keep */
    dk_http_stream *stream; /* by GET /events */
    int slow_started;       /* handlers of GET /slow */
    int reports;
    dk_http_report last; /* its texts are not kept */
    char last_route[64], last_path[128];
    dk_string log;
} http_fixture;

/* What a client got. */
typedef struct http_answer {
    int http_status; /* 0: none came */
    dk_string headers, body;
} http_answer;

int http_setup(void **state);
int http_teardown(void **state);
void http_start(http_fixture *fixture);
void http_restart(http_fixture *fixture); /* with changed options */

/* One request by libcurl. headers: lines separated by '\n', or NULL; body NULL: none. */
http_answer http_ask(http_fixture *fixture, const char *method, const char *path,
                     const char *headers, const char *body, size_t body_size);
http_answer http_get(http_fixture *fixture, const char *path);
void http_answer_release(http_answer *answer);
/* The value of a header; "" when absent. Borrowed until the next call. */
const char *http_answer_header(const http_answer *answer, const char *name);
/* Fails unless the answer is OpenAI's error object with this status and text in it. */
void http_expect_error(http_answer *answer, int http_status, const char *text);

/* The bare socket. */
int http_dial(const http_fixture *fixture);
void http_send(int fd, const char *text);
/* Reads until `until` has come, the peer closes or seconds have passed. */
dk_string http_receive(int fd, const char *until, double seconds);
/* True when the peer closed within seconds. */
bool http_is_closed(int fd, double seconds);

dk_http_exchange *http_wait_kept(http_fixture *fixture); /* taken from the fixture */
dk_http_stream *http_wait_stream(http_fixture *fixture);
void http_wait_slow(http_fixture *fixture, int count);
void http_wait_reports(http_fixture *fixture, int count);
void http_wait_connections(http_fixture *fixture, int count);
void http_sleep_ms(int ms);

#endif
