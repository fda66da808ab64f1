/* Text tokenizers: a model folder's tokenizer/ becomes a dk_tokenizer, text becomes token ids.
   Kinds so far: Unigram (SentencePiece: T5, UMT5). A dk_tokenizer does not change after it is
   opened and may be used by several threads. */
#ifndef DK_TOKENIZER_TOKENIZER_H
#define DK_TOKENIZER_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dk_tokenizer dk_tokenizer;

enum {
    DK_TOKENIZER_MAX_TEXT = 1 << 20,     /* bytes of one text */
    DK_TOKENIZER_MAX_FILE = 256 << 20,   /* bytes of tokenizer.json or spiece.model */
    DK_TOKENIZER_MAX_ID = (1 << 30) - 1, /* ids above are refused */
};

/* Opens a folder in the layout of diffusers. tokenizer.json is read where there is one, as the
   tokenizers library reads it. Else spiece.model, as the sentencepiece library reads it, except
   that special tokens inside a text are recognised; tokenizer_config.json and
   special_tokens_map.json then name added tokens. In both cases these two files, where present,
   name the padding, end and unknown token and model_max_length. Owned. */
DK_MUST_USE dk_status dk_tokenizer_open(dk_tokenizer **out, const char *folder, dk_error *err);
void dk_tokenizer_close(dk_tokenizer **tokenizer);

/* The same from memory, without the configuration files. `where` names the source in messages.
 */
DK_MUST_USE dk_status dk_tokenizer_parse_json(dk_tokenizer **out, const char *text, size_t size,
                                              const char *where, dk_error *err);
DK_MUST_USE dk_status dk_tokenizer_parse_spiece(dk_tokenizer **out, const void *bytes,
                                                size_t size, const char *where, dk_error *err);

typedef struct dk_tokens {
    int32_t *ids; /* owned */
    size_t count;
} dk_tokens;

/* The text's ids with the special tokens around them (T5: the end token), without padding. At
   most max_length: the text's own ids are cut, the special ones stay. Text that is not UTF-8 is
   DK_INVALID with the offset of the bad byte. The caller releases *out on success. */
DK_MUST_USE dk_status dk_tokenizer_encode(const dk_tokenizer *tokenizer, const char *text,
                                          size_t size, size_t max_length, dk_tokens *out,
                                          dk_error *err);
void dk_tokens_release(dk_tokens *tokens);

/* The id of a piece or an added token, or -1. */
int32_t dk_tokenizer_find(const dk_tokenizer *tokenizer, const char *piece);

int32_t dk_tokenizer_pad_id(const dk_tokenizer *tokenizer); /* -1 when there is none */
int32_t dk_tokenizer_eos_id(const dk_tokenizer *tokenizer);
int32_t dk_tokenizer_unk_id(const dk_tokenizer *tokenizer);

/* Pieces and added tokens together; and the largest id that encode can return, which the caller
   compares with the rows of the embedding table. */
size_t dk_tokenizer_vocab_size(const dk_tokenizer *tokenizer);
int32_t dk_tokenizer_largest_id(const dk_tokenizer *tokenizer);

/* model_max_length of tokenizer_config.json; 0 when it says nothing. */
size_t dk_tokenizer_max_length(const dk_tokenizer *tokenizer);

#endif
