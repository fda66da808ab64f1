/* A reader of protobuf messages: fields one by one, every length checked against the message.
 */
#ifndef DK_TOKENIZER_PROTOBUF_H
#define DK_TOKENIZER_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dk_protobuf {
    const unsigned char *bytes; /* borrowed */
    size_t size, at;
    bool bad; /* set when the message does not parse; nothing is read any more */
} dk_protobuf;

enum { DK_PROTOBUF_VARINT = 0, DK_PROTOBUF_64 = 1, DK_PROTOBUF_BYTES = 2, DK_PROTOBUF_32 = 5 };

typedef struct dk_protobuf_field {
    uint32_t number;
    unsigned wire;              /* one of the four above */
    uint64_t value;             /* of a varint or a fixed number */
    const unsigned char *bytes; /* borrowed; of DK_PROTOBUF_BYTES */
    size_t size;
} dk_protobuf_field;

/* The next field; false at the end or, with bad set, where the message is malformed. */
bool dk_protobuf_next(dk_protobuf *reader, dk_protobuf_field *out);

/* The value of a float field (DK_PROTOBUF_32). */
float dk_protobuf_float(const dk_protobuf_field *field);

#endif
