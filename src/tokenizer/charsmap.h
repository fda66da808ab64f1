/* The precompiled character map of SentencePiece: a double-array trie (darts-clone) from byte
   sequences to offsets in a block of NUL-separated replacement strings. */
#ifndef DK_TOKENIZER_CHARSMAP_H
#define DK_TOKENIZER_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/string.h"

typedef struct dk_charsmap {
    uint32_t *units; /* owned */
    size_t unit_count;
    char *strings; /* owned; NUL behind its end */
    size_t strings_length;
} dk_charsmap;

/* Reads the map: u32 trie size in bytes, the trie, the strings. `where` is for the messages. */
DK_MUST_USE dk_status dk_charsmap_init(dk_charsmap *out, const unsigned char *bytes,
                                       size_t size, const char *where, dk_error *err);
DK_MUST_USE dk_status dk_charsmap_init_base64(dk_charsmap *out, const char *text, size_t size,
                                              const char *where, dk_error *err);
void dk_charsmap_release(dk_charsmap *map);

/* The replacement of the longest (or shortest) entry that starts `text`, NUL-terminated and
   borrowed from the map, and that entry's length; NULL when there is none. */
const char *dk_charsmap_find(const dk_charsmap *map, const char *text, size_t size,
                             bool longest, size_t *length);

/* Appends the normalised text as the tokenizers library does it (crate spm_precompiled): a
   grapheme cluster of fewer than six bytes is replaced whole by what its shortest prefix maps
   to; else every character by itself. False when out would pass `limit` bytes. */
DK_MUST_USE bool dk_charsmap_apply(const dk_charsmap *map, dk_string *out, const char *text,
                                   size_t size, size_t limit);

#endif
