/* Pictures by URL: a client may name what this machine connects to, so every step is checked:
   the URL, the host, each redirect, and at last the address of the socket. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "server/uploads/address.h"
#include "server/uploads/uploads.h"

enum {
    DEFAULT_BYTES = 32 * 1024 * 1024,
    DEFAULT_SECONDS = 20,
    REDIRECTS_MAX = 3,
    URL_BYTES_MAX = 8192,
    HOST_BYTES = 256,
};

/* A URL taken apart; only what is checked. */
typedef struct place {
    bool secure;
    char host[HOST_BYTES]; /* IPv6 in brackets */
    long port;
} place;

typedef struct fetch {
    const dk_fetch_policy *policy;
    size_t max_bytes;
    place place;
    dk_string *out;
    size_t before;       /* bytes in out that are not ours */
    bool refused, large; /* the address; the content */
} fetch;

static bool copy_part(char *out, size_t size, CURLU *url, CURLUPart part, unsigned flags)
{
    char *text = NULL;
    bool found = curl_url_get(url, part, &text, flags) == CURLUE_OK && strlen(text) < size;
    if (found) {
        memcpy(out, text, strlen(text) + 1);
    }
    curl_free(text);
    return found;
}

static dk_status read_url(place *out, const char *url, dk_error *err)
{
    char scheme[16], port[16];
    dk_status status = DK_OK;
    CURLU *parsed = curl_url();
    *out = (place){0};
    if (strlen(url) > URL_BYTES_MAX || parsed == NULL ||
        curl_url_set(parsed, CURLUPART_URL, url, CURLU_DISALLOW_USER) != CURLUE_OK ||
        !copy_part(scheme, sizeof scheme, parsed, CURLUPART_SCHEME, 0) ||
        !copy_part(out->host, sizeof out->host, parsed, CURLUPART_HOST, 0) ||
        !copy_part(port, sizeof port, parsed, CURLUPART_PORT, CURLU_DEFAULT_PORT)) {
        status = dk_fail(err, DK_INVALID,
                         "the picture's URL is malformed, expected https://host/path without "
                         "name and password, of at most %d characters",
                         URL_BYTES_MAX);
        goto done;
    }
    out->secure = strcasecmp(scheme, "https") == 0;
    out->port = strtol(port, NULL, 10);
    if (!out->secure && strcasecmp(scheme, "http") != 0) {
        status = dk_fail(err, DK_INVALID,
                         "the picture's URL begins with %s:, accepted are https:, http: and "
                         "data:",
                         scheme);
    }
done:
    curl_url_cleanup(parsed);
    return status;
}

/* "host", ".domain", each perhaps with ":port". IPv6 stands in brackets. */
static bool matches(const char *entry, const place *at)
{
    const char *bracket = strrchr(entry, ']');
    const char *colon = strrchr(bracket != NULL ? bracket : entry, ':');
    size_t length = colon != NULL ? (size_t)(colon - entry) : strlen(entry);
    size_t host = strlen(at->host);
    bool port_fits = colon != NULL ? strtol(colon + 1, NULL, 10) == at->port
                                   : at->port == 80 || at->port == 443;
    if (length == 0 || !port_fits) {
        return false;
    }
    if (entry[0] == '.') {
        return host > length && strncasecmp(at->host + host - length, entry, length) == 0;
    }
    return host == length && strncasecmp(at->host, entry, length) == 0;
}

static dk_status check_place(const place *at, const dk_fetch_policy *policy, dk_error *err)
{
    for (int i = 0; i < policy->host_count; i++) {
        if (matches(policy->hosts[i], at)) {
            return DK_OK;
        }
    }
    return dk_fail(err, DK_INVALID,
                   policy->host_count == 0
                       ? "pictures are not fetched by this server (host '%s', port %ld): send "
                         "the picture itself, or as a data: URL"
                       : "pictures are not fetched from host '%s', port %ld: send the picture "
                         "itself, or as a data: URL",
                   at->host, at->port);
}

/* libcurl asks for a socket to this address: the last word, whatever the name resolved to. */
static curl_socket_t open_socket(void *context, curlsocktype purpose,
                                 struct curl_sockaddr *address)
{
    (void)purpose;
    fetch *f = context;
    if (!f->policy->allow_private && !dk_address_is_public(&address->addr)) {
        f->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    fetch *f = context;
    size_t length = size * count;
    if (length > f->max_bytes - (f->out->length - f->before)) {
        f->large = true;
        return 0;
    }
    dk_string_append(f->out, bytes, length);
    return length;
}

static void prepare(CURL *curl, const char *url, fetch *f, double left_ms)
{
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L); /* we do, with checks */
    curl_easy_setopt(curl, CURLOPT_PROXY, "");          /* also none of the environment */
    curl_easy_setopt(curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(left_ms > 1 ? left_ms : 1));
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)f->max_bytes);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "darkroom/" DK_VERSION);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, f);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, f);
}

static dk_status fail_transfer(const fetch *f, CURLcode code, dk_error *err)
{
    const char *host = f->place.host;
    if (f->refused) {
        return dk_fail(
            err, DK_INVALID,
            "the picture's host '%s' has an address that is not public: such are not "
            "connected to",
            host);
    }
    if (f->large || code == CURLE_FILESIZE_EXCEEDED) {
        return dk_fail(err, DK_FORMAT, "the picture on '%s' has more than %zu bytes", host,
                       f->max_bytes);
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        return dk_fail(err, DK_NETWORK, "the picture on '%s' did not arrive in time", host);
    }
    return dk_fail(err, DK_NETWORK, "the picture on '%s' cannot be fetched: %s", host,
                   curl_easy_strerror(code));
}

/* One request. *next is where a redirect leads (owned), or NULL when the picture has come. */
static dk_status request(CURL *curl, const char *url, fetch *f, double left_ms, char **next,
                         dk_error *err)
{
    long code = 0;
    const char *location = NULL;
    prepare(curl, url, f, left_ms);
    CURLcode result = curl_easy_perform(curl);
    if (result != CURLE_OK) {
        return fail_transfer(f, result, err);
    }
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &location);
    if (code / 100 == 3 && location != NULL) {
        *next = dk_strdup(location);
        return DK_OK;
    }
    return code == 200 ? DK_OK
                       : dk_fail(err, DK_NETWORK, "'%s' answers HTTP %ld instead of a picture",
                                 f->place.host, code);
}

static void forget(fetch *f)
{
    if (f->out->data != NULL) {
        f->out->length = f->before;
        f->out->data[f->before] = '\0';
    }
}

/* Follows the redirects. url is taken. */
static dk_status follow(CURL *curl, char *url, fetch *f, dk_error *err)
{
    int seconds = f->policy->seconds > 0 ? f->policy->seconds : DEFAULT_SECONDS;
    double deadline = dk_now_ms() + seconds * 1e3;
    dk_status status = DK_OK;
    bool was_secure = false;
    for (int i = 0; url != NULL; i++) {
        char *next = NULL;
        if (i > REDIRECTS_MAX) {
            status = dk_fail(err, DK_NETWORK, "'%s' redirects more than %d times",
                             f->place.host, REDIRECTS_MAX);
            break;
        }
        DK_TRY_DONE(read_url(&f->place, url, err));
        DK_TRY_DONE(check_place(&f->place, f->policy, err));
        if (was_secure && !f->place.secure) {
            status = dk_fail(err, DK_INVALID, "the picture's URL leads from https to http");
            break;
        }
        was_secure = f->place.secure;
        forget(f); /* the page of a redirect */
        DK_TRY_DONE(request(curl, url, f, deadline - dk_now_ms(), &next, err));
        dk_free(url);
        url = next;
    }
done:
    dk_free(url);
    return status;
}

dk_status dk_upload_fetch(dk_string *out, const char *url, const dk_fetch_policy *policy,
                          dk_error *err)
{
    fetch f = {.policy = policy,
               .max_bytes = policy->max_bytes > 0 ? policy->max_bytes : DEFAULT_BYTES,
               .out = out,
               .before = out->length};
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return dk_fail(err, DK_INTERNAL, "libcurl cannot be started");
    }
    CURL *curl = curl_easy_init();
    dk_status status = curl != NULL ? follow(curl, dk_strdup(url), &f, err)
                                    : dk_fail(err, DK_INTERNAL, "libcurl cannot be started");
    if (status != DK_OK) {
        forget(&f);
    }
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    return status;
}
