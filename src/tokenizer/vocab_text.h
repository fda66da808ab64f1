/* The large part of a tokenizer.json read as a stream: an array of [piece, score]. Some 256,000
   of them take a tenth of the time that a tree of JSON values would. */
#ifndef DK_TOKENIZER_VOCAB_TEXT_H
#define DK_TOKENIZER_VOCAB_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Finds the array that is the value of "vocab" in the object "model" of a JSON document; *start
 *and end are its borders. False when there is none. The document need not be valid. */
bool dk_vocab_text_locate(const char *text, size_t size, size_t *start, size_t *end);

typedef dk_status dk_vocab_text_fn(void *context, const char *piece, size_t length,
                                   double score, const char *where, dk_error *err);

/* Calls fn for every [piece, score] of the array that is all of text, in strict JSON. */
DK_MUST_USE dk_status dk_vocab_text_read(const char *text, size_t size, const char *where,
                                         dk_vocab_text_fn *fn, void *context, dk_error *err);

#endif
