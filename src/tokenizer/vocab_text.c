/* The stream reader of vocabularies. */
#include "tokenizer/vocab_text.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "base/string.h"
#include "tokenizer/utf8.h"

enum { NUMBER_MAX = 63 };

static bool is_json_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t skip_space(const char *text, size_t size, size_t at)
{
    while (at < size && is_json_space(text[at])) {
        at++;
    }
    return at;
}

/* Behind the closing quote of the string that starts at `at`; size when it is cut off. */
static size_t skip_string(const char *text, size_t size, size_t at)
{
    for (at++; at < size && text[at] != '"'; at++) {
        if (text[at] == '\\') {
            at++;
        }
    }
    return at < size ? at + 1 : size;
}

static size_t skip_array(const char *text, size_t size, size_t at)
{
    int depth = 0;
    while (at < size) {
        char c = text[at];
        if (c == '"') {
            at = skip_string(text, size, at);
            continue;
        }
        depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
        at++;
        if (depth == 0) {
            break;
        }
    }
    return at;
}

bool dk_vocab_text_locate(const char *text, size_t size, size_t *start, size_t *end)
{
    int depth = 0;
    bool in_model = false;
    for (size_t at = 0; at < size;) {
        char c = text[at];
        if (c != '"') {
            depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
            in_model = in_model && depth >= 2;
            at++;
            continue;
        }
        size_t behind = skip_string(text, size, at);
        size_t value = skip_space(text, size, behind);
        bool is_key = value < size && text[value] == ':';
        value = is_key ? skip_space(text, size, value + 1) : size;
        if (value < size && depth == 1 && text[value] == '{' && behind - at == 7 &&
            memcmp(text + at, "\"model\"", 7) == 0) {
            in_model = true;
            depth = 2;
            at = value + 1;
        } else if (value < size && depth == 2 && in_model && text[value] == '[' &&
                   behind - at == 7 && memcmp(text + at, "\"vocab\"", 7) == 0) {
            *start = value;
            *end = skip_array(text, size, value);
            return true;
        } else {
            at = behind;
        }
    }
    return false;
}

typedef struct reader {
    const char *text;
    size_t size, at;
    dk_string unescaped;
    const char *where;
    char point; /* the locale's decimal point, which strtod expects */
    dk_error *err;
} reader;

static dk_status fail_syntax(const reader *r, const char *expected)
{
    return dk_fail(r->err, DK_FORMAT, "%s: 'model.vocab', byte %zu: expected %s", r->where,
                   r->at, expected);
}

static bool take(reader *r, char c)
{
    r->at = skip_space(r->text, r->size, r->at);
    if (r->at < r->size && r->text[r->at] == c) {
        r->at++;
        return true;
    }
    return false;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool read_hex4(const reader *r, size_t at, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < 4; i++) {
        int value = at + i < r->size ? hex_value(r->text[at + i]) : -1;
        if (value < 0) {
            return false;
        }
        *out = *out << 4 | (uint32_t)value;
    }
    return true;
}

/* at is on the 'u' of \uXXXX; moves behind the escape, or behind a pair of surrogates. */
static dk_status read_unicode_escape(reader *r)
{
    uint32_t c, low;
    if (!read_hex4(r, r->at + 1, &c)) {
        return fail_syntax(r, "four hexadecimal digits");
    }
    r->at += 5;
    if (c >= 0xD800 && c <= 0xDBFF && r->size - r->at >= 6 && r->text[r->at] == '\\' &&
        r->text[r->at + 1] == 'u' && read_hex4(r, r->at + 2, &low) && low >= 0xDC00 &&
        low <= 0xDFFF) {
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        r->at += 6;
    }
    if (c >= 0xD800 && c <= 0xDFFF) {
        return fail_syntax(r, "a pair of surrogates");
    }
    dk_utf8_append(&r->unescaped, c);
    return DK_OK;
}

static dk_status read_escape(reader *r)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    r->at++;
    char c = r->at < r->size ? r->text[r->at] : '\0';
    if (c == 'u') {
        return read_unicode_escape(r);
    }
    const char *found = c != '\0' ? strchr(names, c) : NULL;
    if (found == NULL) {
        return fail_syntax(r, "an escape sequence of JSON");
    }
    dk_string_putc(&r->unescaped, values[found - names]);
    r->at++;
    return DK_OK;
}

/* The string is borrowed from the text, or from r->unescaped when it holds escapes. */
static dk_status read_string(reader *r, const char **out, size_t *length)
{
    if (!take(r, '"')) {
        return fail_syntax(r, "a piece in quotes");
    }
    size_t start = r->at;
    bool escaped = false;
    dk_string_clear(&r->unescaped);
    while (r->at < r->size && r->text[r->at] != '"') {
        uint32_t c;
        if (r->text[r->at] == '\\') {
            if (!escaped) {
                dk_string_append(&r->unescaped, r->text + start, r->at - start);
                escaped = true;
            }
            DK_TRY(read_escape(r));
            continue;
        }
        size_t bytes = dk_utf8_decode(&c, r->text + r->at, r->size - r->at);
        if (bytes == 0 || c < 0x20) {
            return fail_syntax(r, "valid UTF-8 without control characters");
        }
        if (escaped) {
            dk_string_append(&r->unescaped, r->text + r->at, bytes);
        }
        r->at += bytes;
    }
    if (r->at >= r->size) {
        return fail_syntax(r, "a closing quote");
    }
    *out = escaped ? dk_string_text(&r->unescaped) : r->text + start;
    *length = escaped ? r->unescaped.length : r->at - start;
    r->at++;
    return DK_OK;
}

static size_t skip_digits(const char *s, size_t at)
{
    while (s[at] >= '0' && s[at] <= '9') {
        at++;
    }
    return at;
}

/* True when s is a number by JSON's grammar, which is narrower than strtod's. */
static bool is_json_number(const char *s)
{
    size_t at = s[0] == '-', start = at;
    at = skip_digits(s, at);
    if (at == start || (s[start] == '0' && at > start + 1)) {
        return false;
    }
    if (s[at] == '.') {
        start = ++at;
        at = skip_digits(s, at);
        if (at == start) {
            return false;
        }
    }
    if (s[at] == 'e' || s[at] == 'E') {
        at++;
        at += s[at] == '+' || s[at] == '-';
        start = at;
        at = skip_digits(s, at);
        if (at == start) {
            return false;
        }
    }
    return s[at] == '\0';
}

static dk_status read_number(reader *r, double *out)
{
    char digits[NUMBER_MAX + 1];
    size_t length = 0;
    r->at = skip_space(r->text, r->size, r->at);
    while (r->at + length < r->size && length < NUMBER_MAX) {
        char c = r->text[r->at + length];
        if (c == ',' || c == ']' || is_json_space(c)) {
            break;
        }
        digits[length++] = c;
    }
    digits[length] = '\0';
    if (!is_json_number(digits)) {
        return fail_syntax(r, "a finite number as the piece's score");
    }
    char *point = memchr(digits, '.', length);
    if (point != NULL) {
        *point = r->point;
    }
    *out = strtod(digits, NULL);
    r->at += length;
    return DK_OK;
}

static dk_status read_entries(reader *r, dk_vocab_text_fn *fn, void *context)
{
    if (!take(r, '[')) {
        return fail_syntax(r, "'['");
    }
    if (take(r, ']')) {
        return DK_OK;
    }
    do {
        const char *piece = NULL;
        size_t length = 0;
        double score = 0;
        if (!take(r, '[')) {
            return fail_syntax(r, "[piece, score]");
        }
        DK_TRY(read_string(r, &piece, &length));
        if (!take(r, ',')) {
            return fail_syntax(r, "',' and a score");
        }
        DK_TRY(read_number(r, &score));
        if (!take(r, ']')) {
            return fail_syntax(r, "']' behind the score");
        }
        DK_TRY(fn(context, piece, length, score, r->where, r->err));
    } while (take(r, ','));
    return take(r, ']') ? DK_OK : fail_syntax(r, "',' or ']'");
}

dk_status dk_vocab_text_read(const char *text, size_t size, const char *where,
                             dk_vocab_text_fn *fn, void *context, dk_error *err)
{
    reader r = {.text = text, .size = size, .where = where, .point = '.', .err = err};
    const char *point = localeconv()->decimal_point;
    if (point[0] != '\0' && point[1] == '\0') {
        r.point = point[0];
    }
    dk_status status = read_entries(&r, fn, context);
    if (status == DK_OK && r.at != size) {
        status = fail_syntax(&r, "nothing behind the array");
    }
    dk_string_release(&r.unescaped);
    return status;
}
