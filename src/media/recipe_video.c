/* Recipes inside MP4 (ISO 14496-12 boxes; the comment as QuickTime's item list has it) and WebM
   (EBML elements; a SimpleTag "COMMENT"). Walks end at the first part that does not fit. */
#include <stdbool.h>
#include <string.h>

#include "media/formats.h"

/* A part of the file, borrowed from it. */
typedef struct span {
    const uint8_t *data;
    size_t size;
} span;

static span skip(span s, size_t bytes)
{
    return bytes <= s.size ? (span){s.data + bytes, s.size - bytes} : (span){s.data, 0};
}

static uint64_t big(const uint8_t *data, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value = value << 8 | data[i];
    }
    return value;
}

/* Takes the next box off `rest`: its type and content. A size of 1 means that 64 bits follow, 0
   that the box is the rest. */
static bool next_box(span *rest, uint32_t *type, span *content)
{
    size_t head = 8;
    if (rest->size < head) {
        return false;
    }
    uint64_t size = big(rest->data, 4);
    *type = (uint32_t)big(rest->data + 4, 4);
    if (size == 1 && rest->size >= 16) {
        head = 16;
        size = big(rest->data + 8, 8);
    } else if (size == 0) {
        size = rest->size;
    }
    if (size < head || size > rest->size) {
        return false;
    }
    *content = (span){rest->data + head, (size_t)size - head};
    *rest = skip(*rest, (size_t)size);
    return true;
}

dk_status dk_mp4_recipe(dk_string *out, const uint8_t *data, size_t size, const char *where,
                        dk_error *err)
{
    /* moov > udta > meta > ilst > ©cmt > data > text; `before` bytes stand before what is
       inside. */
    static const struct {
        uint32_t type;
        size_t before;
    } path[] = {{0x6D6F6F76, 0}, {0x75647461, 0}, {0x6D657461, 4},
                {0x696C7374, 0}, {0xA9636D74, 0}, {0x64617461, 8}};
    enum { DEPTH = sizeof path / sizeof *path };
    span inside = {data, size};
    for (int depth = 0; depth < DEPTH; depth++) {
        span content = {NULL, 0};
        uint32_t type = 0;
        while (type != path[depth].type) {
            if (!next_box(&inside, &type, &content)) {
                return DK_OK;
            }
        }
        inside = skip(content, path[depth].before);
    }
    return dk_recipe_append(out, inside.data, inside.size, where, err);
}

/* An EBML number of 1 to 8 bytes; its first byte's leading zeros tell how many. `keep_marker`:
   element numbers include the leading one. All ones mean "unknown". */
static bool next_number(span *rest, uint64_t *value, bool keep_marker, bool *unknown)
{
    int bytes = 1;
    if (rest->size == 0 || rest->data[0] == 0) {
        return false;
    }
    while ((rest->data[0] << bytes & 0x100) == 0) {
        bytes++;
    }
    if (rest->size < (size_t)bytes) {
        return false;
    }
    uint64_t marker = (uint64_t)1 << (7 * bytes);
    uint64_t all = big(rest->data, bytes);
    *unknown = all == 2 * marker - 1;
    *value = keep_marker ? all : all - marker;
    *rest = skip(*rest, (size_t)bytes);
    return true;
}

static bool next_element(span *rest, uint64_t *id, span *content)
{
    uint64_t size;
    bool unknown;
    if (!next_number(rest, id, true, &unknown) || !next_number(rest, &size, false, &unknown)) {
        return false;
    }
    if (unknown) {
        size = rest->size;
    }
    if (size > rest->size) {
        return false;
    }
    *content = (span){rest->data, (size_t)size};
    *rest = skip(*rest, (size_t)size);
    return true;
}

enum { SEGMENT = 0x18538067, TAGS = 0x1254C367, TAG = 0x7373, SIMPLE_TAG = 0x67C8 };
enum { TAG_NAME = 0x45A3, TAG_STRING = 0x4487 };

static dk_status read_simple_tag(dk_string *out, span tag, const char *where, dk_error *err)
{
    static const char name[] = "COMMENT";
    uint64_t id;
    span content, text = {NULL, 0};
    bool is_comment = false;
    while (next_element(&tag, &id, &content)) {
        if (id == TAG_NAME) {
            is_comment =
                content.size == strlen(name) && memcmp(content.data, name, strlen(name)) == 0;
        } else if (id == TAG_STRING) {
            text = content;
        }
    }
    return is_comment ? dk_recipe_append(out, text.data, text.size, where, err) : DK_OK;
}

static dk_status read_tags(dk_string *out, span tags, const char *where, dk_error *err)
{
    uint64_t id, inner_id;
    span tag, simple;
    while (out->length == 0 && next_element(&tags, &id, &tag)) {
        while (id == TAG && out->length == 0 && next_element(&tag, &inner_id, &simple)) {
            if (inner_id == SIMPLE_TAG) {
                DK_TRY(read_simple_tag(out, simple, where, err));
            }
        }
    }
    return DK_OK;
}

dk_status dk_webm_recipe(dk_string *out, const uint8_t *data, size_t size, const char *where,
                         dk_error *err)
{
    span file = {data, size}, segment, content;
    uint64_t id = 0;
    while (id != SEGMENT) {
        if (!next_element(&file, &id, &segment)) {
            return DK_OK;
        }
    }
    while (out->length == 0 && next_element(&segment, &id, &content)) {
        if (id == TAGS) {
            DK_TRY(read_tags(out, content, where, err));
        }
    }
    return DK_OK;
}
