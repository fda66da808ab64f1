/* Status codes and the caller-owned error message: the one list that the
   library, the command's exit codes and the HTTP replies share. */
#ifndef DARKROOM_ERROR_H
#define DARKROOM_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* name, exit code of the command, HTTP status, text */
#define DK_STATUS_MAP(X)                                                                       \
    X(INVALID, 2, 400, "invalid argument")                                                     \
    X(NOT_FOUND, 3, 404, "not found")                                                          \
    X(FORMAT, 4, 422, "malformed file")                                                        \
    X(UNSUPPORTED, 5, 501, "not supported")                                                    \
    X(IO, 6, 500, "input or output failed")                                                    \
    X(MEMORY, 7, 503, "out of memory")                                                         \
    X(DEVICE, 8, 500, "device failure")                                                        \
    X(NETWORK, 9, 502, "network failure")                                                      \
    X(DENIED, 10, 401, "access denied")                                                        \
    X(BUSY, 11, 429, "too many requests")                                                      \
    X(MISMATCH, 12, 409, "results differ")                                                     \
    X(INTERNAL, 13, 500, "internal error")                                                     \
    X(NO_SPACE, 14, 507, "no space left")                                                      \
    X(TIMEOUT, 15, 504, "out of time")                                                         \
    X(CANCELLED, 130, 499, "cancelled")

typedef enum dk_status {
    DK_OK = 0,
#define DK_STATUS_ENUM(name, exit_code, http, text) DK_##name,
    DK_STATUS_MAP(DK_STATUS_ENUM)
#undef DK_STATUS_ENUM
        DK_STATUS_COUNT
} dk_status;

enum { DK_ERROR_MESSAGE_BYTES = 1024 };

/* Filled in once, where the failure is known. Every function that takes one accepts NULL. */
typedef struct dk_error {
    dk_status status;
    char message[DK_ERROR_MESSAGE_BYTES]; /* one line of UTF-8, no final newline */
} dk_error;

/* Facts about a status; an unknown value reads as INTERNAL. The text is static. */
const char *dk_status_text(dk_status status);
int dk_status_exit_code(dk_status status);
int dk_status_http(dk_status status);

#ifdef __cplusplus
}
#endif

#endif
