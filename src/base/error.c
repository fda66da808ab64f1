/* The status list and the error message. */
#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct status_fact {
    int exit_code, http;
    const char *text;
} status_fact;

static const status_fact facts[DK_STATUS_COUNT] = {[DK_OK] = {0, 200, "ok"},
#define DK_STATUS_FACT(name, exit_code, http, text) [DK_##name] = {exit_code, http, text},
                                                   DK_STATUS_MAP(DK_STATUS_FACT)
#undef DK_STATUS_FACT
};

static const status_fact *fact_of(dk_status status)
{
    return (int)status >= 0 && status < DK_STATUS_COUNT ? &facts[status] : &facts[DK_INTERNAL];
}

const char *dk_status_text(dk_status status)
{
    return fact_of(status)->text;
}

int dk_status_exit_code(dk_status status)
{
    return fact_of(status)->exit_code;
}

int dk_status_http(dk_status status)
{
    return fact_of(status)->http;
}

/* Bytes of the printable UTF-8 character at p, or 0 when there is none. */
static int character(const unsigned char *p)
{
    int length = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] >= 0x80 && p[0] < 0xc2) {
        return 0; /* not the first byte of a character */
    }
    unsigned code = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0; /* also at the end of the text */
        }
        code = code << 6 | (p[i] & 0x3fu);
    }
    static const unsigned least[] = {0x20, 0xa0, 0x800, 0x10000};
    bool surrogate = code >= 0xd800 && code < 0xe000;
    bool valid = code >= least[length - 1] && code <= 0x10ffff && code != 0x7f && !surrogate;
    return valid ? length : 0;
}

void dk_make_printable(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p != '\0';) {
        int length = character(p);
        if (length == 0) {
            *p = '?';
        }
        p += length > 0 ? length : 1;
    }
}

/* Formats into text; what does not fit is cut off between two characters. */
static void format_line(char *text, size_t size, const char *format, va_list args)
{
    int length = vsnprintf(text, size, format, args);
    if (length >= 0 && (size_t)length >= size) {
        size_t end = size - 1;
        for (int i = 0; i < 3 && ((unsigned char)text[end - 1] & 0xc0) == 0x80; i++) {
            end--;
        }
        if (((unsigned char)text[end - 1] & 0xc0) == 0xc0 &&
            character((unsigned char *)text + end - 1) == 0) {
            text[end - 1] = '\0';
        }
    }
    dk_make_printable(text);
}

static void put_line(char *text, size_t size, const char *format, ...) DK_PRINTF(3, 4);
static void put_line(char *text, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    format_line(text, size, format, args);
    va_end(args);
}

dk_status dk_fail(dk_error *err, dk_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->status = status;
        format_line(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return status;
}

dk_status dk_fail_in(dk_error *err, dk_status status, const char *format, ...)
{
    if (err != NULL) {
        char prefix[sizeof err->message], message[sizeof err->message];
        va_list args;
        va_start(args, format);
        format_line(prefix, sizeof prefix, format, args);
        va_end(args);
        memcpy(message, err->message, sizeof message);
        put_line(err->message, sizeof err->message, "%s: %s", prefix, message);
        err->status = status;
    }
    return status;
}
