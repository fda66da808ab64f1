/* tokenizer_config.json and special_tokens_map.json, as transformers writes them. */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "tokenizer/internal.h"

enum { MAX_EXTRA_IDS = 10000, MAX_LENGTH = 1 << 24 };

dk_status dk_added_token_parse(dk_added_token *out, const json_t *object, const char *where,
                               dk_error *err)
{
    const char *content = NULL;
    *out = (dk_added_token){.id = -1};
    if (!json_is_object(object)) {
        return dk_fail(err, DK_FORMAT, "%s: an added token is %s, expected an object", where,
                       dk_json_type_name(object));
    }
    DK_TRY(dk_json_string(object, "content", DK_JSON_REQUIRED, &content, where, err));
    DK_TRY(dk_json_bool(object, "single_word", 0, &out->single_word, where, err));
    DK_TRY(dk_json_bool(object, "lstrip", 0, &out->lstrip, where, err));
    DK_TRY(dk_json_bool(object, "rstrip", 0, &out->rstrip, where, err));
    DK_TRY(dk_json_bool(object, "special", 0, &out->special, where, err));
    out->normalized = !out->special;
    DK_TRY(dk_json_bool(object, "normalized", 0, &out->normalized, where, err));
    out->content = (char *)content;
    return DK_OK;
}

/* A special token is named by a string or by an object with "content". */
static dk_status read_name(char **out, const json_t *object, const char *key, const char *where,
                           dk_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value) || *out != NULL) {
        return DK_OK;
    }
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;
    if (!json_is_string(content)) {
        return dk_fail(err, DK_FORMAT,
                       "%s: '%s' is %s, expected a string or an object with 'content'", where,
                       key, dk_json_type_name(value));
    }
    *out = dk_strdup(json_string_value(content));
    return DK_OK;
}

static bool parse_id(const char *text, int32_t *out)
{
    int64_t value = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9' || (value = value * 10 + (*c - '0')) > DK_TOKENIZER_MAX_ID) {
            return false;
        }
    }
    *out = (int32_t)value;
    return text[0] != '\0';
}

static dk_status read_decoder(dk_added *added, const json_t *object, const char *where,
                              dk_error *err)
{
    const json_t *decoder = json_object_get(object, "added_tokens_decoder"), *item;
    const char *key;
    if (decoder == NULL || json_is_null(decoder)) {
        return DK_OK;
    }
    if (!json_is_object(decoder)) {
        return dk_fail(err, DK_FORMAT, "%s: 'added_tokens_decoder' is %s, expected an object",
                       where, dk_json_type_name(decoder));
    }
    json_object_foreach((json_t *)decoder, key, item)
    {
        dk_added_token token;
        DK_TRY(dk_added_token_parse(&token, item, where, err));
        if (!parse_id(key, &token.id)) {
            return dk_fail(err, DK_FORMAT,
                           "%s: 'added_tokens_decoder' has the id '%s', expected 0 to %d",
                           where, key, (int)DK_TOKENIZER_MAX_ID);
        }
        DK_TRY(dk_added_put(added, &token, where, err));
    }
    return DK_OK;
}

static dk_status read_additional(dk_added *added, const json_t *object, const char *where,
                                 dk_error *err)
{
    const json_t *list = json_object_get(object, "additional_special_tokens"), *item;
    size_t i;
    if (list == NULL || json_is_null(list)) {
        return DK_OK;
    }
    if (!json_is_array(list)) {
        return dk_fail(err, DK_FORMAT,
                       "%s: 'additional_special_tokens' is %s, expected an array", where,
                       dk_json_type_name(list));
    }
    json_array_foreach(list, i, item)
    {
        dk_added_token token = {.id = -1, .special = true};
        if (json_is_string(item)) {
            token.content = (char *)json_string_value(item);
        } else {
            DK_TRY(dk_added_token_parse(&token, item, where, err));
        }
        DK_TRY(dk_added_put(added, &token, where, err));
    }
    return DK_OK;
}

static dk_status read_object(dk_tokenizer_config *out, const json_t *object, const char *where,
                             dk_error *err)
{
    int64_t extra_ids = -1;
    if (!json_is_object(object)) {
        return dk_fail(err, DK_FORMAT, "%s: the file holds %s, expected an object", where,
                       dk_json_type_name(object));
    }
    DK_TRY(read_name(&out->pad, object, "pad_token", where, err));
    DK_TRY(read_name(&out->eos, object, "eos_token", where, err));
    DK_TRY(read_name(&out->unk, object, "unk_token", where, err));
    DK_TRY(read_decoder(&out->added, object, where, err));
    DK_TRY(read_additional(&out->added, object, where, err));
    DK_TRY(dk_json_int(object, "extra_ids", 0, MAX_EXTRA_IDS, DK_JSON_NULL_IS_ABSENT,
                       &extra_ids, where, err));
    if (extra_ids >= 0) {
        out->extra_ids = (size_t)extra_ids;
        out->has_extra_ids = true;
    }
    /* "no limit" is written as 1e30, which is not an integer that fits. */
    const json_t *length = json_object_get(object, "model_max_length");
    if (json_is_integer(length) && json_integer_value(length) > 0 &&
        json_integer_value(length) <= MAX_LENGTH) {
        out->max_length = (size_t)json_integer_value(length);
    }
    return DK_OK;
}

dk_status dk_tokenizer_config_load(dk_tokenizer_config *out, const char *folder, dk_error *err)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json"};
    dk_status status = DK_OK;
    *out = (dk_tokenizer_config){0};
    for (size_t i = 0; i < 2 && status == DK_OK; i++) {
        char *path = dk_path_join(folder, names[i]);
        json_t *object = NULL;
        if (dk_path_exists(path)) {
            status = dk_json_load(&object, path, DK_JSON_CONFIG_BYTES, err);
            if (status == DK_OK) {
                status = read_object(out, object, path, err);
            }
        }
        json_decref(object);
        dk_free(path);
    }
    if (status != DK_OK) {
        dk_tokenizer_config_release(out);
    }
    return status;
}

void dk_tokenizer_config_release(dk_tokenizer_config *config)
{
    dk_free(config->pad);
    dk_free(config->eos);
    dk_free(config->unk);
    dk_added_release(&config->added);
    *config = (dk_tokenizer_config){0};
}
