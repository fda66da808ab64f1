/* Normalisers: what is done to text before it is cut into pieces. A list of steps, read from
   tokenizer.json's "normalizer" or from a SentencePiece model. */
#ifndef DK_TOKENIZER_NORMALIZER_H
#define DK_TOKENIZER_NORMALIZER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/string.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/vocab.h"

/* No step may grow a text beyond this: a file's replacements may be long and may follow each
   other. */
enum { DK_NORMALIZED_MAX_BYTES = 8 << 20 };

typedef struct dk_normalizer_step dk_normalizer_step;

typedef struct dk_normalizer {
    dk_normalizer_step *steps; /* owned */
    size_t count;
} dk_normalizer;

/* SentencePiece's own rules (normalizer_spec, trainer_spec). */
typedef struct dk_spm_rules {
    dk_charsmap charsmap; /* may be empty */
    dk_vocab keep;        /* user-defined symbols: passed on untouched */
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_as_suffix;
} dk_spm_rules;

/* `object` is the JSON value of "normalizer"; null or absent means none. */
DK_MUST_USE dk_status dk_normalizer_parse(dk_normalizer *out, const json_t *object,
                                          const char *where, dk_error *err);
/* One step with SentencePiece's rules; `rules` is taken. */
void dk_normalizer_init_spm(dk_normalizer *out, dk_spm_rules *rules);
void dk_normalizer_release(dk_normalizer *normalizer);

/* *text becomes its normalised form. It must be valid UTF-8 and stays so. */
DK_MUST_USE dk_status dk_normalizer_apply(const dk_normalizer *normalizer, dk_string *text,
                                          dk_error *err);

void dk_spm_rules_release(dk_spm_rules *rules);
/* Appends text to out by SentencePiece's rules (normalizer.cc, Normalizer::Normalize). */
DK_MUST_USE bool dk_spm_normalize(const dk_spm_rules *rules, dk_string *out, const char *text,
                                  size_t size, size_t limit);

/* A literal or a regular expression (pcre2) of a tokenizer file, replaced everywhere. */
typedef struct dk_pattern dk_pattern;
/* `object` is {"String": …} or {"Regex": …}. Owned. */
DK_MUST_USE dk_status dk_pattern_create(dk_pattern **out, const json_t *object,
                                        const char *where, dk_error *err);
void dk_pattern_destroy(dk_pattern **pattern);
/* The first match at or after `from`; *found is false when there is none. Matching is bounded:
   DK_INVALID when the expression takes too many steps on this text. */
DK_MUST_USE dk_status dk_pattern_find(const dk_pattern *pattern, const char *text, size_t size,
                                      size_t from, bool *found, size_t *start, size_t *end,
                                      dk_error *err);

#endif
