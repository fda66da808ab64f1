/* Log lines go to a callback of the engine's owner; the library itself never prints. */
#ifndef DK_BASE_LOG_H
#define DK_BASE_LOG_H

#include "base/error.h"
#include "darkroom/log.h"

typedef struct dk_log {
    dk_log_fn *write; /* may be NULL: silence */
    void *context;
    dk_log_level level; /* lines above it are dropped */
} dk_log;

/* log may be NULL. The line is formatted only when somebody listens. */
void dk_log_line(const dk_log *log, dk_log_level level, const char *format, ...)
    DK_PRINTF(3, 4);

#define dk_log_warn(log, ...)  dk_log_line(log, DK_LOG_WARNING, __VA_ARGS__)
#define dk_log_info(log, ...)  dk_log_line(log, DK_LOG_INFO, __VA_ARGS__)
#define dk_log_debug(log, ...) dk_log_line(log, DK_LOG_DEBUG, __VA_ARGS__)

#endif
