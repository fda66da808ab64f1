/* Replies from memory, and the way that all replies take. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/sha256.h"
#include "base/string.h"
#include "server/http/internal.h"

enum { TAG_BYTES = 40, PREFLIGHT_SECONDS = 600 };

struct dk_http_tag {
    dk_http_tag *next;
    const void *bytes;
    size_t size;
    char etag[TAG_BYTES];
};

const dk_http_request *dk_http_request_of(const dk_http_exchange *exchange)
{
    return &exchange->request;
}

const char *dk_http_header(const dk_http_exchange *exchange, const char *name)
{
    for (int i = 0; i < exchange->header_count; i++) {
        if (strcasecmp(exchange->headers[i].name, name) == 0) {
            return exchange->headers[i].value;
        }
    }
    return NULL;
}

const char *dk_http_query(const dk_http_exchange *exchange, const char *name)
{
    for (int i = 0; i < exchange->target.pair_count; i++) {
        if (strcmp(exchange->target.pairs[i].name, name) == 0) {
            return exchange->target.pairs[i].value;
        }
    }
    return NULL;
}

const dk_http_part *dk_http_part_find(const dk_http_request *request, const char *name)
{
    for (int i = 0; i < request->part_count; i++) {
        if (strcmp(request->parts[i].name, name) == 0) {
            return &request->parts[i];
        }
    }
    return NULL;
}

void dk_http_add_header(dk_http_exchange *exchange, const char *name, const char *value)
{
    size_t count = (size_t)exchange->line_count + 1;
    exchange->lines = dk_realloc(exchange->lines, count * sizeof *exchange->lines);
    exchange->lines[exchange->line_count++] =
        (dk_http_line){.name = dk_strdup(name), .value = dk_strdup(value)};
}

void dk_http_add_default(dk_http_exchange *exchange, const char *name, const char *value)
{
    for (int i = 0; i < exchange->line_count; i++) {
        if (strcasecmp(exchange->lines[i].name, name) == 0) {
            return;
        }
    }
    dk_http_add_header(exchange, name, value);
}

/* Names of headers, as Access-Control-Request-Headers lists them. */
static bool is_name_list(const char *text)
{
    static const char accepted[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   "0123456789-_, ";
    return text != NULL && text[strspn(text, accepted)] == '\0';
}

static void add_cors(dk_http_exchange *exchange)
{
    const char *origin = exchange->server->cors_origin;
    if (origin == NULL) {
        return;
    }
    dk_http_add_header(exchange, "Access-Control-Allow-Origin", origin);
    dk_http_add_header(exchange, "Access-Control-Expose-Headers",
                       "Content-Disposition, Content-Range, ETag, Location, Retry-After");
    if (strcmp(origin, "*") != 0) {
        dk_http_add_header(exchange, "Vary", "Origin");
    }
    if (exchange->method != NULL && strcmp(exchange->method, "OPTIONS") == 0) {
        const char *wanted = dk_http_header(exchange, "Access-Control-Request-Headers");
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", PREFLIGHT_SECONDS);
        dk_http_add_header(exchange, "Access-Control-Allow-Headers",
                           is_name_list(wanted) ? wanted : "Authorization, Content-Type");
        dk_http_add_header(exchange, "Access-Control-Max-Age", seconds);
    }
}

static void add_lines(dk_http_exchange *exchange, struct MHD_Response *response)
{
    add_cors(exchange);
    dk_http_add_header(exchange, "X-Content-Type-Options", "nosniff");
    dk_http_add_default(exchange, "Cache-Control", "no-store");
    for (int i = 0; i < exchange->line_count; i++) {
        const dk_http_line *line = &exchange->lines[i];
        if (MHD_add_response_header(response, line->name, line->value) != MHD_YES) {
            dk_log_warn(exchange->server->options.log, "http: header '%s' cannot be sent",
                        line->name);
        }
    }
}

bool dk_http_is_forgotten(dk_http_exchange *exchange)
{
    pthread_mutex_lock(&exchange->lock);
    bool forgotten = exchange->mhd == NULL;
    pthread_mutex_unlock(&exchange->lock);
    return forgotten;
}

void dk_http_finish(dk_http_exchange *exchange, int http_status, struct MHD_Response *response)
{
    if (dk_http_is_forgotten(exchange)) { /* the server has stopped and may be no more */
        MHD_destroy_response(response);
        response = NULL;
    } else {
        add_lines(exchange, response);
    }
    dk_http_release_body(exchange);
    pthread_mutex_lock(&exchange->lock);
    bool forgotten = exchange->mhd == NULL;
    exchange->http_status = http_status;
    if (!forgotten) {
        exchange->reply = response;
    }
    if (!forgotten && exchange->phase == DK_HTTP_SUSPENDED) {
        exchange->phase = DK_HTTP_WAITING;
        dk_http_mover_resume(&exchange->server->mover, exchange->mhd);
    }
    pthread_mutex_unlock(&exchange->lock);
    if (forgotten && response != NULL) {
        MHD_destroy_response(response);
    }
    dk_http_exchange_unref(exchange);
}

static bool is_head(const dk_http_exchange *exchange)
{
    return exchange->method != NULL && strcmp(exchange->method, "HEAD") == 0;
}

void dk_http_reply_bytes(dk_http_exchange *exchange, int http_status, const char *type,
                         void *bytes, size_t size)
{
    struct MHD_Response *response;
    if (size > 0) {
        response = MHD_create_response_from_buffer_with_free_callback(size, bytes, dk_free);
    } else {
        dk_free(bytes);
        response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    }
    dk_http_add_header(exchange, "Content-Type", type);
    exchange->bytes_out = is_head(exchange) ? 0 : size;
    dk_http_finish(exchange, http_status, response);
}

void dk_http_reply_empty(dk_http_exchange *exchange, int http_status)
{
    dk_http_finish(exchange, http_status,
                   MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT));
}

/* The ETag of static bytes. They never change, so it is computed once. */
static const char *find_tag(dk_http_server *server, const void *bytes, size_t size)
{
    pthread_mutex_lock(&server->tags_lock);
    dk_http_tag *tag = server->tags;
    while (tag != NULL && (tag->bytes != bytes || tag->size != size)) {
        tag = tag->next;
    }
    if (tag == NULL) {
        char hex[DK_SHA256_HEX_BYTES] = "";
        dk_digest digest;
        tag = dk_alloc(sizeof *tag);
        if (dk_sha256_init(&digest, NULL) == DK_OK) {
            dk_digest_update(&digest, bytes, size);
            dk_digest_final(&digest, hex);
        }
        snprintf(tag->etag, sizeof tag->etag, "\"%.32s\"", hex);
        tag->bytes = bytes;
        tag->size = size;
        tag->next = server->tags;
        server->tags = tag;
    }
    pthread_mutex_unlock(&server->tags_lock);
    return tag->etag;
}

void dk_http_tags_release(dk_http_server *server)
{
    while (server->tags != NULL) {
        dk_http_tag *next = server->tags->next;
        dk_free(server->tags);
        server->tags = next;
    }
}

void dk_http_reply_static(dk_http_exchange *exchange, const char *type, const void *bytes,
                          size_t size)
{
    const char *etag = find_tag(exchange->server, bytes, size);
    dk_http_add_header(exchange, "ETag", etag);
    dk_http_add_default(exchange, "Cache-Control", "no-cache"); /* kept, but asked about */
    if (dk_http_is_known(exchange, etag)) {
        dk_http_reply_empty(exchange, 304);
        return;
    }
    dk_http_add_header(exchange, "Content-Type", type);
    exchange->bytes_out = is_head(exchange) ? 0 : size;
    /* libmicrohttpd only reads it: the cast is its interface's. */
    dk_http_finish(exchange, 200,
                   MHD_create_response_from_buffer(size, (void *)(uintptr_t)bytes,
                                                   MHD_RESPMEM_PERSISTENT));
}

static int append_json(const char *bytes, size_t size, void *context)
{
    dk_string_append(context, bytes, size);
    return 0;
}

void dk_http_reply_json(dk_http_exchange *exchange, int http_status, json_t *value)
{
    dk_string text = DK_STRING_EMPTY;
    int failed = json_dump_callback(value, append_json, &text, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(value);
    if (failed != 0) { /* NULL: text that was not UTF-8 */
        dk_string_release(&text);
        dk_http_reply_problem(exchange, 500, "the reply cannot be written as JSON", NULL, NULL);
        return;
    }
    size_t size = text.length;
    dk_http_reply_bytes(exchange, http_status, "application/json", dk_string_take(&text), size);
}

/* OpenAI's names for kinds of errors. */
static const char *error_type(int http_status)
{
    return http_status >= 500   ? "server_error"
           : http_status == 429 ? "rate_limit_error"
                                : "invalid_request_error";
}

void dk_http_reply_problem(dk_http_exchange *exchange, int http_status, const char *message,
                           const char *param, const char *code)
{
    char text[DK_ERROR_MESSAGE_BYTES];
    snprintf(text, sizeof text, "%s", message);
    dk_make_printable(text);
    json_t *error = json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", text, "type",
                              error_type(http_status), "param", param, "code", code);
    if (http_status == 503) {
        dk_http_add_default(exchange, "Retry-After", "1");
    }
    if (error == NULL) { /* param or code is not UTF-8 */
        error = json_pack("{s:{s:s, s:s, s:n, s:n}}", "error", "message", text, "type",
                          error_type(http_status), "param", "code");
    }
    dk_http_reply_json(exchange, http_status, error);
}

void dk_http_reply_error(dk_http_exchange *exchange, dk_status status, const char *message,
                         const char *param, const char *code)
{
    dk_http_reply_problem(exchange, dk_status_http(status), message, param, code);
}
