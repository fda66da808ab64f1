/* Messages between processes: a JSON object that names its type, and a few binary parts behind
   it. Nothing in a message can run code; every length is checked before it is used.

   {"v": 1, "type": "submit", …, "blobs": [18720]} and 18,720 bytes. On ZeroMQ each part is a
   frame; on a worker's socket lengths stand in front (pipe.h). The types and who sends them:
   protocol.md. */
#ifndef DK_SERVER_WIRE_MESSAGE_H
#define DK_SERVER_WIRE_MESSAGE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    DK_MESSAGE_VERSION = 1,
    DK_MESSAGE_MAX_BLOBS = 2,
    DK_MESSAGE_HEADER_BYTES = 4 * 1024 * 1024,
};
#define DK_MESSAGE_BLOB_BYTES ((uint64_t)4 << 30)

/* Binary parts of so many bytes are announced, since nothing else is heard on a network's
   connection while they are under way: by a message with their bytes as `coming`. */
enum { DK_MESSAGE_LARGE_BYTES = 1 << 20 };

typedef struct dk_blob {
    void *data; /* owned */
    size_t size;
} dk_blob;

typedef struct dk_message {
    json_t *header; /* owned */
    dk_blob blobs[DK_MESSAGE_MAX_BLOBS];
    int blob_count;
    int fd; /* owned; -1: none. Travels only through a pipe. */
} dk_message;

/* A message of a type; the caller adds members to header. */
void dk_message_init(dk_message *message, const char *type);
/* The same with members: json_pack's format and arguments, "{s:s, s:i}". */
void dk_message_pack(dk_message *message, const char *type, const char *format, ...);
void dk_message_release(dk_message *message); /* also fine for a zeroed or released one */

const char *dk_message_type(const dk_message *message);
/* Members; "" and `otherwise` when absent or of another kind. Borrowed. */
const char *dk_message_text(const dk_message *message, const char *key);
double dk_message_number(const dk_message *message, const char *key, double otherwise);
/* How long the connection may be silent for what the message announces: at 5 MB a second. */
double dk_message_coming_ms(const dk_message *message);

/* Adds a binary part. */
void dk_message_add_blob(dk_message *message, void *data /* taken, dk_free */, size_t size);

/* The file behind fd becomes a binary part: for whoever is on another host; fd becomes -1. */
DK_MUST_USE dk_status dk_message_take_in(dk_message *message, dk_error *err);
/* The other way round: the only binary part becomes memory behind fd. */
DK_MUST_USE dk_status dk_message_put_out(dk_message *message, dk_error *err);

/* The header as text, "blobs" included. Owned (dk_free). */
DK_MUST_USE dk_status dk_message_encode(const dk_message *message, char **text, size_t *size,
                                        dk_error *err);

/* Reads a header: version, type, "blobs". The sizes of the parts that must follow come back in
   sizes[*count]; out->blobs are still empty. DK_FORMAT: not a message. */
DK_MUST_USE dk_status dk_message_decode(dk_message *out, const void *text, size_t size,
                                        uint64_t sizes[DK_MESSAGE_MAX_BLOBS], int *count,
                                        dk_error *err);

#endif
