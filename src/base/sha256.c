/* Checksums by libcrypto. */
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

enum { PIECE_BYTES = 1 << 20 };

static dk_status start(dk_digest *digest, const EVP_MD *algorithm, dk_error *err)
{
    digest->context = EVP_MD_CTX_new();
    if (digest->context == NULL || EVP_DigestInit_ex(digest->context, algorithm, NULL) != 1) {
        dk_digest_release(digest);
        return dk_fail(err, DK_INTERNAL, "libcrypto does not offer the checksum");
    }
    return DK_OK;
}

dk_status dk_sha256_init(dk_digest *digest, dk_error *err)
{
    return start(digest, EVP_sha256(), err);
}

dk_status dk_sha1_init(dk_digest *digest, dk_error *err)
{
    return start(digest, EVP_sha1(), err);
}

void dk_digest_update(dk_digest *digest, const void *bytes, size_t size)
{
    EVP_DigestUpdate(digest->context, bytes, size);
}

void dk_digest_final(dk_digest *digest, char *hex)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    EVP_DigestFinal_ex(digest->context, sum, &length);
    for (unsigned i = 0; i < length; i++) {
        hex[2 * i] = digits[sum[i] >> 4];
        hex[2 * i + 1] = digits[sum[i] & 15];
    }
    hex[2 * length] = '\0';
    dk_digest_release(digest);
}

void dk_digest_release(dk_digest *digest)
{
    EVP_MD_CTX_free(digest->context);
    digest->context = NULL;
}

static dk_status add_file(dk_digest *digest, int fd, const char *path, dk_error *err)
{
    char *piece = dk_alloc(PIECE_BYTES);
    dk_status status = DK_OK;
    for (;;) {
        ssize_t got = read(fd, piece, PIECE_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            status = dk_fail(err, DK_IO, "%s: %s", path, strerror(errno));
        }
        if (got <= 0) {
            break;
        }
        dk_digest_update(digest, piece, (size_t)got);
    }
    dk_free(piece);
    return status;
}

dk_status dk_sha256_file(char hex[DK_SHA256_HEX_BYTES], const char *path, dk_error *err)
{
    dk_digest digest = {0};
    dk_status status = DK_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return dk_fail(err, errno == ENOENT ? DK_NOT_FOUND : DK_IO, "%s: %s", path,
                       strerror(errno));
    }
    DK_TRY_DONE(dk_sha256_init(&digest, err));
    DK_TRY_DONE(add_file(&digest, fd, path, err));
    dk_digest_final(&digest, hex);
done:
    dk_digest_release(&digest);
    close(fd);
    return status;
}
