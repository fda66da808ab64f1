/* spiece.model: SentencePiece's ModelProto (sentencepiece_model.proto of sentencepiece 0.2). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "tokenizer/internal.h"
#include "tokenizer/protobuf.h"
#include "tokenizer/unigram.h"
#include "tokenizer/utf8.h"

enum { /* field numbers */
       MODEL_PIECES = 1,
       MODEL_TRAINER = 2,
       MODEL_NORMALIZER = 3,
       PIECE_TEXT = 1,
       PIECE_SCORE = 2,
       PIECE_TYPE = 3,
       TRAINER_TYPE = 3,
       TRAINER_SUFFIX = 24,
       TRAINER_BYTE_FALLBACK = 35,
       NORMALIZER_CHARSMAP = 2,
       NORMALIZER_PREFIX = 3,
       NORMALIZER_EXTRA = 4,
       NORMALIZER_ESCAPE = 5,
};
enum { TYPE_UNIGRAM = 1, MAX_PIECES = 1 << 24 };

typedef struct spiece {
    dk_unigram *unigram;
    dk_spm_rules rules;
    dk_added added; /* control and unknown pieces, which are recognised in text */
    uint64_t model_type;
    const char *where;
} spiece;

static dk_status fail_message(const spiece *s, const char *part, dk_error *err)
{
    return dk_fail(err, DK_FORMAT, "%s: not a SentencePiece model (malformed %s)", s->where,
                   part);
}

static bool is_wire(const dk_protobuf_field *field, uint32_t number, unsigned wire)
{
    return field->number == number && field->wire == wire;
}

static dk_status note_type(spiece *s, const char *text, size_t length, uint64_t type,
                           dk_error *err)
{
    int32_t id = (int32_t)s->unigram->count;
    if (type == DK_PIECE_UNKNOWN) {
        if (s->unigram->unk_id >= 0) {
            return dk_fail(err, DK_FORMAT, "%s: pieces %d and %d are both of type UNKNOWN",
                           s->where, (int)s->unigram->unk_id, (int)id);
        }
        s->unigram->unk_id = id;
    }
    if (type == DK_PIECE_UNKNOWN || type == DK_PIECE_CONTROL) {
        char *content = dk_strndup(text, length);
        dk_added_token token = {.content = content, .id = id, .special = true};
        dk_status status = dk_added_put(&s->added, &token, s->where, err);
        dk_free(content);
        DK_TRY(status);
    }
    if (type == DK_PIECE_USER_DEFINED && !dk_vocab_add(&s->rules.keep, text, length, id)) {
        return dk_fail(err, DK_FORMAT, "%s: the user-defined symbols are too long", s->where);
    }
    return DK_OK;
}

static dk_status read_piece(spiece *s, const dk_protobuf_field *message, dk_error *err)
{
    dk_protobuf reader = {.bytes = message->bytes, .size = message->size};
    dk_protobuf_field field;
    const char *text = "";
    size_t length = 0;
    float score = 0;
    uint64_t type = DK_PIECE_NORMAL;
    while (dk_protobuf_next(&reader, &field)) {
        if (is_wire(&field, PIECE_TEXT, DK_PROTOBUF_BYTES)) {
            text = (const char *)field.bytes;
            length = field.size;
        } else if (is_wire(&field, PIECE_SCORE, DK_PROTOBUF_32)) {
            score = dk_protobuf_float(&field);
        } else if (is_wire(&field, PIECE_TYPE, DK_PROTOBUF_VARINT)) {
            type = field.value;
        }
    }
    if (reader.bad || type < DK_PIECE_NORMAL || type > DK_PIECE_BYTE) {
        return fail_message(s, "piece", err);
    }
    if (length == 0 || memchr(text, '\0', length) != NULL ||
        dk_utf8_check(text, length, s->where, NULL) != DK_OK) {
        return dk_fail(err, DK_FORMAT, "%s: piece %zu is empty or not valid UTF-8", s->where,
                       s->unigram->count);
    }
    if (s->unigram->count >= MAX_PIECES) {
        return dk_fail(err, DK_FORMAT, "%s: more than %d pieces", s->where, (int)MAX_PIECES);
    }
    DK_TRY(note_type(s, text, length, type, err));
    return dk_unigram_add(s->unigram, text, length, (double)score, (dk_piece_type)type,
                          s->where, err);
}

static dk_status read_trainer(spiece *s, const dk_protobuf_field *message, dk_error *err)
{
    dk_protobuf reader = {.bytes = message->bytes, .size = message->size};
    dk_protobuf_field field;
    while (dk_protobuf_next(&reader, &field)) {
        if (is_wire(&field, TRAINER_TYPE, DK_PROTOBUF_VARINT)) {
            s->model_type = field.value;
        } else if (is_wire(&field, TRAINER_SUFFIX, DK_PROTOBUF_VARINT)) {
            s->rules.whitespace_as_suffix = field.value != 0;
        } else if (is_wire(&field, TRAINER_BYTE_FALLBACK, DK_PROTOBUF_VARINT)) {
            s->unigram->byte_fallback = field.value != 0;
        }
    }
    return reader.bad ? fail_message(s, "trainer_spec", err) : DK_OK;
}

static dk_status read_normalizer(spiece *s, const dk_protobuf_field *message, dk_error *err)
{
    dk_protobuf reader = {.bytes = message->bytes, .size = message->size};
    dk_protobuf_field field;
    while (dk_protobuf_next(&reader, &field)) {
        if (is_wire(&field, NORMALIZER_CHARSMAP, DK_PROTOBUF_BYTES)) {
            dk_charsmap_release(&s->rules.charsmap);
            if (field.size > 0) {
                DK_TRY(dk_charsmap_init(&s->rules.charsmap, field.bytes, field.size, s->where,
                                        err));
            }
        } else if (is_wire(&field, NORMALIZER_PREFIX, DK_PROTOBUF_VARINT)) {
            s->rules.add_dummy_prefix = field.value != 0;
        } else if (is_wire(&field, NORMALIZER_EXTRA, DK_PROTOBUF_VARINT)) {
            s->rules.remove_extra_whitespaces = field.value != 0;
        } else if (is_wire(&field, NORMALIZER_ESCAPE, DK_PROTOBUF_VARINT)) {
            s->rules.escape_whitespaces = field.value != 0;
        }
    }
    return reader.bad ? fail_message(s, "normalizer_spec", err) : DK_OK;
}

static dk_status read_model(spiece *s, const void *bytes, size_t size, dk_error *err)
{
    dk_protobuf reader = {.bytes = bytes, .size = size};
    dk_protobuf_field field;
    while (dk_protobuf_next(&reader, &field)) {
        if (is_wire(&field, MODEL_PIECES, DK_PROTOBUF_BYTES)) {
            DK_TRY(read_piece(s, &field, err));
        } else if (is_wire(&field, MODEL_TRAINER, DK_PROTOBUF_BYTES)) {
            DK_TRY(read_trainer(s, &field, err));
        } else if (is_wire(&field, MODEL_NORMALIZER, DK_PROTOBUF_BYTES)) {
            DK_TRY(read_normalizer(s, &field, err));
        }
    }
    if (reader.bad) {
        return fail_message(s, "field", err);
    }
    if (s->model_type != TYPE_UNIGRAM) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: SentencePiece model type %llu, known is 1 (Unigram)", s->where,
                       (unsigned long long)s->model_type);
    }
    DK_TRY(dk_unigram_finish(s->unigram, s->where, err));
    if (s->unigram->unk_id < 0) {
        return dk_fail(err, DK_FORMAT, "%s: no piece of type UNKNOWN", s->where);
    }
    dk_vocab_sort(&s->rules.keep);
    return DK_OK;
}

/* T5 puts its <extra_id_N> behind the vocabulary, highest number first, where the configuration
   does not list them with ids. */
static dk_status add_extra_ids(dk_added *added, size_t count, size_t pieces, const char *where,
                               dk_error *err)
{
    for (size_t i = 0; i < count; i++) {
        char content[32];
        (void)snprintf(content, sizeof(content), "<extra_id_%zu>", i);
        dk_added_token token = {
            .content = content, .id = (int32_t)(pieces + count - 1 - i), .special = true};
        DK_TRY(dk_added_put(added, &token, where, err));
    }
    return DK_OK;
}

static dk_status add_config_token(dk_tokenizer *t, dk_added_token token, const char *where,
                                  dk_error *err)
{
    int32_t id = t->kind->find(t->model, token.content, strlen(token.content));
    if (id >= 0 && token.id >= 0 && id != token.id) {
        return dk_fail(err, DK_FORMAT,
                       "%s: added token '%s' has id %d in the configuration, %d in the model",
                       where, token.content, (int)token.id, (int)id);
    }
    token.id = token.id >= 0 ? token.id : id;
    return token.id >= 0 ? dk_added_put(&t->added, &token, where, err) : DK_OK;
}

static dk_status add_config(dk_tokenizer *t, const dk_tokenizer_config *config,
                            const char *where, dk_error *err)
{
    size_t extra_ids = 0;
    for (size_t i = 0; i < config->added.count; i++) {
        const dk_added_token *token = &config->added.tokens[i];
        DK_TRY(add_config_token(t, *token, where, err));
        extra_ids += token->id < 0 && dk_starts_with(token->content, "<extra_id_");
    }
    extra_ids = config->has_extra_ids ? config->extra_ids : extra_ids;
    DK_TRY(add_extra_ids(&t->added, extra_ids, t->kind->size(t->model), where, err));
    for (size_t i = 0; i < config->added.count; i++) {
        if (dk_added_find(&t->added, config->added.tokens[i].content) == NULL) {
            return dk_fail(err, DK_FORMAT, "%s: nothing gives an id for the added token '%s'",
                           where, config->added.tokens[i].content);
        }
    }
    return DK_OK;
}

static dk_status build(dk_tokenizer *t, spiece *s, const dk_tokenizer_config *config,
                       dk_error *err)
{
    t->kind = &dk_tokenizer_kind_unigram;
    t->unk_id = s->unigram->unk_id;
    t->model = s->unigram;
    s->unigram = NULL;
    t->added = s->added;
    s->added = (dk_added){0};
    dk_normalizer_init_spm(&t->normalizer, &s->rules);
    if (config != NULL) {
        DK_TRY(add_config(t, config, s->where, err));
    }
    DK_TRY(dk_added_finish(&t->added, &t->normalizer, err));
    t->pad_id = dk_tokenizer_find(t, "<pad>");
    const char *eos = config != NULL && config->eos != NULL ? config->eos : "</s>";
    t->eos_id = dk_tokenizer_find(t, eos);
    if (t->eos_id < 0) {
        return dk_fail(err, DK_FORMAT, "%s: the end token '%s' is not in the vocabulary",
                       s->where, eos);
    }
    dk_ids_push(&t->suffix, t->eos_id);
    return DK_OK;
}

dk_status dk_tokenizer_read_spiece(dk_tokenizer **out, const void *bytes, size_t size,
                                   const dk_tokenizer_config *config, const char *where,
                                   dk_error *err)
{
    spiece s = {.unigram = dk_unigram_create(true), .where = where, .model_type = TYPE_UNIGRAM};
    s.rules.add_dummy_prefix = s.rules.remove_extra_whitespaces = s.rules.escape_whitespaces =
        true;
    dk_tokenizer *t = dk_alloc(sizeof(*t));
    dk_status status = read_model(&s, bytes, size, err);
    if (status == DK_OK) {
        status = build(t, &s, config, err);
    }
    if (status == DK_OK) {
        *out = t;
        t = NULL;
    }
    dk_tokenizer_close(&t);
    dk_unigram_destroy(&s.unigram);
    dk_spm_rules_release(&s.rules);
    dk_added_release(&s.added);
    return status;
}
