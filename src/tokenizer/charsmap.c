/* SentencePiece's precompiled map; unit layout of darts-clone: bit 31 leaf, bits 0-7 label, bit
   8 has-leaf, bit 9 extends the offset in bits 10-30 by eight bits. Every index is checked at
   the search, because the trie comes from a file. */
#include "tokenizer/charsmap.h"

#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"
#include "tokenizer/utf8.h"

enum { CLUSTER_LIMIT = 6 }; /* bytes; spm_precompiled looks up only shorter clusters whole */

static uint32_t read_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

dk_status dk_charsmap_init(dk_charsmap *out, const unsigned char *bytes, size_t size,
                           const char *where, dk_error *err)
{
    if (size < 4) {
        return dk_fail(err, DK_FORMAT, "%s: the charsmap has %zu bytes, at least 4 are needed",
                       where, size);
    }
    uint32_t trie_bytes = read_u32(bytes);
    if (trie_bytes > size - 4 || trie_bytes % 4 != 0 || trie_bytes == 0) {
        return dk_fail(
            err, DK_FORMAT,
            "%s: the charsmap's trie takes %u bytes, expected a multiple of 4 up to %zu", where,
            (unsigned)trie_bytes, size - 4);
    }
    const char *strings = (const char *)bytes + 4 + trie_bytes;
    size_t strings_length = size - 4 - trie_bytes;
    if (dk_utf8_check(strings, strings_length, where, NULL) != DK_OK) {
        return dk_fail(err, DK_FORMAT, "%s: the charsmap's replacements are not valid UTF-8",
                       where);
    }
    out->unit_count = trie_bytes / 4;
    out->units = dk_alloc(trie_bytes);
    for (size_t i = 0; i < out->unit_count; i++) {
        out->units[i] = read_u32(bytes + 4 + 4 * i);
    }
    out->strings = dk_strndup(strings, strings_length);
    out->strings_length = strings_length;
    return DK_OK;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

dk_status dk_charsmap_init_base64(dk_charsmap *out, const char *text, size_t size,
                                  const char *where, dk_error *err)
{
    unsigned char *bytes = dk_alloc(size / 4 * 3 + 3);
    size_t length = 0, digits = size;
    while (digits > 0 && size - digits < 2 && text[digits - 1] == '=') {
        digits--;
    }
    uint32_t bits = 0;
    dk_status status = DK_OK;
    for (size_t i = 0; i < digits; i++) {
        int value = base64_value(text[i]);
        if (value < 0 || size % 4 != 0) {
            status = dk_fail(err, DK_FORMAT,
                             "%s: precompiled_charsmap is not base64 (byte %zu)", where, i);
            goto done;
        }
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 > 0) {
            bytes[length++] = (unsigned char)(bits >> (6 - i % 4 * 2));
        }
    }
    status = dk_charsmap_init(out, bytes, length, where, err);
done:
    dk_free(bytes);
    return status;
}

void dk_charsmap_release(dk_charsmap *map)
{
    dk_free(map->units);
    dk_free(map->strings);
    *map = (dk_charsmap){0};
}

static size_t unit_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1U << 9)) >> 6);
}

const char *dk_charsmap_find(const dk_charsmap *map, const char *text, size_t size,
                             bool longest, size_t *length)
{
    if (map->unit_count == 0) {
        return NULL;
    }
    const char *found = NULL;
    size_t node = unit_offset(map->units[0]);
    for (size_t i = 0; i < size && text[i] != '\0'; i++) {
        unsigned char label = (unsigned char)text[i];
        node ^= label;
        if (node >= map->unit_count) {
            break;
        }
        uint32_t unit = map->units[node];
        if ((unit & (1U << 31 | 0xFF)) != label) {
            break;
        }
        node ^= unit_offset(unit);
        if ((unit >> 8 & 1) == 0) {
            continue;
        }
        size_t value = node < map->unit_count ? map->units[node] & 0x7FFFFFFF : SIZE_MAX;
        if (value <= map->strings_length && (map->strings[value] & 0xC0) != 0x80) {
            found = map->strings + value;
            *length = i + 1;
            if (!longest) {
                break;
            }
        }
    }
    return found;
}

/* The end of the grapheme cluster that starts at `at`. */
static size_t cluster_end(const char *text, size_t size, size_t at)
{
    utf8proc_int32_t state = 0;
    uint32_t left, right;
    at += dk_utf8_decode(&left, text + at, size - at);
    while (at < size) {
        size_t length = dk_utf8_decode(&right, text + at, size - at);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)left, (utf8proc_int32_t)right,
                                             &state)) {
            break;
        }
        left = right;
        at += length;
    }
    return at;
}

bool dk_charsmap_apply(const dk_charsmap *map, dk_string *out, const char *text, size_t size,
                       size_t limit)
{
    size_t unused;
    for (size_t at = 0; at < size;) {
        if (out->length > limit) {
            return false;
        }
        size_t end = cluster_end(text, size, at);
        if (end - at < CLUSTER_LIMIT) {
            const char *mapped = dk_charsmap_find(map, text + at, end - at, false, &unused);
            if (mapped != NULL) {
                dk_string_puts(out, mapped);
                at = end;
                continue;
            }
        }
        while (at < end && out->length <= limit) {
            size_t length = dk_utf8_length((unsigned char)text[at]);
            const char *mapped = dk_charsmap_find(map, text + at, length, false, &unused);
            if (mapped != NULL) {
                dk_string_puts(out, mapped);
            } else {
                dk_string_append(out, text + at, length);
            }
            at += length;
        }
    }
    return out->length <= limit;
}
