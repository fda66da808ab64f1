/* Bodies of forms: multipart/form-data (RFC 7578) and application/x-www-form-urlencoded.
   A strict parser over the whole body, in place: no copies of what was sent. */
#ifndef DK_SERVER_HTTP_FORM_H
#define DK_SERVER_HTTP_FORM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "server/http/http.h"

typedef struct dk_http_form {
    dk_http_part *parts; /* [count], owned; they point into the body */
    int count;
} dk_http_form;

/* True for the two media types (lower case, without parameters) that are forms. */
bool dk_http_is_form(const char *content_type);

/* Parses body[size], which is changed; body[size] must be a NUL. header is the Content-Type
   as sent, which tells the boundary. DK_INVALID says what is malformed. out is owned
   (dk_http_form_release) and borrows the body. */
DK_MUST_USE dk_status dk_http_form_parse(dk_http_form *out, const char *header, char *body,
                                         size_t size, int max_parts, dk_error *err);
void dk_http_form_release(dk_http_form *form); /* also fine for a zeroed one */

#endif
