/* Character references, followed from Python's html module (_charref, _replace_charref) and
   ftfy 6.3 (fixes.unescape_html). */
#include "tokenizer/html.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/entities.h"
#include "tokenizer/mojibake.h"
#include "tokenizer/utf8.h"

enum { NAME_MAX_CHARACTERS = 32, STRICT_MAX_CHARACTERS = 24, LONGEST_NAME = 40 };

/* Sought in a table that is sorted by name. */
typedef struct lookup {
    const char *text;
    size_t length;
} lookup;

static int compare_name(const void *key, const void *element)
{
    const lookup *k = key;
    const char *name = ((const dk_entity *)element)->name;
    int order = strncmp(k->text, name, k->length);
    return order != 0 ? order : name[k->length] == '\0' ? 0 : -1;
}

static const char *find_name(const dk_entity *table, size_t count, const char *text,
                             size_t length)
{
    if (length > LONGEST_NAME || memchr(text, '\0', length) != NULL) {
        return NULL;
    }
    lookup key = {text, length};
    const dk_entity *found = bsearch(&key, table, count, sizeof(*table), compare_name);
    return found != NULL ? found->text : NULL;
}

static void append_number(dk_string *out, uint32_t number)
{
    if (number >= 0x80 && number <= 0x9F) {
        dk_utf8_append(out, dk_windows_1252(number)); /* so the standard says */
    } else if (number == 0 || (number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF) {
        dk_utf8_append(out, 0xFFFD);
    } else if (number < 0x09 || number == 0x0B || (number >= 0x0E && number < 0x20) ||
               number == 0x7F || (number >= 0xFDD0 && number <= 0xFDEF) ||
               (number & 0xFFFE) == 0xFFFE) {
        return; /* characters that the standard forbids become nothing */
    } else {
        dk_utf8_append(out, number);
    }
}

static int digit_value(char c, bool hex)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (hex && c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return hex && c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* text starts with "&#". Returns the length of the reference, 0 when it is none. */
static size_t read_number(const char *text, size_t size, uint32_t *out)
{
    bool hex = size > 2 && (text[2] == 'x' || text[2] == 'X');
    size_t start = hex ? 3 : 2, at = start;
    *out = 0;
    for (int value; at < size && (value = digit_value(text[at], hex)) >= 0; at++) {
        if (*out <= 0x10FFFF) { /* larger numbers are all alike */
            *out = *out * (hex ? 16 : 10) + (uint32_t)value;
        }
    }
    if (at == start) {
        return 0;
    }
    return at < size && text[at] == ';' ? at + 1 : at;
}

/* The end of [^\t\n\f <&#;]{1,32};? behind "&"; `at` when nothing fits. */
static size_t name_end(const char *text, size_t size, size_t at)
{
    size_t start = at;
    for (int count = 0; count < NAME_MAX_CHARACTERS && at < size; count++) {
        if (text[at] != '\0' && strchr("\t\n\f <&#;", text[at]) != NULL) {
            break;
        }
        at += dk_utf8_length((unsigned char)text[at]);
    }
    return at > start && at < size && text[at] == ';' ? at + 1 : at;
}

/* name[0..length) is what follows "&": replaced whole, or by its longest known start. */
static void append_named(dk_string *out, const char *name, size_t length)
{
    for (size_t known = length; known >= 2; known--) {
        const char *text = find_name(dk_entities_html5, dk_entities_html5_count, name, known);
        if (text != NULL) {
            dk_string_puts(out, text);
            dk_string_append(out, name + known, length - known);
            return;
        }
    }
    dk_string_putc(out, '&');
    dk_string_append(out, name, length);
}

void dk_html_unescape(dk_string *out, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        const char *next = memchr(text + at, '&', size - at);
        size_t found = next != NULL ? (size_t)(next - text) : size;
        dk_string_append(out, text + at, found - at);
        at = found;
        if (at == size) {
            break;
        }
        uint32_t number;
        size_t length = 0;
        if (at + 1 < size && text[at + 1] == '#') {
            length = read_number(text + at, size - at, &number);
            if (length > 0) {
                append_number(out, number);
            }
        } else {
            length = name_end(text, size, at + 1) - at;
            if (length > 1) {
                append_named(out, text + at + 1, length - 1);
            }
        }
        if (length <= 1) {
            dk_string_putc(out, '&');
            length = 1;
        }
        at += length;
    }
}

static bool is_ascii_alphanumeric(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* The length of "&#?[0-9A-Za-z]{1,24};" at the start of text, 0 when it is none. */
static size_t strict_length(const char *text, size_t size)
{
    size_t start = size > 1 && text[1] == '#' ? 2 : 1, at = start;
    while (at < size && at - start < STRICT_MAX_CHARACTERS && is_ascii_alphanumeric(text[at])) {
        at++;
    }
    return at > start && at < size && text[at] == ';' ? at + 1 : 0;
}

void dk_html_unescape_strict(dk_string *out, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t length = text[at] == '&' ? strict_length(text + at, size - at) : 0;
        if (length == 0) {
            dk_string_putc(out, text[at++]);
            continue;
        }
        const char *known = NULL;
        uint32_t number;
        if (text[at + 1] != '#') {
            const char *name = text + at + 1;
            known = find_name(dk_entities_html5, dk_entities_html5_count, name, length - 1);
            if (known == NULL) {
                known = find_name(dk_entities_upper, dk_entities_upper_count, name, length - 1);
            }
        } else if (read_number(text + at, length, &number) == length && number != ';') {
            append_number(out, number);
            known = "";
        }
        if (known != NULL) {
            dk_string_puts(out, known);
        } else {
            dk_string_append(out, text + at, length);
        }
        at += length;
    }
}
