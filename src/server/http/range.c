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

/* What stands behind "bytes=". */
typedef struct bounds {
    bool has_first;
    uint64_t first, last; /* UINT64_MAX where there is none */
} bounds;

/* False when the text is not FIRST-LAST, FIRST- or -LENGTH. */
static bool read_bounds(const char *p, bounds *b)
{
    *b = (bounds){.first = UINT64_MAX, .last = UINT64_MAX};
    p = skip_space(p);
    b->has_first = read_number(&p, &b->first);
    p = skip_space(p);
    if (*p != '-') {
        return false;
    }
    p = skip_space(p + 1);
    bool has_last = read_number(&p, &b->last);
    b->last = has_last ? b->last : UINT64_MAX;
    return *skip_space(p) == '\0' && (b->has_first ? b->first <= b->last : has_last);
}

dk_http_range_kind dk_http_range_parse(const char *text, uint64_t size, uint64_t *first,
                                       uint64_t *length)
{
    bounds b;
    if (text == NULL || strncasecmp(text, "bytes=", 6) != 0 || !read_bounds(text + 6, &b)) {
        return DK_HTTP_RANGE_WHOLE;
    }
    if (!b.has_first) { /* the last bytes; of none of them nothing is left */
        b.first = b.last == 0 ? size : b.last < size ? size - b.last : 0;
        b.last = UINT64_MAX;
    }
    if (b.first >= size) {
        return DK_HTTP_RANGE_OUTSIDE;
    }
    *first = b.first;
    *length = (b.last < size ? b.last + 1 : size) - b.first;
    return DK_HTTP_RANGE_PART;
}
