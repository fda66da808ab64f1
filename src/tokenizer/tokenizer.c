/* Opening and running a tokenizer: added tokens, normaliser, pre-tokenizer, model, special
   tokens around the text; the order is that of the tokenizers library (TokenizerImpl::encode).
 */
#include "tokenizer/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "tokenizer/internal.h"
#include "tokenizer/utf8.h"

void dk_ids_push(dk_ids *ids, int32_t id)
{
    if (ids->count == ids->capacity) {
        ids->capacity = ids->capacity * 2 + 64;
        ids->items = dk_realloc(ids->items, ids->capacity * sizeof(*ids->items));
    }
    ids->items[ids->count++] = id;
}

void dk_ids_release(dk_ids *ids)
{
    dk_free(ids->items);
    *ids = (dk_ids){0};
}

void dk_tokens_release(dk_tokens *tokens)
{
    dk_free(tokens->ids);
    *tokens = (dk_tokens){0};
}

void dk_tokenizer_close(dk_tokenizer **tokenizer)
{
    dk_tokenizer *t = *tokenizer;
    if (t == NULL) {
        return;
    }
    if (t->model != NULL) {
        t->kind->destroy(&t->model);
    }
    dk_normalizer_release(&t->normalizer);
    dk_added_release(&t->added);
    dk_ids_release(&t->prefix);
    dk_ids_release(&t->suffix);
    dk_free(t);
    *tokenizer = NULL;
}

dk_status dk_tokenizer_parse_json(dk_tokenizer **out, const char *text, size_t size,
                                  const char *where, dk_error *err)
{
    return dk_tokenizer_read_json(out, text, size, where, err);
}

dk_status dk_tokenizer_parse_spiece(dk_tokenizer **out, const void *bytes, size_t size,
                                    const char *where, dk_error *err)
{
    return dk_tokenizer_read_spiece(out, bytes, size, NULL, where, err);
}

static dk_status read_file(dk_tokenizer **out, const char *path, bool is_json,
                           const dk_tokenizer_config *config, dk_error *err)
{
    dk_mapping file = {0};
    DK_TRY(dk_mapping_open(&file, path, err));
    dk_status status;
    if (file.size > DK_TOKENIZER_MAX_FILE) {
        status = dk_fail(err, DK_FORMAT, "%s: %zu bytes, a tokenizer has at most %d", path,
                         file.size, (int)DK_TOKENIZER_MAX_FILE);
    } else if (is_json) {
        const char *text = file.data != NULL ? (const char *)file.data : "";
        status = dk_tokenizer_read_json(out, text, file.size, path, err);
    } else {
        status = dk_tokenizer_read_spiece(out, file.data, file.size, config, path, err);
    }
    dk_mapping_close(&file);
    return status;
}

/* The configuration's name for a special token decides; *id keeps the tokenizer's own choice
   where nothing is said. */
static dk_status resolve(const dk_tokenizer *t, const char *name, const char *role,
                         const char *folder, int32_t *id, dk_error *err)
{
    if (name == NULL) {
        return DK_OK;
    }
    int32_t found = dk_tokenizer_find(t, name);
    if (found < 0) {
        return dk_fail(err, DK_FORMAT, "%s: %s is '%s', which the vocabulary does not hold",
                       folder, role, name);
    }
    *id = found;
    return DK_OK;
}

static dk_status apply_config(dk_tokenizer *t, const dk_tokenizer_config *config,
                              const char *folder, dk_error *err)
{
    t->max_length = config->max_length;
    DK_TRY(resolve(t, config->pad, "pad_token", folder, &t->pad_id, err));
    DK_TRY(resolve(t, config->eos, "eos_token", folder, &t->eos_id, err));
    return resolve(t, config->unk, "unk_token", folder, &t->unk_id, err);
}

dk_status dk_tokenizer_open(dk_tokenizer **out, const char *folder, dk_error *err)
{
    dk_tokenizer_config config = {0};
    dk_tokenizer *t = NULL;
    char *json = dk_path_join(folder, "tokenizer.json");
    char *spiece = dk_path_join(folder, "spiece.model");
    dk_status status;
    DK_TRY_DONE(dk_tokenizer_config_load(&config, folder, err));
    if (dk_path_exists(json)) {
        DK_TRY_DONE(read_file(&t, json, true, &config, err));
    } else if (dk_path_exists(spiece)) {
        DK_TRY_DONE(read_file(&t, spiece, false, &config, err));
    } else {
        status =
            dk_fail(err, DK_NOT_FOUND, "%s: no tokenizer.json and no spiece.model", folder);
        goto done;
    }
    DK_TRY_DONE(apply_config(t, &config, folder, err));
    *out = t;
    t = NULL;
done:
    dk_tokenizer_close(&t);
    dk_tokenizer_config_release(&config);
    dk_free(json);
    dk_free(spiece);
    return status;
}

typedef struct encoding {
    const dk_tokenizer *t;
    dk_ids ids;
    size_t limit; /* ids beyond it would be cut off */
    dk_spans raw, normalized;
    dk_string text; /* the part between two added tokens, normalised */
} encoding;

static dk_status encode_piece(void *context, const char *text, size_t size, dk_error *err)
{
    encoding *e = context;
    return e->ids.count < e->limit ? e->t->kind->encode(e->t->model, &e->ids, text, size, err)
                                   : DK_OK;
}

/* A part of the text without (not normalised) added tokens. */
static dk_status encode_part(encoding *e, const char *text, size_t size, bool first,
                             dk_error *err)
{
    const dk_tokenizer *t = e->t;
    dk_string_clear(&e->text);
    dk_string_append(&e->text, text, size);
    DK_TRY(dk_normalizer_apply(&t->normalizer, &e->text, err));
    dk_added_split(&t->added, &t->added.normalized, dk_string_text(&e->text), e->text.length,
                   &e->normalized);
    for (size_t i = 0; i < e->normalized.count && e->ids.count < e->limit; i++) {
        dk_span span = e->normalized.items[i];
        if (span.id >= 0) {
            dk_ids_push(&e->ids, span.id);
            continue;
        }
        DK_TRY(dk_pretokenize(&t->pretokenizer, e->text.data + span.start,
                              span.end - span.start, first && span.start == 0, encode_piece, e,
                              err));
    }
    return DK_OK;
}

static dk_status encode_text(encoding *e, const char *text, size_t size, dk_error *err)
{
    dk_added_split(&e->t->added, &e->t->added.raw, text, size, &e->raw);
    for (size_t i = 0; i < e->raw.count && e->ids.count < e->limit; i++) {
        dk_span span = e->raw.items[i];
        if (span.id >= 0) {
            dk_ids_push(&e->ids, span.id);
        } else {
            DK_TRY(
                encode_part(e, text + span.start, span.end - span.start, span.start == 0, err));
        }
    }
    return DK_OK;
}

static void copy_ids(dk_tokens *out, const dk_ids *ids, size_t count)
{
    if (count > 0) {
        memcpy(out->ids + out->count, ids->items, count * sizeof(*out->ids));
        out->count += count;
    }
}

dk_status dk_tokenizer_encode(const dk_tokenizer *tokenizer, const char *text, size_t size,
                              size_t max_length, dk_tokens *out, dk_error *err)
{
    const dk_tokenizer *t = tokenizer;
    size_t special = t->prefix.count + t->suffix.count;
    if (max_length <= special) {
        return dk_fail(err, DK_INVALID,
                       "max_length is %zu, expected more than the %zu special ids", max_length,
                       special);
    }
    if (size > DK_TOKENIZER_MAX_TEXT) {
        return dk_fail(err, DK_INVALID, "the text has %zu bytes, at most %d are accepted", size,
                       (int)DK_TOKENIZER_MAX_TEXT);
    }
    DK_TRY(dk_utf8_check(text, size, "the text", err));
    encoding e = {.t = t, .limit = max_length - special};
    dk_status status = encode_text(&e, text, size, err);
    if (status == DK_OK) {
        size_t kept = e.ids.count < e.limit ? e.ids.count : e.limit;
        *out = (dk_tokens){.ids = dk_alloc((kept + special) * sizeof(*out->ids))};
        copy_ids(out, &t->prefix, t->prefix.count);
        copy_ids(out, &e.ids, kept);
        copy_ids(out, &t->suffix, t->suffix.count);
    }
    dk_ids_release(&e.ids);
    dk_spans_release(&e.raw);
    dk_spans_release(&e.normalized);
    dk_string_release(&e.text);
    return status;
}

int32_t dk_tokenizer_find(const dk_tokenizer *tokenizer, const char *piece)
{
    const dk_added_token *token = dk_added_find(&tokenizer->added, piece);
    return token != NULL ? token->id
                         : tokenizer->kind->find(tokenizer->model, piece, strlen(piece));
}

int32_t dk_tokenizer_pad_id(const dk_tokenizer *tokenizer)
{
    return tokenizer->pad_id;
}

int32_t dk_tokenizer_eos_id(const dk_tokenizer *tokenizer)
{
    return tokenizer->eos_id;
}

int32_t dk_tokenizer_unk_id(const dk_tokenizer *tokenizer)
{
    return tokenizer->unk_id;
}

int32_t dk_tokenizer_largest_id(const dk_tokenizer *tokenizer)
{
    const dk_tokenizer *t = tokenizer;
    int32_t largest = (int32_t)t->kind->size(t->model) - 1;
    for (size_t i = 0; i < t->added.count; i++) {
        largest = t->added.tokens[i].id > largest ? t->added.tokens[i].id : largest;
    }
    for (size_t i = 0; i < t->prefix.count; i++) {
        largest = t->prefix.items[i] > largest ? t->prefix.items[i] : largest;
    }
    for (size_t i = 0; i < t->suffix.count; i++) {
        largest = t->suffix.items[i] > largest ? t->suffix.items[i] : largest;
    }
    return largest;
}

size_t dk_tokenizer_vocab_size(const dk_tokenizer *tokenizer)
{
    const dk_tokenizer *t = tokenizer;
    size_t count = t->kind->size(t->model), extra = 0;
    for (size_t i = 0; i < t->added.count; i++) {
        extra += (size_t)t->added.tokens[i].id >= count;
    }
    return count + extra;
}

size_t dk_tokenizer_max_length(const dk_tokenizer *tokenizer)
{
    return tokenizer->max_length;
}
