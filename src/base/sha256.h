/* Checksums by libcrypto: SHA-256 for files and recipes, SHA-1 because Git names small files
   by it. */
#ifndef DK_BASE_SHA256_H
#define DK_BASE_SHA256_H

#include <stddef.h>

#include "base/error.h"

enum { DK_SHA256_HEX_BYTES = 65, DK_SHA1_HEX_BYTES = 41 }; /* with the final NUL */

/* A checksum that grows with its input. */
typedef struct dk_digest {
    struct evp_md_ctx_st *context; /* owned; NULL after release */
} dk_digest;

/* Either one starts a digest; fails (DK_INTERNAL) only when libcrypto refuses the algorithm. */
DK_MUST_USE dk_status dk_sha256_init(dk_digest *digest, dk_error *err);
DK_MUST_USE dk_status dk_sha1_init(dk_digest *digest, dk_error *err);
void dk_digest_update(dk_digest *digest, const void *bytes, size_t size);
/* Lower-case digits into hex (65 bytes for SHA-256, 41 for SHA-1); the digest is released. */
void dk_digest_final(dk_digest *digest, char *hex);
void dk_digest_release(dk_digest *digest); /* also fine for a zeroed or released one */

/* SHA-256 of a file's content, read in pieces. */
DK_MUST_USE dk_status dk_sha256_file(char hex[DK_SHA256_HEX_BYTES], const char *path,
                                     dk_error *err);

#endif
