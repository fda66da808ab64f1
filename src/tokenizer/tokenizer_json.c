/* tokenizer.json of the tokenizers library. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/string.h"
#include "tokenizer/internal.h"
#include "tokenizer/vocab_text.h"

enum { MAX_SPECIAL = 16 };

static const dk_tokenizer_kind *const kinds[] = {
#define DK_TOKENIZER_KIND(name) &dk_tokenizer_kind_##name,
#include "tokenizer/kinds.def"
#undef DK_TOKENIZER_KIND
};

static dk_status find_kind(const dk_tokenizer_kind **out, const json_t *model,
                           const char *where, dk_error *err)
{
    const char *type = NULL;
    if (!json_is_object(model)) {
        return dk_fail(err, DK_FORMAT, "%s: 'model' is %s, expected an object", where,
                       dk_json_type_name(model));
    }
    DK_TRY(dk_json_string(model, "type", DK_JSON_REQUIRED, &type, where, err));
    dk_string known = DK_STRING_EMPTY;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i]->type) == 0) {
            *out = kinds[i];
            dk_string_release(&known);
            return DK_OK;
        }
        dk_string_printf(&known, "%s%s", i > 0 ? ", " : "", kinds[i]->type);
    }
    dk_status status = dk_fail(err, DK_UNSUPPORTED, "%s: 'model.type' is '%s', known are: %s",
                               where, type, dk_string_text(&known));
    dk_string_release(&known);
    return status;
}

/* A token that the model does not know gets the next free id, as the library counts: the "id"
   in the file is only a check there. */
static dk_status read_added(dk_tokenizer *t, const json_t *list, const char *where,
                            dk_error *err)
{
    const json_t *item;
    size_t i;
    if (list == NULL || json_is_null(list)) {
        return DK_OK;
    }
    if (!json_is_array(list)) {
        return dk_fail(err, DK_FORMAT, "%s: 'added_tokens' is %s, expected an array", where,
                       dk_json_type_name(list));
    }
    int32_t next = (int32_t)t->kind->size(t->model);
    json_array_foreach(list, i, item)
    {
        dk_added_token token;
        int64_t id = 0;
        DK_TRY(dk_added_token_parse(&token, item, where, err));
        DK_TRY(
            dk_json_int(item, "id", 0, DK_TOKENIZER_MAX_ID, DK_JSON_REQUIRED, &id, where, err));
        token.id = t->kind->find(t->model, token.content, strlen(token.content));
        size_t before = t->added.count;
        bool unknown = token.id < 0;
        token.id = unknown ? next : token.id;
        DK_TRY(dk_added_put(&t->added, &token, where, err));
        next += unknown && t->added.count > before;
    }
    return DK_OK;
}

/* Appends the ids that the template's "special_tokens" gives for one name. */
static dk_status read_special(dk_ids *out, const json_t *template, const char *name,
                              const char *where, dk_error *err)
{
    int64_t ids[MAX_SPECIAL];
    int count = 0;
    const json_t *token = json_object_get(json_object_get(template, "special_tokens"), name);
    if (!json_is_object(token)) {
        return dk_fail(err, DK_FORMAT,
                       "%s: 'post_processor' names '%s', which is not among its "
                       "special_tokens",
                       where, name);
    }
    DK_TRY(dk_json_ints(token, "ids", 0, MAX_SPECIAL, 0, DK_TOKENIZER_MAX_ID, DK_JSON_REQUIRED,
                        ids, &count, where, err));
    for (int i = 0; i < count; i++) {
        dk_ids_push(out, (int32_t)ids[i]);
    }
    return DK_OK;
}

/* "single" of TemplateProcessing: special tokens, the text, special tokens. */
static dk_status read_template(dk_tokenizer *t, const json_t *template, const char *where,
                               dk_error *err)
{
    const json_t *list = json_object_get(template, "single"), *item;
    size_t i;
    bool text_seen = false;
    if (!json_is_array(list) || json_array_size(list) > MAX_SPECIAL) {
        return dk_fail(err, DK_FORMAT,
                       "%s: 'post_processor.single' is %s, expected an array of at most %d",
                       where, dk_json_type_name(list), MAX_SPECIAL);
    }
    json_array_foreach(list, i, item)
    {
        const json_t *special = json_object_get(item, "SpecialToken");
        const json_t *sequence = json_object_get(item, "Sequence");
        const char *id = NULL;
        DK_TRY(dk_json_string(special != NULL ? special : sequence, "id", DK_JSON_REQUIRED, &id,
                              where, err));
        if (special != NULL) {
            DK_TRY(read_special(text_seen ? &t->suffix : &t->prefix, template, id, where, err));
        } else if (text_seen || strcmp(id, "A") != 0) {
            return dk_fail(err, DK_FORMAT,
                           "%s: 'post_processor.single' holds sequence '%s', expected A once",
                           where, id);
        } else {
            text_seen = true;
        }
    }
    if (!text_seen) {
        return dk_fail(err, DK_FORMAT, "%s: 'post_processor.single' lacks the sequence A",
                       where);
    }
    return DK_OK;
}

static dk_status read_post_processor(dk_tokenizer *t, const json_t *object, const char *where,
                                     dk_error *err)
{
    const char *type = NULL;
    if (object == NULL || json_is_null(object)) {
        return DK_OK;
    }
    if (!json_is_object(object)) {
        return dk_fail(err, DK_FORMAT, "%s: 'post_processor' is %s, expected an object or null",
                       where, dk_json_type_name(object));
    }
    DK_TRY(dk_json_string(object, "type", DK_JSON_REQUIRED, &type, where, err));
    if (strcmp(type, "TemplateProcessing") != 0) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: post-processor '%s', known is TemplateProcessing", where, type);
    }
    return read_template(t, object, where, err);
}

static dk_status read_parts(dk_tokenizer *t, const json_t *root, const dk_model_source *source,
                            dk_error *err)
{
    const char *where = source->where;
    DK_TRY(find_kind(&t->kind, source->model, where, err));
    DK_TRY(t->kind->parse(&t->model, source, err));
    DK_TRY(
        dk_normalizer_parse(&t->normalizer, json_object_get(root, "normalizer"), where, err));
    DK_TRY(dk_pretokenizer_parse(&t->pretokenizer, json_object_get(root, "pre_tokenizer"),
                                 where, err));
    DK_TRY(read_added(t, json_object_get(root, "added_tokens"), where, err));
    DK_TRY(dk_added_finish(&t->added, &t->normalizer, err));
    DK_TRY(read_post_processor(t, json_object_get(root, "post_processor"), where, err));
    int64_t unk_id = -1;
    DK_TRY(dk_json_int(source->model, "unk_id", 0, DK_TOKENIZER_MAX_ID, DK_JSON_NULL_IS_ABSENT,
                       &unk_id, where, err));
    t->unk_id = (int32_t)unk_id;
    t->pad_id = dk_tokenizer_find(t, "<pad>");
    t->eos_id = t->suffix.count > 0 ? t->suffix.items[t->suffix.count - 1]
                                    : dk_tokenizer_find(t, "</s>");
    return DK_OK;
}

dk_status dk_tokenizer_read_json(dk_tokenizer **out, const char *text, size_t size,
                                 const char *where, dk_error *err)
{
    size_t start = size, end = size;
    bool located = dk_vocab_text_locate(text, size, &start, &end);
    dk_string rest = DK_STRING_EMPTY; /* the document without the vocabulary */
    json_t *root = NULL;
    dk_tokenizer *t = dk_alloc(sizeof(*t));
    dk_status status;
    dk_string_append(&rest, text, start);
    if (located) {
        dk_string_puts(&rest, "null");
        dk_string_append(&rest, text + end, size - end);
    }
    DK_TRY_DONE(dk_json_parse(&root, dk_string_text(&rest), rest.length, where, err));
    if (!json_is_object(root)) {
        status = dk_fail(err, DK_FORMAT, "%s: the file holds %s, expected an object", where,
                         dk_json_type_name(root));
        goto done;
    }
    dk_model_source source = {.model = json_object_get(root, "model"),
                              .vocab = located ? text + start : NULL,
                              .vocab_size = end - start,
                              .where = where};
    DK_TRY_DONE(read_parts(t, root, &source, err));
    *out = t;
    t = NULL;
done:
    dk_tokenizer_close(&t);
    json_decref(root);
    dk_string_release(&rest);
    return status;
}
