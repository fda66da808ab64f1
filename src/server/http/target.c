/* Path and query. */
#include "server/http/target.h"

#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "tokenizer/utf8.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char low = (char)(c | 0x20);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

bool dk_http_unescape(char *to, const char *from, size_t length, bool plus_is_space,
                      bool allow_controls)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        int c = (unsigned char)from[i];
        if (c == '%') {
            int high = i + 2 < length ? hex_digit(from[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(from[i + 2]) : -1;
            if (low < 0) {
                return false;
            }
            c = high * 16 + low;
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c == '\0' || ((c < 0x20 || c == 0x7f) && !allow_controls)) {
            return false;
        }
        to[used++] = (char)c;
    }
    to[used] = '\0';
    return true;
}

/* A part between slashes that would lead elsewhere, were the path a file's. */
static bool has_dots(const char *path)
{
    for (const char *part = path; part != NULL;) {
        size_t length = strcspn(part, "/\\");
        if ((length == 1 && part[0] == '.') || (length == 2 && memcmp(part, "..", 2) == 0)) {
            return true;
        }
        part = part[length] != '\0' ? part + length + 1 : NULL;
    }
    return false;
}

static dk_status decode_path(dk_http_target *target, char *to, const char *path, size_t length,
                             dk_error *err)
{
    if (!dk_http_unescape(to, path, length, false, false)) {
        return dk_fail(err, DK_INVALID,
                       "the path holds a bad %%XX or a control character, which no path here "
                       "has");
    }
    target->path = to;
    if (has_dots(to)) {
        return dk_fail(err, DK_INVALID, "the path holds '.' or '..' as a part of it");
    }
    return dk_utf8_check(to, strlen(to), "the path", err);
}

/* The segments, each with its NUL; `to` holds length + 1 bytes. */
static void decode_segments(dk_http_target *target, char *to, const char *path, size_t length)
{
    for (size_t at = 1; at <= length;) {
        const char *slash = memchr(path + at, '/', length - at);
        size_t part = slash != NULL ? (size_t)(slash - path) - at : length - at;
        if (target->segment_count == DK_HTTP_MAX_SEGMENTS) {
            target->segment_count++;
            return;
        }
        dk_http_unescape(to, path + at, part, false, false); /* was tried as a whole */
        target->segments[target->segment_count++] = to;
        to += part + 1;
        at += part + 1;
    }
}

static dk_status decode_query(dk_http_target *target, char *to, const char *query,
                              dk_error *err)
{
    while (*query != '\0') {
        size_t length = strcspn(query, "&");
        const char *equals = memchr(query, '=', length);
        size_t name = equals != NULL ? (size_t)(equals - query) : length;
        size_t value = equals != NULL ? length - name - 1 : 0;
        if (target->pair_count == DK_HTTP_MAX_PAIRS) {
            return dk_fail(err, DK_INVALID, "the query has more than %d fields",
                           DK_HTTP_MAX_PAIRS);
        }
        char *second = to + name + 1;
        if (!dk_http_unescape(to, query, name, true, false) ||
            !dk_http_unescape(second, query + length - value, value, true, false)) {
            return dk_fail(err, DK_INVALID,
                           "the query holds a bad %%XX or a control character");
        }
        DK_TRY(dk_utf8_check(to, strlen(to), "a name in the query", err));
        DK_TRY(dk_utf8_check(second, strlen(second), "a value in the query", err));
        if (length > 0) {
            target->pairs[target->pair_count++] = (dk_http_pair){to, second};
        }
        to = second + value + 1;
        query += length + (query[length] == '&' ? 1 : 0);
    }
    return DK_OK;
}

/* Skips "http://host" of a request that was written for a proxy. */
static const char *skip_origin(const char *raw)
{
    bool absolute = dk_starts_with(raw, "http://") || dk_starts_with(raw, "https://");
    if (!absolute) {
        return raw;
    }
    const char *host = strstr(raw, "//") + 2;
    return host + strcspn(host, "/?#");
}

dk_status dk_http_target_parse(dk_http_target *out, const char *raw, dk_error *err)
{
    const char *path = skip_origin(raw);
    size_t length = strcspn(path, "?#");
    if (path[0] != '/') {
        return dk_fail(err, DK_INVALID, "the request's target does not begin with '/'");
    }
    const char *query = path[length] == '?' ? path + length + 1 : "";
    dk_http_target target = {0};
    dk_status status = DK_OK;
    /* A segment loses its slash and gains a NUL; so does a field of the query, but one
       without '=' gains two. */
    target.text = dk_alloc(2 * (length + 2) + 2 * strlen(query) + 2);
    DK_TRY_DONE(decode_path(&target, target.text, path, length, err));
    decode_segments(&target, target.text + length + 2, path, length);
    DK_TRY_DONE(decode_query(&target, target.text + 2 * (length + 2), query, err));
    *out = target;
    target.text = NULL;
done:
    dk_free(target.text);
    return status;
}

void dk_http_target_release(dk_http_target *target)
{
    dk_free(target->text);
    target->text = NULL;
}
