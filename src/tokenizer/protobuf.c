/* The protobuf reader (protobuf.dev, "Encoding"). */
#include "tokenizer/protobuf.h"

#include <string.h>

static bool read_varint(dk_protobuf *reader, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && reader->at < reader->size; shift += 7) {
        unsigned char byte = reader->bytes[reader->at++];
        *out |= (uint64_t)(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            return true;
        }
    }
    return false;
}

static bool read_fixed(dk_protobuf *reader, size_t count, uint64_t *out)
{
    if (reader->size - reader->at < count) {
        return false;
    }
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        *out |= (uint64_t)reader->bytes[reader->at++] << (8 * i);
    }
    return true;
}

static bool read_field(dk_protobuf *reader, dk_protobuf_field *out)
{
    uint64_t tag;
    *out = (dk_protobuf_field){0};
    if (!read_varint(reader, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) {
        return false;
    }
    out->number = (uint32_t)(tag >> 3);
    out->wire = (unsigned)(tag & 7);
    switch (out->wire) {
    case DK_PROTOBUF_VARINT:
        return read_varint(reader, &out->value);
    case DK_PROTOBUF_64:
        return read_fixed(reader, 8, &out->value);
    case DK_PROTOBUF_32:
        return read_fixed(reader, 4, &out->value);
    case DK_PROTOBUF_BYTES:
        if (!read_varint(reader, &out->value) || out->value > reader->size - reader->at) {
            return false;
        }
        out->bytes = reader->bytes + reader->at;
        out->size = (size_t)out->value;
        reader->at += out->size;
        return true;
    default:
        return false; /* groups are not written any more */
    }
}

bool dk_protobuf_next(dk_protobuf *reader, dk_protobuf_field *out)
{
    if (reader->bad || reader->at >= reader->size) {
        return false;
    }
    if (!read_field(reader, out)) {
        reader->bad = true;
        return false;
    }
    return true;
}

float dk_protobuf_float(const dk_protobuf_field *field)
{
    uint32_t bits = (uint32_t)field->value;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}
