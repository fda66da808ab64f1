/* The growing byte string. */
#include "base/string.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static void reserve(dk_string *string, size_t extra)
{
    size_t need = string->length + extra + 1;
    if (need > string->capacity) {
        size_t capacity = string->capacity > 0 ? string->capacity : 64;
        while (capacity < need) {
            capacity *= 2;
        }
        string->data = dk_realloc(string->data, capacity);
        string->capacity = capacity;
    }
}

void dk_string_release(dk_string *string)
{
    dk_free(string->data);
    *string = DK_STRING_EMPTY;
}

void dk_string_clear(dk_string *string)
{
    string->length = 0;
    if (string->data != NULL) {
        string->data[0] = '\0';
    }
}

void dk_string_append(dk_string *string, const char *bytes, size_t length)
{
    reserve(string, length);
    if (length > 0) {
        memcpy(string->data + string->length, bytes, length);
    }
    string->length += length;
    string->data[string->length] = '\0';
}

void dk_string_puts(dk_string *string, const char *text)
{
    dk_string_append(string, text, strlen(text));
}

void dk_string_putc(dk_string *string, char c)
{
    dk_string_append(string, &c, 1);
}

void dk_string_printf(dk_string *string, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length > 0) {
        reserve(string, (size_t)length);
        vsnprintf(string->data + string->length, (size_t)length + 1, format, again);
        string->length += (size_t)length;
    }
    va_end(again);
}

const char *dk_string_text(const dk_string *string)
{
    return string->data != NULL ? string->data : "";
}

char *dk_string_take(dk_string *string)
{
    reserve(string, 0);
    char *text = string->data;
    text[string->length] = '\0';
    *string = DK_STRING_EMPTY;
    return text;
}

bool dk_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool dk_ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && memcmp(text + length - tail, suffix, tail) == 0;
}
