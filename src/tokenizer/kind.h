/* What a kind of tokenizer model offers: one const struct per "model.type", listed in
 * kinds.def. */
#ifndef DK_TOKENIZER_KIND_H
#define DK_TOKENIZER_KIND_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A list of token ids. */
typedef struct dk_ids {
    int32_t *items; /* owned */
    size_t count, capacity;
} dk_ids;

void dk_ids_push(dk_ids *ids, int32_t id);
void dk_ids_release(dk_ids *ids);

/* The "model" of a tokenizer.json. A vocabulary that is an array is kept out of the parsed
   value (null there), because it is large; its text is given instead. */
typedef struct dk_model_source {
    const json_t *model;
    const char *vocab; /* NULL when there is no such array */
    size_t vocab_size;
    const char *where;
} dk_model_source;

typedef struct dk_tokenizer_kind {
    const char *type; /* the value of "model.type" */
    dk_status (*parse)(void **model, const dk_model_source *source, dk_error *err); /* owned */
    void (*destroy)(void **model);
    size_t (*size)(const void *model); /* ids are 0 to size - 1 */
    int32_t (*find)(const void *model, const char *piece, size_t length); /* -1: none */
    /* Appends the ids of one piece of normalised text (valid UTF-8). */
    dk_status (*encode)(const void *model, dk_ids *out, const char *text, size_t size,
                        dk_error *err);
} dk_tokenizer_kind;

#define DK_TOKENIZER_KIND(name) extern const dk_tokenizer_kind dk_tokenizer_kind_##name;
#include "tokenizer/kinds.def"
#undef DK_TOKENIZER_KIND

#endif
