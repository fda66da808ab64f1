/* The life of an exchange on the mover's side: its line, its headers, its body, the hand-over
   to a handler, the reply, the end. */
#include "server/http/internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"

enum { FIRST_BODY_BYTES = 4096, DISCARD_LEAST_BYTES = 1024 * 1024, MAX_DIGITS = 19 };

void dk_http_exchange_unref(dk_http_exchange *e)
{
    if (atomic_fetch_sub(&e->references, 1) > 1) {
        return;
    }
    for (int i = 0; i < e->line_count; i++) {
        dk_free(e->lines[i].name);
        dk_free(e->lines[i].value);
    }
    dk_free(e->lines);
    dk_free(e->headers);
    dk_free(e->raw_target);
    dk_free(e->method);
    dk_free(e->content_type);
    dk_free(e->problem_text);
    dk_http_target_release(&e->target);
    pthread_mutex_destroy(&e->lock);
    dk_free(e);
}

void dk_http_release_body(dk_http_exchange *e)
{
    dk_http_form_release(&e->form);
    dk_free(e->body.data);
    e->body.data = NULL;
    if (e->body.counted > 0) {
        atomic_fetch_sub(&e->server->body_bytes, e->body.counted);
        e->body.counted = 0;
    }
}

void *dk_http_on_line(void *context, const char *uri, struct MHD_Connection *mhd)
{
    dk_http_server *server = context;
    dk_http_exchange *e = dk_alloc(sizeof *e);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    e->server = server;
    e->connection = info->socket_context;
    e->mhd = mhd;
    e->raw_target = dk_strdup(uri);
    e->started_ms = dk_now_ms();
    atomic_init(&e->references, 1);
    pthread_mutex_init(&e->lock, NULL);
    atomic_fetch_add(&server->exchanges, 1);
    dk_http_watch_begin(&server->watch, e->connection, e, server->options.request_timeout_s);
    return e;
}

/* Counts headers and the bytes that their copies need. */
typedef struct header_copy {
    dk_http_pair *pairs;
    char *text;
    int count;
    size_t bytes;
} header_copy;

static enum MHD_Result count_header(void *context, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    (void)kind;
    header_copy *copy = context;
    copy->count++;
    copy->bytes += strlen(name) + (value != NULL ? strlen(value) : 0) + 2;
    return MHD_YES;
}

static enum MHD_Result copy_header(void *context, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    (void)kind;
    header_copy *copy = context;
    size_t name_bytes = strlen(name) + 1, value_bytes = value != NULL ? strlen(value) + 1 : 1;
    copy->pairs[copy->count++] = (dk_http_pair){copy->text, copy->text + name_bytes};
    memcpy(copy->text, name, name_bytes);
    memcpy(copy->text + name_bytes, value != NULL ? value : "", value_bytes);
    copy->text += name_bytes + value_bytes;
    return MHD_YES;
}

/* The handler may run on another thread, so the headers leave libmicrohttpd's memory. */
static void copy_headers(dk_http_exchange *e)
{
    header_copy copy = {0};
    MHD_get_connection_values(e->mhd, MHD_HEADER_KIND, count_header, &copy);
    size_t pairs = (size_t)copy.count * sizeof *copy.pairs;
    copy.pairs = dk_alloc(pairs + copy.bytes + 1);
    copy.text = (char *)copy.pairs + pairs;
    copy.count = 0;
    MHD_get_connection_values(e->mhd, MHD_HEADER_KIND, copy_header, &copy);
    e->headers = copy.pairs;
    e->header_count = copy.count;
}

static int count_named(const dk_http_exchange *e, const char *name)
{
    int count = 0;
    for (int i = 0; i < e->header_count; i++) {
        count += strcasecmp(e->headers[i].name, name) == 0;
    }
    return count;
}

/* A refusal that needs no handler; the first one counts. */
static void refuse(dk_http_exchange *e, int http_status, const char *code, const char *text)
{
    if (e->problem_http == 0) {
        e->problem_http = http_status;
        e->problem_code = code;
        e->problem_text = dk_strdup(text);
    }
}

static void find_route(dk_http_exchange *e)
{
    const dk_http_routes *routes = &e->server->routes;
    e->route = dk_http_route_find(routes, e->method, &e->target, e->request.captures);
    if (e->route != NULL) {
        return;
    }
    dk_string methods = DK_STRING_EMPTY;
    if (!dk_http_route_methods(routes, &e->target, &methods)) {
        refuse(e, 404, NULL, "there is nothing at this path");
    } else if (strcmp(e->method, "OPTIONS") == 0 && e->server->cors_origin != NULL) {
        dk_http_add_header(e, "Access-Control-Allow-Methods", methods.data);
        refuse(e, 204, NULL, "");
    } else {
        dk_string_puts(&methods, e->server->cors_origin != NULL ? ", OPTIONS" : "");
        dk_http_add_header(e, "Allow", methods.data);
        refuse(e, 405, NULL,
               "this path does not take the method; the Allow header tells which");
    }
    dk_string_release(&methods);
}

static void check_key(dk_http_exchange *e)
{
    const char *given = dk_http_header(e, "Authorization");
    bool open = e->route == NULL || (e->route->flags & DK_HTTP_OPEN) != 0;
    if (!dk_http_auth_check(&e->server->auth, given, e->request.key) && !open) {
        dk_http_add_header(e, "WWW-Authenticate", "Bearer");
        refuse(e, 401, given != NULL ? "invalid_api_key" : "missing_api_key",
               given != NULL ? "the API key is not known here"
                             : "this server wants an API key: Authorization: Bearer KEY");
    }
}

/* The media type in lower case, without parameters. */
static void read_content_type(dk_http_exchange *e)
{
    const char *header = dk_http_header(e, "Content-Type");
    e->type_header = header != NULL ? header : "";
    size_t length = strcspn(e->type_header, "; \t,");
    e->content_type = dk_strndup(e->type_header, length);
    for (char *p = e->content_type; *p != '\0'; p++) {
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p | 0x20 : *p);
    }
    e->request.content_type = e->content_type;
}

/* Content-Length as a number; false when it is no number, UINT64_MAX when it is too large. */
static bool read_length(const char *text, uint64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits] != '\0') {
        return false;
    }
    *out = 0;
    for (size_t i = 0; i < digits; i++) {
        *out = digits > MAX_DIGITS ? UINT64_MAX : *out * 10 + (uint64_t)(text[i] - '0');
    }
    return true;
}

/* How the body comes, and whether it is one that this server takes. */
static void check_body(dk_http_exchange *e)
{
    const dk_http_options *options = &e->server->options;
    const char *length = dk_http_header(e, "Content-Length");
    const char *transfer = dk_http_header(e, "Transfer-Encoding");
    const char *encoding = dk_http_header(e, "Content-Encoding");
    e->body.expected = transfer != NULL;
    if ((length != NULL && transfer != NULL) || count_named(e, "Content-Length") > 1 ||
        count_named(e, "Transfer-Encoding") > 1) {
        e->body.expected = true;
        refuse(e, 400, NULL, "the request tells the length of its body twice");
    } else if (transfer != NULL && strcasecmp(transfer, "chunked") != 0) {
        refuse(e, 501, NULL, "the transfer encoding is not supported, accepted is chunked");
    } else if (length != NULL) {
        bool is_number = read_length(length, &e->body.announced);
        e->body.expected = e->body.announced > 0 || !is_number;
        if (!is_number) {
            refuse(e, 400, NULL, "the Content-Length is not a number");
        }
    }
    if (encoding != NULL && strcasecmp(encoding, "identity") != 0) {
        refuse(e, 415, NULL, "compressed request bodies are not supported");
    }
    if (e->body.announced > options->max_body_bytes) {
        char text[128];
        snprintf(text, sizeof text, "the request's body has %llu bytes, accepted are %zu",
                 (unsigned long long)e->body.announced, options->max_body_bytes);
        refuse(e, 413, NULL, text);
    } else if (e->body.announced > options->max_total_bytes ||
               atomic_load(&e->server->body_bytes) >
                   options->max_total_bytes - e->body.announced) {
        refuse(e, 503, "overloaded", "the server holds too many uploads, try again later");
    }
}

/* The headers are here: everything that can be refused without the body is looked at. */
static void begin(dk_http_exchange *e, const char *method)
{
    dk_error err;
    e->begun = true;
    e->method = dk_strdup(method);
    copy_headers(e);
    read_content_type(e);
    if (dk_http_target_parse(&e->target, e->raw_target, &err) != DK_OK) {
        refuse(e, 400, NULL, err.message);
    }
    e->request.method = e->method;
    e->request.path = e->target.path != NULL ? e->target.path : "";
    e->request.client = e->connection->client;
    if (e->problem_http == 0) {
        find_route(e);
        check_key(e);
    }
    check_body(e);
}

/* Makes room for `size` more bytes and a NUL; the memory follows what has arrived. */
static bool reserve(dk_http_exchange *e, size_t size)
{
    size_t need = e->body.size + size + 1;
    if (need <= e->body.capacity) {
        return true;
    }
    size_t capacity = e->body.capacity > 0 ? 2 * e->body.capacity : FIRST_BODY_BYTES;
    if (e->body.announced > 0 && capacity > e->body.announced + 1) {
        capacity = (size_t)e->body.announced + 1;
    }
    capacity = capacity > need ? capacity : need;
    size_t added = capacity - e->body.capacity;
    size_t before = atomic_fetch_add(&e->server->body_bytes, added);
    void *data;
    if (before + added > e->server->options.max_total_bytes ||
        dk_try_alloc(&data, capacity, "the body", NULL) != DK_OK) {
        atomic_fetch_sub(&e->server->body_bytes, added);
        return false;
    }
    if (e->body.size > 0) {
        memcpy(data, e->body.data, e->body.size);
    }
    dk_free(e->body.data);
    e->body.data = data;
    e->body.capacity = e->body.counted = capacity;
    return true;
}

/* Takes bytes of the body. False: the client goes on although its request is refused. */
static bool take_bytes(dk_http_exchange *e, const char *data, size_t size)
{
    const size_t most = e->server->options.max_body_bytes;
    e->body.arrived += size;
    if (e->problem_http == 0 && e->body.arrived > most) {
        char text[128];
        snprintf(text, sizeof text, "the request's body is larger than the %zu bytes accepted",
                 most);
        refuse(e, 413, NULL, text);
    } else if (e->problem_http == 0 && !reserve(e, size)) {
        refuse(e, 503, "overloaded", "the server holds too many uploads, try again later");
    }
    if (e->problem_http != 0) {
        /* libmicrohttpd cannot answer before the body's end. */
        dk_http_release_body(e);
        return e->body.arrived <= most + most + DISCARD_LEAST_BYTES;
    }
    memcpy(e->body.data + e->body.size, data, size);
    e->body.size += size;
    return true;
}

static void reply_refusal(dk_http_exchange *e)
{
    atomic_fetch_add(&e->references, 1); /* as a handler's */
    if (e->problem_http == 204) {
        dk_http_reply_empty(e, 204);
        return;
    }
    dk_http_reply_problem(e, e->problem_http, e->problem_text, NULL, e->problem_code);
}

/* Hands the reply to libmicrohttpd. */
static enum MHD_Result queue(dk_http_exchange *e)
{
    pthread_mutex_lock(&e->lock);
    struct MHD_Response *reply = e->reply;
    unsigned http_status = (unsigned)e->http_status;
    e->reply = NULL;
    e->phase = DK_HTTP_QUEUED;
    pthread_mutex_unlock(&e->lock);
    enum MHD_Result result = MHD_queue_response(e->mhd, http_status, reply);
    MHD_destroy_response(reply);
    return result;
}

void dk_http_exchange_run(dk_http_exchange *e)
{
    dk_error err;
    dk_http_request *request = &e->request;
    if (e->body.data != NULL) {
        e->body.data[e->body.size] = '\0';
    }
    if (e->body.size > 0 && dk_http_is_form(e->content_type)) {
        dk_status status = dk_http_form_parse(&e->form, e->type_header, e->body.data,
                                              e->body.size, e->server->options.max_parts, &err);
        if (status != DK_OK) {
            dk_http_reply_error(e, status, err.message, NULL, NULL);
            return;
        }
        request->parts = e->form.parts;
        request->part_count = e->form.count;
    } else if (!dk_http_is_form(e->content_type)) {
        request->body = e->body.data != NULL ? e->body.data : "";
        request->body_size = e->body.size;
    }
    e->route->handle(e->server->options.context, e, request);
}

/* The request is here whole: it is answered at once, or the connection sleeps until it is. */
static enum MHD_Result dispatch(dk_http_exchange *e)
{
    dk_http_watch_expect(&e->server->watch, e->connection, 0);
    e->phase = DK_HTTP_WAITING;
    if (e->problem_http != 0) {
        reply_refusal(e);
        return queue(e);
    }
    atomic_fetch_add(&e->references, 1); /* the handler's */
    bool is_inline = (e->route->flags & DK_HTTP_INLINE) != 0;
    if (is_inline) {
        dk_http_exchange_run(e);
    }
    pthread_mutex_lock(&e->lock);
    bool answered = e->http_status != 0;
    if (!answered) {
        /* Before the hand-over: the reply may come at any time after it. */
        MHD_suspend_connection(e->mhd);
        e->phase = DK_HTTP_SUSPENDED;
    }
    pthread_mutex_unlock(&e->lock);
    if (answered) {
        return queue(e);
    }
    if (!is_inline) {
        dk_http_team_push(&e->server->team, e);
    }
    return MHD_YES;
}

enum MHD_Result dk_http_on_access(void *context, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **slot)
{
    (void)context, (void)mhd, (void)url, (void)version;
    dk_http_exchange *e = *slot;
    if (!e->begun) {
        begin(e, method);
        if (e->problem_http != 0 && e->body.expected) {
            e->early = true;
            dk_http_watch_expect(&e->server->watch, e->connection, 0);
            reply_refusal(e);
            return queue(e);
        }
        return MHD_YES;
    }
    if (*size > 0) {
        bool goes_on = take_bytes(e, data, *size);
        *size = 0;
        return goes_on ? MHD_YES : MHD_NO;
    }
    pthread_mutex_lock(&e->lock);
    dk_http_phase phase = e->phase;
    bool answered = e->http_status != 0;
    pthread_mutex_unlock(&e->lock);
    if (phase == DK_HTTP_ARRIVING) {
        return dispatch(e);
    }
    return answered ? queue(e) : MHD_NO; /* not answered: the server stops */
}

void dk_http_exchange_abandon(dk_http_exchange *e)
{
    pthread_mutex_lock(&e->lock);
    if (e->phase == DK_HTTP_SUSPENDED) {
        dk_log_warn(e->server->options.log, "http: %s %s was not answered before the stop",
                    e->request.method, e->request.path);
        e->phase = DK_HTTP_WAITING;
        dk_http_mover_resume(&e->server->mover, e->mhd);
    }
    pthread_mutex_unlock(&e->lock);
}

static void report(const dk_http_exchange *e)
{
    const dk_http_options *options = &e->server->options;
    if (options->report == NULL || !e->begun) {
        return;
    }
    const dk_http_report facts = {
        .method = e->method,
        .route = e->route != NULL ? e->route->pattern : "",
        .path = e->request.path,
        .client = e->request.client,
        .http_status = e->http_status,
        .seconds = (dk_now_ms() - e->started_ms) / 1e3,
        .bytes_in = e->body.arrived,
        .bytes_out = e->bytes_out,
    };
    options->report(options->context, &facts);
}

void dk_http_on_completed(void *context, struct MHD_Connection *mhd, void **slot,
                          enum MHD_RequestTerminationCode code)
{
    (void)mhd;
    dk_http_server *server = context;
    dk_http_exchange *e = *slot;
    if (e == NULL) {
        return;
    }
    *slot = NULL;
    if (e->early && code == MHD_REQUEST_TERMINATED_COMPLETED_OK) {
        dk_http_watch_linger(&server->watch, e->connection->fd);
    }
    /* The next request may begin when it likes, but then has no more time than others. */
    dk_http_watch_end(&server->watch, e->connection,
                      server->options.idle_timeout_s + server->options.request_timeout_s);
    pthread_mutex_lock(&e->lock);
    bool unanswered = e->http_status == 0;
    struct MHD_Response *reply = e->reply;
    e->reply = NULL;
    e->mhd = NULL;
    atomic_fetch_sub(&server->body_bytes, e->body.counted);
    e->body.counted = 0;
    pthread_mutex_unlock(&e->lock);
    if (reply != NULL) {
        MHD_destroy_response(reply);
    }
    if (unanswered && e->phase == DK_HTTP_ARRIVING) {
        dk_http_form_release(&e->form);
        dk_free(e->body.data);
        e->body.data = NULL;
    }
    report(e);
    dk_http_exchange_unref(e);
    atomic_fetch_sub(&server->exchanges, 1);
}
