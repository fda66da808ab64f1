/* The server under test and its clients. */
#include "http_fixture.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "scratch.h"

enum { WAIT_MS = 10000 };

static const char static_text[] = "<!doctype html><title>page</title>";

static void on_hello(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context, (void)request;
    dk_http_reply_json(e, 200, json_pack("{s:s}", "say", "hello"));
}

static void on_echo(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context;
    dk_http_reply_json(e, 200,
                       json_pack("{s:s, s:s?, s:s, s:s?, s:s?, s:s, s:s}", "first",
                                 request->captures[0], "second", request->captures[1], "path",
                                 request->path, "x", dk_http_query(e, "x"), "header",
                                 dk_http_header(e, "x-test"), "client", request->client, "key",
                                 request->key));
}

static void on_body(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context;
    char *copy = dk_alloc(request->body_size + 1);
    memcpy(copy, request->body, request->body_size);
    assert_int_equal(request->body[request->body_size], '\0');
    dk_http_add_header(e, "X-Type", request->content_type);
    dk_http_reply_bytes(e, 201, "application/octet-stream", copy, request->body_size);
}

static void on_form(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context;
    json_t *parts = json_array();
    for (int i = 0; i < request->part_count; i++) {
        const dk_http_part *part = &request->parts[i];
        json_array_append_new(parts, json_pack("{s:s, s:s?, s:s?, s:i, s:i}", "name",
                                               part->name, "file", part->file_name, "type",
                                               part->content_type, "size", (int)part->size,
                                               "end", part->data[part->size]));
    }
    json_t *reply = json_pack("{s:o, s:b}", "parts", parts, "body", request->body != NULL);
    const dk_http_part *prompt = dk_http_part_find(request, "prompt");
    if (prompt != NULL) {
        json_object_set_new(reply, "prompt", json_stringn(prompt->data, prompt->size));
    }
    dk_http_reply_json(e, 200, reply);
}

static void on_file(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    http_fixture *fixture = context;
    char *path = scratch_path(fixture->folder, request->captures[0]);
    dk_http_reply_file(e, path, "video/mp4", dk_http_query(e, "download"));
    dk_free(path);
}

static void on_static(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context, (void)request;
    dk_http_reply_static(e, "text/html", static_text, sizeof static_text - 1);
}

static void on_error(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context, (void)request;
    dk_http_reply_error(e, DK_BUSY, "the queue is \xff full\n", "prompt", "queue_full");
}

static void on_keep(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)request;
    http_fixture *fixture = context;
    pthread_mutex_lock(&fixture->lock);
    fixture->kept = e;
    pthread_cond_broadcast(&fixture->changed);
    pthread_mutex_unlock(&fixture->lock);
}

static void on_events(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)request;
    http_fixture *fixture = context;
    dk_http_stream *stream = dk_http_reply_events(e);
    pthread_mutex_lock(&fixture->lock);
    fixture->stream = stream;
    pthread_cond_broadcast(&fixture->changed);
    pthread_mutex_unlock(&fixture->lock);
}

static void on_slow(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)request;
    http_fixture *fixture = context;
    pthread_mutex_lock(&fixture->lock);
    fixture->slow_started++;
    pthread_cond_broadcast(&fixture->changed);
    pthread_mutex_unlock(&fixture->lock);
    http_sleep_ms(300);
    dk_http_reply_json(e, 200, json_object());
}

static const dk_http_route routes[] = {
    {"GET", "/hello", DK_HTTP_INLINE, on_hello},
    {"GET", "/open", DK_HTTP_INLINE | DK_HTTP_OPEN, on_hello},
    {"GET", "/echo/{first}", 0, on_echo},
    {"GET", "/echo/{first}/x/{second}", 0, on_echo},
    {"DELETE", "/echo/{first}", 0, on_echo},
    {"POST", "/body", 0, on_body},
    {"POST", "/form", 0, on_form},
    {"GET", "/file/{name}", 0, on_file},
    {"GET", "/", 0, on_static},
    {"GET", "/error", 0, on_error},
    {"GET", "/keep", 0, on_keep},
    {"GET", "/keep-inline", DK_HTTP_INLINE, on_keep},
    {"GET", "/events", 0, on_events},
    {"GET", "/slow", 0, on_slow},
};

static void on_report(void *context, const dk_http_report *report)
{
    http_fixture *fixture = context;
    pthread_mutex_lock(&fixture->lock);
    fixture->reports++;
    fixture->last = *report;
    snprintf(fixture->last_route, sizeof fixture->last_route, "%s", report->route);
    snprintf(fixture->last_path, sizeof fixture->last_path, "%s", report->path);
    pthread_cond_broadcast(&fixture->changed);
    pthread_mutex_unlock(&fixture->lock);
}

void http_start(http_fixture *fixture)
{
    dk_error err;
    assert_ok(dk_http_server_start(&fixture->server, &fixture->options, &err), err);
    assert_true(dk_http_server_port(fixture->server) > 0);
}

void http_restart(http_fixture *fixture)
{
    dk_http_server_stop(&fixture->server);
    fixture->reports = 0;
    http_start(fixture);
}

int http_setup(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    http_fixture *fixture = dk_alloc(sizeof *fixture);
    pthread_mutex_init(&fixture->lock, NULL);
    pthread_cond_init(&fixture->changed, NULL);
    fixture->folder = scratch_create();
    dk_http_options_init(&fixture->options);
    fixture->options.port = 0;
    fixture->options.routes = routes;
    fixture->options.route_count = (int)(sizeof routes / sizeof *routes);
    fixture->options.context = fixture;
    fixture->options.report = on_report;
    http_start(fixture);
    *state = fixture;
    return 0;
}

int http_teardown(void **state)
{
    http_fixture *fixture = *state;
    dk_http_server_stop(&fixture->server);
    scratch_remove(fixture->folder);
    pthread_cond_destroy(&fixture->changed);
    pthread_mutex_destroy(&fixture->lock);
    dk_string_release(&fixture->log);
    dk_free(fixture);
    curl_global_cleanup();
    return 0;
}

static size_t collect(char *bytes, size_t size, size_t count, void *context)
{
    dk_string_append(context, bytes, size * count);
    return size * count;
}

static struct curl_slist *header_list(const char *headers)
{
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    if (headers == NULL || strstr(headers, "Content-Type:") == NULL) {
        list = curl_slist_append(list, "Content-Type: application/octet-stream");
    }
    while (headers != NULL && *headers != '\0') {
        size_t length = strcspn(headers, "\n");
        char *line = dk_strndup(headers, length);
        list = curl_slist_append(list, line);
        dk_free(line);
        headers += length + (headers[length] == '\n' ? 1 : 0);
    }
    return list;
}

http_answer http_ask(http_fixture *fixture, const char *method, const char *path,
                     const char *headers, const char *body, size_t body_size)
{
    http_answer answer = {0};
    CURL *curl = curl_easy_init();
    struct curl_slist *list = header_list(headers);
    dk_string url = DK_STRING_EMPTY;
    bool tls = fixture->options.ssl_certfile != NULL;
    dk_string_printf(&url, "%s://127.0.0.1:%d%s", tls ? "https" : "http",
                     dk_http_server_port(fixture->server), path);
    curl_easy_setopt(curl, CURLOPT_URL, url.data);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 30L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer.body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &answer.headers);
    curl_easy_setopt(curl, CURLOPT_CAINFO, fixture->options.ssl_certfile);
    if (body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_size);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_NOBODY, strcmp(method, "HEAD") == 0 ? 1L : 0L);
    CURLcode code = curl_easy_perform(curl);
    long http_status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &http_status);
    answer.http_status = code == CURLE_OK || http_status >= 400 ? (int)http_status : 0;
    if (code != CURLE_OK) {
        print_message("%s %s: %s\n", method, path, curl_easy_strerror(code));
    }
    dk_string_release(&url);
    curl_slist_free_all(list);
    curl_easy_cleanup(curl);
    return answer;
}

http_answer http_get(http_fixture *fixture, const char *path)
{
    return http_ask(fixture, "GET", path, NULL, NULL, 0);
}

void http_answer_release(http_answer *answer)
{
    dk_string_release(&answer->headers);
    dk_string_release(&answer->body);
}

const char *http_answer_header(const http_answer *answer, const char *name)
{
    static char value[512];
    size_t length = strlen(name);
    value[0] = '\0';
    for (const char *line = dk_string_text(&answer->headers); *line != '\0';) {
        size_t bytes = strcspn(line, "\r\n");
        if (bytes > length && strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const char *from = line + length + 1 + strspn(line + length + 1, " ");
            snprintf(value, sizeof value, "%.*s", (int)(line + bytes - from), from);
        }
        line += bytes + strspn(line + bytes, "\r\n");
    }
    return value;
}

void http_expect_error(http_answer *answer, int http_status, const char *text)
{
    json_error_t problem;
    json_t *object = json_loads(dk_string_text(&answer->body), 0, &problem);
    json_t *error = json_object_get(object, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    if (answer->http_status != http_status || message == NULL ||
        strstr(message, text) == NULL || json_object_get(error, "type") == NULL ||
        json_object_get(error, "param") == NULL || json_object_get(error, "code") == NULL) {
        fail_msg("expected %d with '%s', got %d: %s", http_status, text, answer->http_status,
                 dk_string_text(&answer->body));
    }
    assert_string_equal(http_answer_header(answer, "Content-Type"), "application/json");
    json_decref(object);
    http_answer_release(answer);
}

int http_dial(const http_fixture *fixture)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port =
                                      htons((uint16_t)dk_http_server_port(fixture->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void http_send(int fd, const char *text)
{
    size_t length = strlen(text);
    assert_int_equal(send(fd, text, length, MSG_NOSIGNAL), length);
}

dk_string http_receive(int fd, const char *until, double seconds)
{
    dk_string text = DK_STRING_EMPTY;
    double deadline = dk_now_ms() + seconds * 1e3;
    while (until == NULL || strstr(dk_string_text(&text), until) == NULL) {
        char bytes[4096];
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        int left = (int)(deadline - dk_now_ms());
        if (left <= 0 || poll(&polled, 1, left) != 1) {
            break;
        }
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got <= 0) {
            break;
        }
        dk_string_append(&text, bytes, (size_t)got);
    }
    return text;
}

bool http_is_closed(int fd, double seconds)
{
    double deadline = dk_now_ms() + seconds * 1e3;
    for (;;) {
        char bytes[4096];
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        int left = (int)(deadline - dk_now_ms());
        if (left <= 0 || poll(&polled, 1, left) != 1) {
            return false;
        }
        if (recv(fd, bytes, sizeof bytes, 0) <= 0) {
            return true;
        }
    }
}

/* Waits for the fixture to change; fails after WAIT_MS. The lock is held. */
static void wait_change(http_fixture *fixture, const char *what)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    if (pthread_cond_timedwait(&fixture->changed, &fixture->lock, &until) == ETIMEDOUT) {
        pthread_mutex_unlock(&fixture->lock);
        fail_msg("waited in vain for %s", what);
    }
}

dk_http_exchange *http_wait_kept(http_fixture *fixture)
{
    pthread_mutex_lock(&fixture->lock);
    while (fixture->kept == NULL) {
        wait_change(fixture, "a kept exchange");
    }
    dk_http_exchange *kept = fixture->kept;
    fixture->kept = NULL;
    pthread_mutex_unlock(&fixture->lock);
    return kept;
}

dk_http_stream *http_wait_stream(http_fixture *fixture)
{
    pthread_mutex_lock(&fixture->lock);
    while (fixture->stream == NULL) {
        wait_change(fixture, "a stream");
    }
    dk_http_stream *stream = fixture->stream;
    fixture->stream = NULL;
    pthread_mutex_unlock(&fixture->lock);
    return stream;
}

void http_wait_slow(http_fixture *fixture, int count)
{
    pthread_mutex_lock(&fixture->lock);
    while (fixture->slow_started < count) {
        wait_change(fixture, "a slow handler");
    }
    pthread_mutex_unlock(&fixture->lock);
}

void http_wait_reports(http_fixture *fixture, int count)
{
    pthread_mutex_lock(&fixture->lock);
    while (fixture->reports < count) {
        wait_change(fixture, "reports");
    }
    pthread_mutex_unlock(&fixture->lock);
}

void http_wait_connections(http_fixture *fixture, int count)
{
    for (int waited = 0; dk_http_server_connections(fixture->server) != count; waited += 5) {
        if (waited > WAIT_MS) {
            fail_msg("%d connections, expected %d", dk_http_server_connections(fixture->server),
                     count);
        }
        http_sleep_ms(5);
    }
}

void http_sleep_ms(int ms)
{
    const struct timespec time = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&time, NULL);
}
