/* The Range header: one range of bytes. */
#ifndef DK_SERVER_HTTP_RANGE_H
#define DK_SERVER_HTTP_RANGE_H

#include <stdint.h>

typedef enum dk_http_range_kind {
    DK_HTTP_RANGE_WHOLE,  /* no range, several, or another unit: all of it is sent */
    DK_HTTP_RANGE_PART,   /* *first and *length are set; length > 0, first + length <= size */
    DK_HTTP_RANGE_OUTSIDE /* nothing of it lies in the content: 416 */
} dk_http_range_kind;

/* Reads "bytes=FIRST-LAST", "bytes=FIRST-" or "bytes=-LENGTH" for content of `size` bytes;
   text may be NULL. What is malformed counts as no range (RFC 9110, 14.2). */
dk_http_range_kind dk_http_range_parse(const char *text, uint64_t size, uint64_t *first,
                                       uint64_t *length);

#endif
