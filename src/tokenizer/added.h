/* Added tokens: texts that are recognised before (or, where "normalized" is set, after)
   normalisation and never cut. Rules of the tokenizers library, AddedVocabulary. */
#ifndef DK_TOKENIZER_ADDED_H
#define DK_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/vocab.h"

typedef struct dk_added_token {
    char *content; /* owned by the list */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} dk_added_token;

typedef struct dk_added {
    dk_added_token *tokens; /* owned */
    size_t count, capacity;
    dk_vocab raw, normalized; /* content → index in tokens */
} dk_added;

/* A part of a text: a token (id >= 0) or text between tokens (id -1). */
typedef struct dk_span {
    size_t start, end;
    int32_t id;
} dk_span;

typedef struct dk_spans {
    dk_span *items; /* owned */
    size_t count, capacity;
} dk_spans;

void dk_added_release(dk_added *added);

enum { DK_ADDED_MAX = 16384 };

/* Appends a copy of token (its content is copied too); an empty content and one already there
   are ignored. DK_FORMAT when there are more than DK_ADDED_MAX. */
DK_MUST_USE dk_status dk_added_put(dk_added *added, const dk_added_token *token,
                                   const char *where, dk_error *err);
const dk_added_token *dk_added_find(const dk_added *added, const char *content);

/* To be called once, after the last token and before the first split: normalises the contents
   that are matched after normalisation. */
DK_MUST_USE dk_status dk_added_finish(dk_added *added, const dk_normalizer *normalizer,
                                      dk_error *err);

/* Cuts text at the tokens of one of the two vocabularies; leftmost match, longest first. Empty
   parts are left out. *spans is cleared first. */
void dk_added_split(const dk_added *added, const dk_vocab *vocab, const char *text, size_t size,
                    dk_spans *spans);
void dk_spans_release(dk_spans *spans);

#endif
