/* Log lines. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void dk_log_line(const dk_log *log, dk_log_level level, const char *format, ...)
{
    if (log == NULL || log->write == NULL || level > log->level) {
        return;
    }
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    dk_make_printable(line);
    log->write(log->context, level, line);
}
