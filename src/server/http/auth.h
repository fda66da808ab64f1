/* API keys. Only their checksums are kept. */
#ifndef DK_SERVER_HTTP_AUTH_H
#define DK_SERVER_HTTP_AUTH_H

#include <stdbool.h>

#include "base/error.h"
#include "base/sha256.h"
#include "server/http/http.h"

typedef struct dk_http_auth {
    char (*keys)[DK_SHA256_HEX_BYTES]; /* [count], owned */
    int count;
} dk_http_auth;

/* DK_INVALID: an empty key, or one that no header can carry. */
DK_MUST_USE dk_status dk_http_auth_init(dk_http_auth *auth, const char *const *keys, int count,
                                        dk_error *err);
void dk_http_auth_release(dk_http_auth *auth);

/* Checks "Bearer KEY" (header may be NULL). True: let in; name is the key's name, "" when no
   keys are configured. Takes the same time whichever key is near. */
bool dk_http_auth_check(const dk_http_auth *auth, const char *header,
                        char name[DK_HTTP_KEY_BYTES]);

#endif
