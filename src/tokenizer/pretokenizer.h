/* Pre-tokenizers: normalised text becomes the pieces that the model encodes one by one. */
#ifndef DK_TOKENIZER_PRETOKENIZER_H
#define DK_TOKENIZER_PRETOKENIZER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { DK_PRETOKENIZER_STEPS = 16 };

typedef enum dk_prepend { DK_PREPEND_ALWAYS, DK_PREPEND_FIRST, DK_PREPEND_NEVER } dk_prepend;

typedef struct dk_pretokenizer_step {
    bool whitespace_split; /* else Metaspace, with the members below */
    char replacement[5];   /* one character */
    dk_prepend prepend;
    bool split;
} dk_pretokenizer_step;

typedef struct dk_pretokenizer {
    dk_pretokenizer_step steps[DK_PRETOKENIZER_STEPS];
    size_t count;
} dk_pretokenizer;

/* `object` is the JSON value of "pre_tokenizer"; null or absent means none. */
DK_MUST_USE dk_status dk_pretokenizer_parse(dk_pretokenizer *out, const json_t *object,
                                            const char *where, dk_error *err);

/* Receives one piece, which is not empty; a failure ends the walk and is passed on. */
typedef dk_status dk_piece_fn(void *context, const char *text, size_t size, dk_error *err);

/* Calls fn for every piece in order. `first` says that text starts where the whole input did.
 */
DK_MUST_USE dk_status dk_pretokenize(const dk_pretokenizer *pre, const char *text, size_t size,
                                     bool first, dk_piece_fn *fn, void *context, dk_error *err);

#endif
