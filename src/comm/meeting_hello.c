/* What a rank says first. */
#include <string.h>

#include "base/sha256.h"
#include "comm/meeting.h"

static const unsigned char magic[8] = {'D', 'K', 'm', 'e', 'e', 't', '\r', '\n'};
enum {
    VERSION_AT = sizeof magic,
    RANK_AT = VERSION_AT + 4,
    RANKS_AT = RANK_AT + 4,
    KEY_AT = RANKS_AT + 4
};

dk_status dk_meeting_hello_write(unsigned char out[DK_MEETING_HELLO_BYTES],
                                 const dk_rendezvous_options *options, dk_error *err)
{
    static const char purpose[] = "darkroom meeting:";
    const char *key = options->key != NULL ? options->key : "";
    char hex[DK_SHA256_HEX_BYTES];
    dk_digest digest = {0};
    DK_TRY(dk_sha256_init(&digest, err));
    dk_digest_update(&digest, purpose, strlen(purpose));
    dk_digest_update(&digest, key, strlen(key));
    dk_digest_final(&digest, hex);
    memcpy(out, magic, sizeof magic);
    dk_put_u32(out + VERSION_AT, DK_MEETING_VERSION);
    dk_put_u32(out + RANK_AT, (uint32_t)options->rank);
    dk_put_u32(out + RANKS_AT, (uint32_t)options->ranks);
    memcpy(out + KEY_AT, hex, DK_MEETING_KEY_BYTES);
    return DK_OK;
}

bool dk_meeting_hello_begins(const unsigned char *bytes, size_t got)
{
    return memcmp(bytes, magic, got < sizeof magic ? got : sizeof magic) == 0;
}

dk_meeting_hello dk_meeting_hello_read(const unsigned char bytes[DK_MEETING_HELLO_BYTES])
{
    dk_meeting_hello hello = {.version = dk_get_u32(bytes + VERSION_AT),
                              .rank = dk_get_u32(bytes + RANK_AT),
                              .ranks = dk_get_u32(bytes + RANKS_AT)};
    memcpy(hello.key, bytes + KEY_AT, DK_MEETING_KEY_BYTES);
    return hello;
}
