/* How the library reports failure: see style.md, "Errors". */
#ifndef DK_BASE_ERROR_H
#define DK_BASE_ERROR_H

#include "darkroom/error.h"

#define DK_MUST_USE           __attribute__((warn_unused_result))
#define DK_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

/* Writes status and message into err (when not NULL) and returns status. Control characters
   and bytes that are no UTF-8 are replaced, so that a hostile file name cannot forge a second
   line; a message that is too long is cut between two characters. */
dk_status dk_fail(dk_error *err, dk_status status, const char *format, ...) DK_PRINTF(3, 4);

/* Puts "prefix: " before the message that err already holds and returns its status. */
dk_status dk_fail_in(dk_error *err, dk_status status, const char *format, ...) DK_PRINTF(3, 4);

/* Replaces, in place, bytes that are no printable UTF-8: text from files, for a terminal. */
void dk_make_printable(char *text);

/* Passes a failure on as it is. Only for functions that own nothing at that point. */
#define DK_TRY(expr)                                                                           \
    do {                                                                                       \
        dk_status try_status_ = (expr);                                                        \
        if (try_status_ != DK_OK) {                                                            \
            return try_status_;                                                                \
        }                                                                                      \
    } while (0)

/* The same for owners: jumps to the `done` label with the failure in `status`. */
#define DK_TRY_DONE(expr)                                                                      \
    do {                                                                                       \
        status = (expr);                                                                       \
        if (status != DK_OK) {                                                                 \
            goto done;                                                                         \
        }                                                                                      \
    } while (0)

#endif
