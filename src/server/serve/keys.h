/* API keys of the server: from a flag and from a file. */
#ifndef DK_SERVER_SERVE_KEYS_H
#define DK_SERVER_SERVE_KEYS_H

#include "base/error.h"

typedef struct dk_serve_keys {
    const char **keys; /* [count]; texts are borrowed from the flag and from: */
    int count;
    char *text; /* owned: the file */
} dk_serve_keys;

/* One key per line; empty lines and those with # are passed over. */
DK_MUST_USE dk_status dk_serve_keys_read(dk_serve_keys *out, const char *key, const char *file,
                                         dk_error *err);
void dk_serve_keys_release(dk_serve_keys *keys);

#endif
