/* Forms, parsed in place: NULs take the place of what ends a name or a part. */
#include "server/http/form.h"

#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/string.h"
#include "server/http/target.h"
#include "tokenizer/utf8.h"

enum {
    MAX_BOUNDARY_BYTES = 70, /* RFC 2046 */
    DELIMITER_BYTES = MAX_BOUNDARY_BYTES + 4,
    MAX_HEADER_BYTES = 8 * 1024, /* of one part */
    MAX_NAME_BYTES = 256,
};

/* What a parser works on. */
typedef struct parser {
    char *at, *end;                  /* what is left of the body */
    char delimiter[DELIMITER_BYTES]; /* "\r\n--boundary" */
    size_t delimiter_bytes;
    int max_parts, capacity;
    dk_http_form form;
} parser;

bool dk_http_is_form(const char *content_type)
{
    return strcmp(content_type, "multipart/form-data") == 0 ||
           strcmp(content_type, "application/x-www-form-urlencoded") == 0;
}

static bool is_token_character(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* Reads "…" at *text, unescaped in place: *value gets its NUL, *text stands behind it. */
static bool read_quoted(char **text, char **value)
{
    char *p = *text + 1, *to = p;
    *value = p;
    while (*p != '"') {
        p += *p == '\\' && (p[1] == '"' || p[1] == '\\') ? 1 : 0;
        if (*p == '\0') {
            return false;
        }
        *to++ = *p++;
    }
    *to = '\0'; /* at the latest where the quote was */
    *text = p + 1;
    return true;
}

/* Reads a token at *text. What ends it is still needed, so the value moves one byte back, over
   the '=', to make room for its NUL. */
static bool read_token(char **text, char **value)
{
    char *p = *text;
    while (is_token_character(*p)) {
        p++;
    }
    size_t length = (size_t)(p - *text);
    *value = *text - 1;
    memmove(*value, *text, length);
    (*value)[length] = '\0';
    *text = p;
    return length > 0;
}

/* Steps over '; name="value"' or '; name=value'. The name has no NUL. False when the text at
 *text is not a parameter. */
static bool next_parameter(char **text, char **name, size_t *name_length, char **value)
{
    char *p = *text + strspn(*text, " \t");
    if (*p++ != ';') {
        return false;
    }
    p += strspn(p, " \t");
    *name = p;
    while (is_token_character(*p)) {
        p++;
    }
    *name_length = (size_t)(p - *name);
    if (*name_length == 0 || *p++ != '=') {
        return false;
    }
    bool read = *p == '"' ? read_quoted(&p, value) : read_token(&p, value);
    *text = p;
    return read;
}

static bool is_named(const char *name, size_t length, const char *expected)
{
    return length == strlen(expected) && strncasecmp(name, expected, length) == 0;
}

static dk_status find_boundary(parser *p, const char *header, dk_error *err)
{
    char *copy = dk_strdup(header), *text = copy + strcspn(copy, ";"), *name, *value;
    size_t length;
    dk_status status = DK_OK;
    const char *found = NULL;
    while (found == NULL && next_parameter(&text, &name, &length, &value)) {
        found = is_named(name, length, "boundary") ? value : NULL;
    }
    size_t bytes = found != NULL ? strlen(found) : 0;
    if (bytes < 1 || bytes > MAX_BOUNDARY_BYTES || strpbrk(found, "\r\n") != NULL ||
        found[bytes - 1] == ' ') {
        status = dk_fail(err, DK_INVALID,
                         "multipart/form-data needs a boundary of 1 to %d characters in the "
                         "Content-Type header",
                         MAX_BOUNDARY_BYTES);
        goto done;
    }
    memcpy(p->delimiter, "\r\n--", 4);
    memcpy(p->delimiter + 4, found, bytes);
    p->delimiter_bytes = bytes + 4;
done:
    dk_free(copy);
    return status;
}

static dk_status add_part(parser *p, const dk_http_part *part, dk_error *err)
{
    if (p->form.count == p->max_parts) {
        return dk_fail(err, DK_INVALID, "the form has more than %d parts", p->max_parts);
    }
    if (p->form.count == p->capacity) {
        p->capacity = p->capacity > 0 ? 2 * p->capacity : 8;
        p->form.parts = dk_realloc(p->form.parts, (size_t)p->capacity * sizeof *p->form.parts);
    }
    p->form.parts[p->form.count++] = *part;
    return DK_OK;
}

static dk_status check_name(const char *name, dk_error *err)
{
    size_t length = strlen(name);
    if (length < 1 || length > MAX_NAME_BYTES) {
        return dk_fail(err, DK_INVALID,
                       "a form field's name has %zu bytes, accepted are 1 to %d", length,
                       MAX_NAME_BYTES);
    }
    return dk_utf8_check(name, length, "a form field's name", err);
}

/* Content-Disposition's value: form-data; name="…"; filename="…". */
static dk_status read_disposition(dk_http_part *part, char *text, dk_error *err)
{
    if (strncasecmp(text, "form-data", 9) != 0 || part->name != NULL) {
        return dk_fail(err, DK_INVALID,
                       "a part of the form has a Content-Disposition that is not one "
                       "'form-data; name=\"…\"'");
    }
    char *name, *value;
    size_t length;
    for (text += 9; next_parameter(&text, &name, &length, &value);) {
        if (is_named(name, length, "name")) {
            part->name = value;
        } else if (is_named(name, length, "filename")) {
            part->file_name = value;
        }
    }
    if (text[strspn(text, " \t;")] != '\0' || part->name == NULL) {
        return dk_fail(err, DK_INVALID,
                       "a part of the form has a malformed Content-Disposition, expected "
                       "'form-data; name=\"…\"'");
    }
    DK_TRY(check_name(part->name, err));
    return part->file_name == NULL ? DK_OK
                                   : dk_utf8_check(part->file_name, strlen(part->file_name),
                                                   "a file's name in the form", err);
}

static bool is_identity(const char *encoding)
{
    return strcasecmp(encoding, "binary") == 0 || strcasecmp(encoding, "8bit") == 0 ||
           strcasecmp(encoding, "7bit") == 0;
}

/* One header line of a part, with a NUL at its end. */
static dk_status read_header(dk_http_part *part, char *line, dk_error *err)
{
    char *colon = strchr(line, ':');
    if (colon == NULL || colon == line) {
        return dk_fail(err, DK_INVALID, "a part of the form has a header without a name");
    }
    size_t length = (size_t)(colon - line);
    char *value = colon + 1 + strspn(colon + 1, " \t");
    if (is_named(line, length, "content-disposition")) {
        return read_disposition(part, value, err);
    }
    if (is_named(line, length, "content-type")) {
        part->content_type = value;
        return dk_utf8_check(value, strlen(value), "a part's Content-Type", err);
    }
    if (is_named(line, length, "content-transfer-encoding") && !is_identity(value)) {
        return dk_fail(err, DK_INVALID,
                       "a part of the form has the transfer encoding '%.40s', accepted are "
                       "binary, 8bit, 7bit",
                       value);
    }
    return DK_OK; /* others mean nothing here */
}

/* Header lines to the empty one. */
static dk_status read_headers(parser *p, dk_http_part *part, dk_error *err)
{
    char *limit = p->end - p->at > MAX_HEADER_BYTES ? p->at + MAX_HEADER_BYTES : p->end;
    for (;;) {
        char *line = p->at;
        char *end = memmem(line, (size_t)(limit - line), "\r\n", 2);
        if (end == NULL) {
            return dk_fail(err, DK_INVALID,
                           limit < p->end
                               ? "a part of the form has more than %d bytes of headers"
                               : "the form ends inside a part's headers",
                           MAX_HEADER_BYTES);
        }
        p->at = end + 2;
        if (end == line) {
            break;
        }
        *end = '\0';
        if (strlen(line) != (size_t)(end - line)) {
            return dk_fail(err, DK_INVALID, "a part of the form has a NUL in its headers");
        }
        DK_TRY(read_header(part, line, err));
    }
    return part->name != NULL
               ? DK_OK
               : dk_fail(err, DK_INVALID, "a part of the form has no Content-Disposition");
}

/* Behind a delimiter: "--" ends the form, blanks and a line end begin a part; anything else
   means that the delimiter was text of the part. */
typedef enum tail { TAIL_TEXT, TAIL_PART, TAIL_END } tail;

static tail read_tail(const parser *p, char *at, char **after)
{
    if (p->end - at >= 2 && memcmp(at, "--", 2) == 0) {
        *after = at + 2;
        return TAIL_END;
    }
    while (at < p->end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    if (p->end - at >= 2 && memcmp(at, "\r\n", 2) == 0) {
        *after = at + 2;
        return TAIL_PART;
    }
    return TAIL_TEXT;
}

/* The delimiter that ends the part at p->at; p->at moves behind it. NULL: there is none. */
static char *find_delimiter(parser *p, tail *what)
{
    char *from = p->at;
    for (;;) {
        char *found = memmem(from, (size_t)(p->end - from), p->delimiter, p->delimiter_bytes);
        if (found == NULL) {
            return NULL;
        }
        *what = read_tail(p, found + p->delimiter_bytes, &p->at);
        if (*what != TAIL_TEXT) {
            return found;
        }
        from = found + 1;
    }
}

static dk_status parse_multipart(parser *p, dk_error *err)
{
    /* The first delimiter has no line end before it. */
    size_t first = p->delimiter_bytes - 2;
    tail what = TAIL_TEXT;
    if ((size_t)(p->end - p->at) >= first && memcmp(p->at, p->delimiter + 2, first) == 0) {
        what = read_tail(p, p->at + first, &p->at);
    }
    if (what == TAIL_TEXT) {
        return dk_fail(err, DK_INVALID,
                       "the form does not begin with the boundary that its Content-Type tells");
    }
    while (what != TAIL_END) {
        dk_http_part part = {0};
        DK_TRY(read_headers(p, &part, err));
        char *data = p->at, *end;
        /* An empty part: its delimiter's line end is the one that ends the headers. */
        p->at -= 2;
        end = find_delimiter(p, &what);
        if (end == NULL) {
            return dk_fail(err, DK_INVALID,
                           "the form ends without its final boundary: was it cut off?");
        }
        end = end < data ? data : end;
        *end = '\0';
        part.data = data;
        part.size = (size_t)(end - data);
        DK_TRY(add_part(p, &part, err));
    }
    return DK_OK;
}

static dk_status parse_urlencoded(parser *p, dk_error *err)
{
    while (p->at < p->end) {
        char *field = p->at;
        char *end = memchr(field, '&', (size_t)(p->end - field));
        end = end != NULL ? end : p->end;
        char *equals = memchr(field, '=', (size_t)(end - field));
        char *name_end = equals != NULL ? equals : end;
        char *value = equals != NULL ? equals + 1 : end;
        p->at = end < p->end ? end + 1 : p->end;
        if (end == field) {
            continue;
        }
        dk_http_part part = {.name = field, .data = value};
        if (!dk_http_unescape(value, value, (size_t)(end - value), true, true) ||
            !dk_http_unescape(field, field, (size_t)(name_end - field), true, false)) {
            return dk_fail(err, DK_INVALID, "the form holds a bad %%XX or a NUL");
        }
        part.size = strlen(value);
        DK_TRY(check_name(field, err));
        DK_TRY(add_part(p, &part, err));
    }
    return DK_OK;
}

dk_status dk_http_form_parse(dk_http_form *out, const char *header, char *body, size_t size,
                             int max_parts, dk_error *err)
{
    parser p = {.at = body, .end = body + size, .max_parts = max_parts};
    dk_status status = DK_OK;
    if (strncasecmp(header, "multipart/form-data", 19) == 0) {
        DK_TRY_DONE(find_boundary(&p, header, err));
        DK_TRY_DONE(parse_multipart(&p, err));
    } else {
        DK_TRY_DONE(parse_urlencoded(&p, err));
    }
    *out = p.form;
    p.form = (dk_http_form){0};
done:
    dk_http_form_release(&p.form);
    return status;
}

void dk_http_form_release(dk_http_form *form)
{
    dk_free(form->parts);
    *form = (dk_http_form){0};
}
