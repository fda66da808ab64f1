/* The tokenizer's parts, shared by the files that read it and the one that runs it. */
#ifndef DK_TOKENIZER_INTERNAL_H
#define DK_TOKENIZER_INTERNAL_H

#include "tokenizer/added.h"
#include "tokenizer/kind.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer.h"

struct dk_tokenizer {
    const dk_tokenizer_kind *kind;
    void *model; /* owned, by kind */
    dk_normalizer normalizer;
    dk_pretokenizer pretokenizer;
    dk_added added;
    dk_ids prefix, suffix; /* special tokens around a text */
    int32_t pad_id, eos_id, unk_id;
    size_t max_length;
};

/* What tokenizer_config.json and special_tokens_map.json say. All owned, NULL or 0 when unsaid.
 */
typedef struct dk_tokenizer_config {
    char *pad, *eos, *unk;
    dk_added added;   /* with the file's ids; -1 where it gives none */
    size_t extra_ids; /* T5: <extra_id_0> … behind the vocabulary, highest number first */
    bool has_extra_ids;
    size_t max_length;
} dk_tokenizer_config;

DK_MUST_USE dk_status dk_tokenizer_config_load(dk_tokenizer_config *out, const char *folder,
                                               dk_error *err);
void dk_tokenizer_config_release(dk_tokenizer_config *config);

/* Reads one entry of a list of added tokens: content and flags, not the id. The content is
   borrowed from object. */
DK_MUST_USE dk_status dk_added_token_parse(dk_added_token *out, const json_t *object,
                                           const char *where, dk_error *err);

/* The two file readers. config may be NULL. */
DK_MUST_USE dk_status dk_tokenizer_read_json(dk_tokenizer **out, const char *text, size_t size,
                                             const char *where, dk_error *err);
DK_MUST_USE dk_status dk_tokenizer_read_spiece(dk_tokenizer **out, const void *bytes,
                                               size_t size, const dk_tokenizer_config *config,
                                               const char *where, dk_error *err);

#endif
