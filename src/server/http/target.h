/* The request's target: path and query, taken apart and decoded with no trust in them. */
#ifndef DK_SERVER_HTTP_TARGET_H
#define DK_SERVER_HTTP_TARGET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { DK_HTTP_MAX_SEGMENTS = 16, DK_HTTP_MAX_PAIRS = 64 };

typedef struct dk_http_pair {
    const char *name, *value;
} dk_http_pair;

typedef struct dk_http_target {
    char *text;       /* owned: everything below points into it */
    const char *path; /* decoded; begins with '/' */
    /* What stands between the slashes as they were sent: "%2F" inside a segment is a
       character of it, not a border. "/" is one empty segment. */
    const char *segments[DK_HTTP_MAX_SEGMENTS];
    int segment_count; /* DK_HTTP_MAX_SEGMENTS + 1: there are more, which no route has */
    dk_http_pair pairs[DK_HTTP_MAX_PAIRS]; /* of the query, in order */
    int pair_count;
} dk_http_target;

/* Parses "/path?query" or "http://host/path?query". DK_INVALID: not a path, a bad %XX, NUL or
   another control character, "." or ".." as a segment (also behind an encoded slash), text
   that is not UTF-8, too many fields. On success owned (dk_http_target_release). */
DK_MUST_USE dk_status dk_http_target_parse(dk_http_target *out, const char *raw, dk_error *err);
void dk_http_target_release(dk_http_target *target); /* also fine for a zeroed one */

/* Decodes length bytes at from into to, which holds length + 1 and may be the same; a NUL
   follows. With plus_is_space as in forms. False: a bad %XX or a control character, which
   forms may hold where allow_controls is set (NUL never). */
bool dk_http_unescape(char *to, const char *from, size_t length, bool plus_is_space,
                      bool allow_controls);

#endif
