/* One GET with its retries, over libcurl. */
#include "hub/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/alloc.h"
#include "base/string.h"

enum {
    CONNECT_TIMEOUT_S = 10,
    STALL_TIMEOUT_S = 30,
    RETRY_BASE_MS = 1000,
    RETRIES_MAX = 4,            /* in a row without PROGRESS_BYTES between them */
    PROGRESS_BYTES = 1 << 20,   /* an attempt that brought this much starts the count anew */
    PAUSE_MAX_MS = 30 * 1000,   /* of our own pauses */
    RETRY_AFTER_MAX_S = 5 * 60, /* a server that asks for more is given up */
    REDIRECTS_MAX = 8,
    PAUSE_STEP_MS = 20
};

static const char default_endpoint[] = "https://huggingface.co";

struct dk_http {
    CURL *curl;
    const dk_hub_options *options; /* borrowed */
    char *endpoint;                /* owned, without a final '/' */
};

/* One attempt: what the callbacks learn. */
typedef struct exchange {
    dk_http *http;
    dk_http_sink *sink;
    dk_http_facts facts;
    bool first_reply_seen; /* facts come from the hub's own reply, not from where it points */
    long code;             /* status of the latest reply */
    bool body_started;
    uint64_t range_start; /* of Content-Range; UINT64_MAX when absent */
    char reason[64];      /* X-Error-Code of the hub: GatedRepo, RepoNotFound, … */
    dk_status sink_status;
    dk_error sink_error;
} exchange;

static bool is_cancelled(const dk_http *http)
{
    return http->options->cancel != NULL && atomic_load(http->options->cancel);
}

static dk_status check_token(const char *token, dk_error *err)
{
    for (const char *p = token; p != NULL && *p != '\0'; p++) {
        if (*p <= ' ' || *p > '~') {
            return dk_fail(err, DK_INVALID,
                           "the hub token (HF_TOKEN) holds a space, a line end or another "
                           "character that no token has");
        }
    }
    return DK_OK;
}

dk_status dk_http_create(dk_http **out, const dk_hub_options *options, dk_error *err)
{
    const char *endpoint = options->endpoint != NULL ? options->endpoint : default_endpoint;
    bool secure = dk_starts_with(endpoint, "https://");
    if ((!secure && !dk_starts_with(endpoint, "http://")) ||
        strpbrk(endpoint, " \r\n\t?#") != NULL) {
        return dk_fail(err, DK_INVALID,
                       "the hub endpoint '%s' is not accepted, expected http(s)://host[:port]",
                       endpoint);
    }
    DK_TRY(check_token(options->token, err));
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return dk_fail(err, DK_INTERNAL, "libcurl cannot be started");
    }
    CURL *curl = curl_easy_init();
    if (curl == NULL) {
        curl_global_cleanup();
        return dk_fail(err, DK_INTERNAL, "libcurl cannot be started");
    }
    dk_http *http = dk_alloc(sizeof *http);
    size_t length = strlen(endpoint);
    while (endpoint[length - 1] == '/') {
        length--;
    }
    *http =
        (dk_http){.curl = curl, .options = options, .endpoint = dk_strndup(endpoint, length)};
    *out = http;
    return DK_OK;
}

void dk_http_destroy(dk_http **http)
{
    if (*http == NULL) {
        return;
    }
    curl_easy_cleanup((*http)->curl);
    curl_global_cleanup();
    dk_free((*http)->endpoint);
    dk_free(*http);
    *http = NULL;
}

char *dk_http_url(const dk_http *http, const char *path)
{
    dk_string url = DK_STRING_EMPTY;
    dk_string_printf(&url, "%s/%s", http->endpoint, path);
    return dk_string_take(&url);
}

char *dk_http_escape(const char *text, bool keep_slashes)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "-._~";
    dk_string escaped = DK_STRING_EMPTY;
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr(plain, *p) != NULL || (*p == '/' && keep_slashes)) {
            dk_string_putc(&escaped, *p);
        } else {
            dk_string_printf(&escaped, "%%%02X", (unsigned)(unsigned char)*p);
        }
    }
    return dk_string_take(&escaped);
}

/* Copies a header's value, cut to what fits, without W/ and quotes. */
static void copy_value(char *out, size_t capacity, const char *value, size_t length)
{
    if (length >= 2 && memcmp(value, "W/", 2) == 0) {
        value += 2;
        length -= 2;
    }
    if (length >= 2 && value[0] == '"' && value[length - 1] == '"') {
        value++;
        length -= 2;
    }
    length = length < capacity ? length : capacity - 1;
    memcpy(out, value, length);
    out[length] = '\0';
}

/* A decimal number at the start of text; UINT64_MAX when there is none. */
static uint64_t leading_number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    bool digits = text[0] >= '0' && text[0] <= '9';
    return digits && errno == 0 ? number : UINT64_MAX;
}

static void note_header(exchange *e, const char *name, size_t name_length, const char *value,
                        size_t length)
{
    char text[sizeof e->facts.etag];
    copy_value(text, sizeof text, value, length);
    if (name_length == 12 && strncasecmp(name, "x-error-code", 12) == 0) {
        copy_value(e->reason, sizeof e->reason, value, length);
    } else if (name_length == 13 && strncasecmp(name, "content-range", 13) == 0) {
        e->range_start =
            strncasecmp(text, "bytes ", 6) == 0 ? leading_number(text + 6) : UINT64_MAX;
    } else if (e->first_reply_seen) {
        return;
    } else if (name_length == 13 && strncasecmp(name, "x-linked-etag", 13) == 0) {
        copy_value(e->facts.etag, sizeof e->facts.etag, value, length);
    } else if (name_length == 13 && strncasecmp(name, "x-repo-commit", 13) == 0) {
        copy_value(e->facts.commit, sizeof e->facts.commit, value, length);
    } else if (name_length == 13 && strncasecmp(name, "x-linked-size", 13) == 0) {
        e->facts.size = leading_number(text);
    }
}

/* "HTTP/1.1 200 OK": a new reply begins, perhaps behind a redirect. */
static void note_status_line(exchange *e, const char *line, size_t length)
{
    const char *space = memchr(line, ' ', length);
    const char *end = line + length;
    e->code = 0;
    for (const char *p = space; p != NULL && ++p < end && *p >= '0' && *p <= '9';) {
        e->code = e->code < 1000 ? e->code * 10 + (*p - '0') : e->code;
    }
    e->range_start = UINT64_MAX;
    e->reason[0] = '\0';
}

/* libcurl's header callback: one line of the reply, not NUL-terminated. */
static size_t on_header(char *line, size_t size, size_t count, void *context)
{
    exchange *e = context;
    size_t length = size * count;
    while (length > 0 && strchr("\r\n\t ", line[length - 1]) != NULL) {
        length--;
    }
    const char *colon = memchr(line, ':', length);
    if (length > 5 && memcmp(line, "HTTP/", 5) == 0) {
        note_status_line(e, line, length);
    } else if (length == 0) {
        e->first_reply_seen = e->first_reply_seen || e->code >= 200;
    } else if (colon != NULL) {
        const char *value = colon + 1, *end = line + length;
        while (value < end && (*value == ' ' || *value == '\t')) {
            value++;
        }
        note_header(e, line, (size_t)(colon - line), value, (size_t)(end - value));
    }
    return size * count;
}

/* Settles, before the first byte of the body, where it goes in the sink. */
static dk_status start_body(exchange *e)
{
    dk_http_sink *sink = e->sink;
    e->body_started = true;
    if (sink->accept != NULL) {
        DK_TRY(sink->accept(sink, &e->facts, &e->sink_error));
    }
    if (e->code == 206 && e->range_start != sink->offset) {
        return dk_fail(&e->sink_error, DK_NETWORK, "the server sent another range");
    }
    if (e->code == 206 || sink->offset == 0) {
        return DK_OK;
    }
    sink->offset = 0;
    return sink->restart(sink, &e->sink_error);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    exchange *e = context;
    size_t length = size * count;
    if (e->code != 200 && e->code != 206) {
        return length; /* the page of an error; the status says enough */
    }
    if (!e->body_started) {
        e->sink_status = start_body(e);
    }
    if (e->sink_status == DK_OK && length > e->sink->expected - e->sink->offset) {
        e->sink_status = dk_fail(&e->sink_error, DK_FORMAT,
                                 "the server sends more than the %llu bytes it announced",
                                 (unsigned long long)e->sink->expected);
    }
    if (e->sink_status == DK_OK) {
        e->sink_status = e->sink->write(e->sink, bytes, length, &e->sink_error);
    }
    if (e->sink_status != DK_OK) {
        return 0; /* libcurl ends the transfer with CURLE_WRITE_ERROR */
    }
    e->sink->offset += length;
    return length;
}

static int on_progress(void *context, curl_off_t down_total, curl_off_t down,
                       curl_off_t up_total, curl_off_t up)
{
    (void)down_total, (void)down, (void)up_total, (void)up;
    const exchange *e = context;
    return is_cancelled(e->http) ? 1 : 0;
}

/* Sets up one attempt. libcurl keeps copies of the strings. */
static void prepare(dk_http *http, const char *url, exchange *e)
{
    CURL *curl = http->curl;
    const dk_hub_options *options = http->options;
    long stall = options->stall_timeout_s > 0 ? options->stall_timeout_s : STALL_TIMEOUT_S;
    bool secure = dk_starts_with(http->endpoint, "https://");
    curl_easy_reset(curl); /* connections stay open */
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "darkroom/" DK_VERSION);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, stall);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    if (options->token != NULL && options->token[0] != '\0') {
        /* libcurl leaves the token out after a redirect to another host, port or protocol. */
        curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, options->token);
    }
    if (e->sink->offset > 0) {
        char range[32] = "";
        dk_string text = DK_STRING_EMPTY;
        dk_string_printf(&text, "%llu-", (unsigned long long)e->sink->offset);
        memcpy(range, text.data, text.length + 1);
        dk_string_release(&text);
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
    }
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); /* of a proxy */
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, e);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, e);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, e);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
}

/* Failures of the transport that another attempt may not meet. */
static bool may_pass(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

static dk_status fail_denied(const dk_http *http, const dk_http_request *request,
                             const exchange *e, dk_error *err)
{
    bool has_token = http->options->token != NULL && http->options->token[0] != '\0';
    const char *advice = has_token ? "the token (HF_TOKEN) does not give access to it"
                                   : "it needs a token: set HF_TOKEN";
    if (strcmp(e->reason, "GatedRepo") == 0) {
        return dk_fail(err, DK_DENIED,
                       "%s: the model is gated (HTTP %ld): accept its terms on %s/%s, and %s",
                       request->what, e->code, http->endpoint, request->model,
                       has_token ? "use a token (HF_TOKEN) of that account" : "set HF_TOKEN");
    }
    if (strcmp(e->reason, "RepoNotFound") == 0) {
        return dk_fail(err, DK_DENIED,
                       "%s: %s has no such model, or it is private (HTTP %ld); %s",
                       request->what, http->endpoint, e->code, advice);
    }
    return dk_fail(err, DK_DENIED, "%s: %s denies access (HTTP %ld); %s", request->what,
                   http->endpoint, e->code, advice);
}

/* True when a redirect led away from the endpoint. */
static bool is_elsewhere(const dk_http *http)
{
    const char *url = NULL;
    curl_easy_getinfo(http->curl, CURLINFO_EFFECTIVE_URL, &url);
    size_t length = strlen(http->endpoint);
    return url != NULL && (strncmp(url, http->endpoint, length) != 0 || url[length] != '/');
}

/* Judges a reply whose status is not 200 or 206. */
static dk_status judge_code(const dk_http *http, const dk_http_request *request, exchange *e,
                            bool *retry, dk_error *err)
{
    bool elsewhere = is_elsewhere(http);
    if ((e->code == 401 || e->code == 403) && !elsewhere) {
        return fail_denied(http, request, e, err);
    }
    if (e->code == 404 || e->code == 410) {
        return dk_fail(err, DK_NOT_FOUND, "%s: not found on %s (HTTP %ld)%s%s", request->what,
                       http->endpoint, e->code, request->absent_hint != NULL ? "; " : "",
                       request->absent_hint != NULL ? request->absent_hint : "");
    }
    /* A refusal by the store behind the hub is a link that ran out: ask the hub for another. */
    *retry = elsewhere || e->code == 408 || e->code == 429 || e->code >= 500;
    if (e->code == 416 && e->sink->offset > 0) {
        /* The part held is not a part of this file: begin again. */
        *retry = true;
        e->sink->offset = 0;
        DK_TRY(e->sink->restart(e->sink, err));
    }
    return dk_fail(err, DK_NETWORK, "%s: %s answers HTTP %ld%s", request->what, http->endpoint,
                   e->code, e->code == 429 ? " (too many requests)" : "");
}

static dk_status judge(const dk_http *http, const dk_http_request *request, exchange *e,
                       CURLcode code, bool *retry, dk_error *err)
{
    *retry = false;
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        return dk_fail(err, DK_CANCELLED, "%s: cancelled after %llu bytes", request->what,
                       (unsigned long long)e->sink->offset);
    }
    if (e->sink_status != DK_OK) {
        return dk_fail(err, e->sink_status, "%s: %s", request->what, e->sink_error.message);
    }
    if (code != CURLE_OK) {
        *retry = may_pass(code);
        return dk_fail(err, DK_NETWORK, "%s: %s: %s", request->what, http->endpoint,
                       curl_easy_strerror(code));
    }
    if (e->code != 200 && e->code != 206) {
        return judge_code(http, request, e, retry, err);
    }
    if (e->sink->expected != UINT64_MAX && e->sink->offset < e->sink->expected) {
        *retry = true;
        return dk_fail(err, DK_NETWORK, "%s: %s sent %llu of %llu bytes", request->what,
                       http->endpoint, (unsigned long long)e->sink->offset,
                       (unsigned long long)e->sink->expected);
    }
    return DK_OK;
}

static dk_status pause_for(const dk_http *http, const char *what, int64_t wait_ms,
                           dk_error *err)
{
    for (int64_t waited = 0; waited < wait_ms; waited += PAUSE_STEP_MS) {
        if (is_cancelled(http)) {
            return dk_fail(err, DK_CANCELLED, "%s: cancelled", what);
        }
        int64_t left = wait_ms - waited;
        int64_t step = left < PAUSE_STEP_MS ? left : PAUSE_STEP_MS;
        struct timespec pause = {.tv_nsec = (long)step * 1000000L};
        nanosleep(&pause, NULL);
    }
    return DK_OK;
}

/* Waits before retry number `failures` (from 1) as long as the server asks for, else twice as
   long as the time before. `reason` is the failure; a wait that is too long keeps it. */
static dk_status wait_to_retry(const dk_http *http, const dk_http_request *request,
                               int failures, const dk_error *reason, dk_error *err)
{
    int base = http->options->retry_base_ms > 0 ? http->options->retry_base_ms : RETRY_BASE_MS;
    int64_t wait_ms = (int64_t)base << (failures - 1);
    wait_ms = wait_ms < PAUSE_MAX_MS ? wait_ms : PAUSE_MAX_MS;
    curl_off_t asked_s = 0;
    curl_easy_getinfo(http->curl, CURLINFO_RETRY_AFTER, &asked_s);
    if (asked_s > RETRY_AFTER_MAX_S) {
        return dk_fail(err, DK_NETWORK, "%s; it asks to come back after %lld s",
                       reason->message, (long long)asked_s);
    }
    wait_ms = asked_s > 0 ? (int64_t)asked_s * 1000 : wait_ms;
    dk_log_warn(http->options->log, "%s; trying again in %.1f s (%d of %d)", reason->message,
                (double)wait_ms * 1e-3, failures, RETRIES_MAX);
    return pause_for(http, request->what, wait_ms, err);
}

dk_status dk_http_get(dk_http *http, const dk_http_request *request, dk_http_sink *sink,
                      dk_error *err)
{
    for (int failures = 0;;) {
        uint64_t before = sink->offset;
        bool retry = false;
        dk_error problem = {0};
        exchange e = {
            .http = http, .sink = sink, .range_start = UINT64_MAX, .facts.size = UINT64_MAX};
        prepare(http, request->url, &e);
        CURLcode code = curl_easy_perform(http->curl);
        dk_status status = judge(http, request, &e, code, &retry, &problem);
        if (status == DK_OK) {
            return DK_OK;
        }
        failures = sink->offset > before + PROGRESS_BYTES ? 1 : failures + 1;
        if (!retry || failures > RETRIES_MAX) {
            return dk_fail(err, status, "%s%s", problem.message,
                           retry ? " (given up after several attempts)" : "");
        }
        DK_TRY(wait_to_retry(http, request, failures, &problem, err));
        if (sink->expected == UINT64_MAX && sink->offset > 0) {
            sink->offset = 0;
            DK_TRY(sink->restart(sink, err));
        }
    }
}
