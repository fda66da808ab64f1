/* The status list and the error message. */
#include "base/error.h"

#include <stdarg.h>
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

/* One printable line: control characters become '?'. */
static void sanitize(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p != '\0'; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
}

dk_status dk_fail(dk_error *err, dk_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        err->status = status;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        sanitize(err->message);
    }
    return status;
}

dk_status dk_fail_in(dk_error *err, dk_status status, const char *format, ...)
{
    if (err != NULL) {
        char prefix[sizeof err->message], joined[2 * sizeof err->message + 2];
        va_list args;
        va_start(args, format);
        vsnprintf(prefix, sizeof prefix, format, args);
        va_end(args);
        snprintf(joined, sizeof joined, "%s: %s", prefix, err->message);
        joined[sizeof err->message - 1] = '\0';
        memcpy(err->message, joined, sizeof err->message);
        err->status = status;
        sanitize(err->message);
    }
    return status;
}
