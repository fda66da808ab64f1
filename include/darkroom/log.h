/* Log lines of the library. */
#ifndef DARKROOM_LOG_H
#define DARKROOM_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dk_log_level {
    DK_LOG_ERROR,
    DK_LOG_WARNING,
    DK_LOG_INFO,
    DK_LOG_DEBUG
} dk_log_level;

/* One line without a final newline; `line` is borrowed for the call. May come from any thread.
 */
typedef void dk_log_fn(void *context, dk_log_level level, const char *line);

#ifdef __cplusplus
}
#endif

#endif
