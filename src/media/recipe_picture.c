/* Recipes inside PNG, JPEG, WebP and GIF: walks over the parts of a file by their lengths.
   Every walk ends at the first part that does not fit into the file. */
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#include "media/formats.h"

static uint32_t big16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t big32(const uint8_t *p)
{
    return big16(p) << 16 | big16(p + 2);
}

static uint32_t little32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* One iTXt chunk: keyword NUL, compressed?, method, language NUL, translated keyword NUL,
   text. */
static dk_status png_text(dk_string *out, const uint8_t *body, size_t size, const char *where,
                          dk_error *err)
{
    static const char start[] = "darkroom\0\0"; /* its last NUL is the method */
    if (size < sizeof start || memcmp(body, start, sizeof start) != 0) {
        return DK_OK;
    }
    const uint8_t *end = body + size, *text = body + sizeof start;
    for (int skipped = 0; skipped < 2; skipped++) {
        text = text < end ? memchr(text, '\0', (size_t)(end - text)) : NULL;
        if (text == NULL) {
            return DK_OK;
        }
        text++;
    }
    return dk_recipe_append(out, text, (size_t)(end - text), where, err);
}

dk_status dk_png_recipe(dk_string *out, const uint8_t *data, size_t size, const char *where,
                        dk_error *err)
{
    enum { SIGNATURE = 8, HEAD = 8, TYPE = 4, CHECKSUM = 4 };
    size_t at = SIGNATURE;
    while (size - at >= HEAD + CHECKSUM && out->length == 0) {
        const uint8_t *chunk = data + at;
        size_t length = big32(chunk);
        if (length > size - at - HEAD - CHECKSUM) {
            break;
        }
        if (memcmp(chunk + TYPE, "iTXt", TYPE) == 0) {
            uint32_t stored = big32(chunk + HEAD + length);
            DK_TRY(png_text(out, chunk + HEAD, length, where, err));
            if (out->length > 0 && crc32_z(0, chunk + TYPE, TYPE + length) != stored) {
                return dk_fail(err, DK_FORMAT, "%s: the recipe's checksum is wrong", where);
            }
        }
        at += HEAD + length + CHECKSUM;
    }
    return DK_OK;
}

static bool is_marked(const uint8_t *text, size_t size)
{
    return size >= DK_RECIPE_MARK_BYTES &&
           memcmp(text, DK_RECIPE_MARK, DK_RECIPE_MARK_BYTES) == 0;
}

/* A segment's content: an XMP packet, or a piece of a recipe too long for one. */
static dk_status jpeg_segment(dk_string *out, int marker, const uint8_t *content, size_t size,
                              const char *where, dk_error *err)
{
    enum { APP1 = 0xE1, COMMENT = 0xFE, XMP_HEAD = sizeof DK_XMP_SIGNATURE };
    if (marker == APP1 && size >= XMP_HEAD &&
        memcmp(content, DK_XMP_SIGNATURE, XMP_HEAD) == 0) {
        return dk_xmp_recipe(out, content + XMP_HEAD, size - XMP_HEAD, where, err);
    }
    if (marker == COMMENT && is_marked(content, size)) {
        return dk_recipe_append(out, content + DK_RECIPE_MARK_BYTES,
                                size - DK_RECIPE_MARK_BYTES, where, err);
    }
    return DK_OK;
}

dk_status dk_jpeg_recipe(dk_string *out, const uint8_t *data, size_t size, const char *where,
                         dk_error *err)
{
    enum { SIGNATURE = 2, HEAD = 4, MARKER = 2, SCAN = 0xDA };
    size_t at = SIGNATURE;
    while (size - at >= HEAD) {
        const uint8_t *segment = data + at;
        size_t length = big16(segment + MARKER); /* counts itself */
        if (segment[0] != 0xFF || segment[1] == SCAN || length < 2 ||
            length > size - at - MARKER) {
            break;
        }
        DK_TRY(jpeg_segment(out, segment[1], segment + HEAD, length - MARKER, where, err));
        at += MARKER + length;
    }
    return DK_OK;
}

dk_status dk_webp_recipe(dk_string *out, const uint8_t *data, size_t size, const char *where,
                         dk_error *err)
{
    enum { SIGNATURE = 12, HEAD = 8, LENGTH = 4 };
    size_t at = SIGNATURE;
    while (size - at >= HEAD && out->length == 0) {
        const uint8_t *chunk = data + at;
        size_t length = little32(chunk + LENGTH);
        if (length > size - at - HEAD) {
            break;
        }
        if (memcmp(chunk, "XMP ", LENGTH) == 0) {
            DK_TRY(dk_xmp_recipe(out, chunk + HEAD, length, where, err));
        }
        at += HEAD + length;
        at += at < size ? length % 2 : 0; /* chunks are padded */
    }
    return DK_OK;
}

/* The length of a list of sub-blocks (one byte length, content; the last is empty), or 0 when
   it leaves the file. With out != NULL their contents are appended. */
static size_t gif_blocks(dk_string *out, const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (at < size && data[at] > 0) {
        size_t length = data[at];
        if (length >= size - at) {
            return 0;
        }
        if (out != NULL) {
            dk_string_append(out, (const char *)data + at + 1, length);
        }
        at += 1 + length;
    }
    return at < size ? at + 1 : 0;
}

static size_t gif_colors(uint8_t flags)
{
    return (flags & 0x80) != 0 ? (size_t)3 << ((flags & 7) + 1) : 0;
}

/* The content of a comment extension goes to `out` when it is ours. */
static dk_status gif_comment(dk_string *out, const uint8_t *blocks, size_t length,
                             const char *where, dk_error *err)
{
    dk_string text = DK_STRING_EMPTY;
    if (length > (size_t)2 * DK_MEDIA_RECIPE_BYTES) {
        return dk_fail(err, DK_FORMAT, "%s: a comment is longer than %d bytes", where,
                       DK_MEDIA_RECIPE_BYTES);
    }
    gif_blocks(&text, blocks, length);
    dk_status status = DK_OK;
    if (text.length > 0 && is_marked((const uint8_t *)text.data, text.length)) {
        status = dk_recipe_append(out, (const uint8_t *)text.data + DK_RECIPE_MARK_BYTES,
                                  text.length - DK_RECIPE_MARK_BYTES, where, err);
    }
    dk_string_release(&text);
    return status;
}

dk_status dk_gif_recipe(dk_string *out, const uint8_t *data, size_t size, const char *where,
                        dk_error *err)
{
    enum {
        HEAD = 13,
        HEAD_FLAGS = 10,
        EXTENSION = 0x21,
        EXTENSION_HEAD = 2,
        COMMENT = 0xFE,
        IMAGE = 0x2C,
        IMAGE_HEAD = 10,
        IMAGE_FLAGS = 9
    };
    size_t at = HEAD + (size > HEAD ? gif_colors(data[HEAD_FLAGS]) : 0);
    while (at < size && size - at > IMAGE_HEAD && out->length == 0) {
        const uint8_t *part = data + at;
        size_t head =
            part[0] == IMAGE ? IMAGE_HEAD + gif_colors(part[IMAGE_FLAGS]) + 1 : EXTENSION_HEAD;
        if ((part[0] != IMAGE && part[0] != EXTENSION) || head >= size - at) {
            break;
        }
        size_t length = gif_blocks(NULL, part + head, size - at - head);
        if (length == 0) {
            break;
        }
        if (part[0] == EXTENSION && part[1] == COMMENT) {
            DK_TRY(gif_comment(out, part + head, length, where, err));
        }
        at += head + length;
    }
    return DK_OK;
}
