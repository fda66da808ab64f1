/* The Range header. */
#include "server/http/range.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

/* Reads digits at *text; false when there are none. Numbers too large stay at the largest. */
static bool read_number(const char **text, uint64_t *number)
{
    const char *p = *text;
    *number = 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (__builtin_mul_overflow(*number, 10, number) ||
            __builtin_add_overflow(*number, digit, number)) {
            *number = UINT64_MAX;
        }
        if (*number == UINT64_MAX) {
            p += strspn(p, "0123456789");
            break;
        }
    }
    bool any = p > *text;
    *text = p;
    return any;
}

static const char *skip_space(const char *text)
{
    return text + strspn(text, " \t");
}

dk_http_range_kind dk_http_range_parse(const char *text, uint64_t size, uint64_t *first,
                                       uint64_t *length)
{
    if (text == NULL || strncasecmp(text, "bytes=", 6) != 0) {
        return DK_HTTP_RANGE_WHOLE;
    }
    const char *p = skip_space(text + 6);
    uint64_t from = 0, to = UINT64_MAX;
    bool has_from = read_number(&p, &from);
    p = skip_space(p);
    if (*p != '-') {
        return DK_HTTP_RANGE_WHOLE;
    }
    p = skip_space(p + 1);
    bool has_to = read_number(&p, &to);
    if (*skip_space(p) != '\0' || (!has_from && !has_to) || (has_from && has_to && from > to)) {
        return DK_HTTP_RANGE_WHOLE;
    }
    if (!has_from) { /* the last `to` bytes */
        from = to < size ? size - to : 0;
        to = to > 0 ? UINT64_MAX : 0;
        if (to == 0) {
            return DK_HTTP_RANGE_OUTSIDE;
        }
    } else if (!has_to) {
        to = UINT64_MAX;
    }
    if (from >= size) {
        return DK_HTTP_RANGE_OUTSIDE;
    }
    *first = from;
    *length = (to < size ? to + 1 : size) - from;
    return DK_HTTP_RANGE_PART;
}
