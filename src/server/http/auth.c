/* API keys: checksums are compared, all of them, in constant time. */
#include "server/http/auth.h"

#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"

static bool digest_key(const char *key, char hex[DK_SHA256_HEX_BYTES], dk_error *err)
{
    dk_digest digest;
    if (dk_sha256_init(&digest, err) != DK_OK) {
        return false;
    }
    dk_digest_update(&digest, key, strlen(key));
    dk_digest_final(&digest, hex);
    return true;
}

dk_status dk_http_auth_init(dk_http_auth *auth, const char *const *keys, int count,
                            dk_error *err)
{
    dk_status status = DK_OK;
    *auth = (dk_http_auth){.count = count};
    auth->keys = dk_alloc(((size_t)count + 1) * sizeof *auth->keys);
    for (int i = 0; i < count; i++) {
        if (keys[i][0] == '\0') {
            status = dk_fail(err, DK_INVALID, "API key %d is empty", i + 1);
            goto done;
        }
        for (const char *p = keys[i]; *p != '\0'; p++) {
            if (*p <= ' ' || *p > '~') {
                status = dk_fail(err, DK_INVALID,
                                 "API key %d holds a character that no header carries, "
                                 "accepted are printable ASCII characters without spaces",
                                 i + 1);
                goto done;
            }
        }
        if (!digest_key(keys[i], auth->keys[i], err)) {
            status = DK_INTERNAL;
            goto done;
        }
    }
done:
    if (status != DK_OK) {
        dk_http_auth_release(auth);
    }
    return status;
}

void dk_http_auth_release(dk_http_auth *auth)
{
    dk_free(auth->keys);
    *auth = (dk_http_auth){0};
}

bool dk_http_auth_check(const dk_http_auth *auth, const char *header,
                        char name[DK_HTTP_KEY_BYTES])
{
    char hex[DK_SHA256_HEX_BYTES];
    name[0] = '\0';
    if (auth->count == 0) {
        return true;
    }
    if (header == NULL || strncasecmp(header, "Bearer ", 7) != 0) {
        return false;
    }
    const char *key = header + 7 + strspn(header + 7, " ");
    if (!digest_key(key, hex, NULL)) {
        return false;
    }
    bool known = false;
    for (int i = 0; i < auth->count; i++) {
        bool same = CRYPTO_memcmp(hex, auth->keys[i], sizeof hex - 1) == 0;
        known = known || same;
    }
    if (known) {
        memcpy(name, hex, DK_HTTP_KEY_BYTES - 1);
        name[DK_HTTP_KEY_BYTES - 1] = '\0';
    }
    return known;
}
