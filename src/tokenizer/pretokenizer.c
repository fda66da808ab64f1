/* Pre-tokenizers, as the tokenizers library 0.23 runs them. */
#include "tokenizer/pretokenizer.h"

#include <string.h>

#include "base/json.h"
#include "base/string.h"
#include "tokenizer/utf8.h"

static dk_status parse_metaspace(dk_pretokenizer_step *step, const json_t *object,
                                 const char *where, dk_error *err)
{
    const char *replacement = NULL, *scheme = "always";
    bool add_prefix_space = true;
    step->split = true;
    DK_TRY(dk_json_string(object, "replacement", DK_JSON_REQUIRED, &replacement, where, err));
    DK_TRY(dk_json_string(object, "prepend_scheme", 0, &scheme, where, err));
    DK_TRY(dk_json_bool(object, "split", DK_JSON_NULL_IS_ABSENT, &step->split, where, err));
    DK_TRY(dk_json_bool(object, "add_prefix_space", DK_JSON_NULL_IS_ABSENT, &add_prefix_space,
                        where, err));
    size_t length = strlen(replacement);
    if (length == 0 || length > 4 || dk_utf8_length((unsigned char)replacement[0]) != length) {
        return dk_fail(err, DK_FORMAT,
                       "%s: Metaspace 'replacement' is '%s', expected one character", where,
                       replacement);
    }
    memcpy(step->replacement, replacement, length + 1);
    if (strcmp(scheme, "always") == 0) {
        step->prepend = DK_PREPEND_ALWAYS;
    } else if (strcmp(scheme, "first") == 0) {
        step->prepend = DK_PREPEND_FIRST;
    } else if (strcmp(scheme, "never") == 0) {
        step->prepend = DK_PREPEND_NEVER;
    } else {
        return dk_fail(
            err, DK_FORMAT,
            "%s: Metaspace 'prepend_scheme' is '%s', expected always, first or never", where,
            scheme);
    }
    /* Files of before prepend_scheme say only add_prefix_space. */
    if (!add_prefix_space) {
        step->prepend = DK_PREPEND_NEVER;
    }
    return DK_OK;
}

static dk_status parse_step(dk_pretokenizer *out, const json_t *object, const char *where,
                            dk_error *err)
{
    const char *type = NULL;
    DK_TRY(dk_json_string(object, "type", DK_JSON_REQUIRED, &type, where, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(object, "pretokenizers"), *item;
        size_t i;
        if (!json_is_array(list)) {
            return dk_fail(err, DK_FORMAT, "%s: 'pretokenizers' is %s, expected an array",
                           where, dk_json_type_name(list));
        }
        json_array_foreach(list, i, item)
        {
            DK_TRY(parse_step(out, item, where, err)); /* as deep as the JSON parser allows */
        }
        return DK_OK;
    }
    if (out->count == DK_PRETOKENIZER_STEPS) {
        return dk_fail(err, DK_FORMAT, "%s: more than %d pre-tokenizers", where,
                       DK_PRETOKENIZER_STEPS);
    }
    dk_pretokenizer_step *step = &out->steps[out->count];
    *step = (dk_pretokenizer_step){0};
    if (strcmp(type, "Metaspace") == 0) {
        DK_TRY(parse_metaspace(step, object, where, err));
    } else if (strcmp(type, "WhitespaceSplit") == 0) {
        step->whitespace_split = true;
    } else {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: pre-tokenizer '%s', known are Sequence, Metaspace, WhitespaceSplit",
                       where, type);
    }
    out->count++;
    return DK_OK;
}

dk_status dk_pretokenizer_parse(dk_pretokenizer *out, const json_t *object, const char *where,
                                dk_error *err)
{
    *out = (dk_pretokenizer){0};
    if (object == NULL || json_is_null(object)) {
        return DK_OK;
    }
    if (!json_is_object(object)) {
        return dk_fail(err, DK_FORMAT, "%s: 'pre_tokenizer' is %s, expected an object or null",
                       where, dk_json_type_name(object));
    }
    return parse_step(out, object, where, err);
}

typedef struct walk {
    const dk_pretokenizer *pre;
    dk_piece_fn *fn;
    void *context;
} walk;

static dk_status run_step(const walk *w, size_t index, const char *text, size_t size,
                          bool first, dk_error *err);

static dk_status split_at_spaces(const walk *w, size_t index, const char *text, size_t size,
                                 bool first, dk_error *err)
{
    size_t start = 0;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t length = dk_utf8_decode(&c, text + at, size - at);
        if (dk_is_space(c)) {
            DK_TRY(run_step(w, index + 1, text + start, at - start, first && start == 0, err));
            start = at + length;
        }
        at += length;
    }
    return run_step(w, index + 1, text + start, size - start, first && start == 0, err);
}

/* Spaces become the replacement, which is put in front as the scheme says; every replacement
   then starts a new piece. */
static dk_status metaspace(const walk *w, size_t index, const char *text, size_t size,
                           bool first, dk_error *err)
{
    const dk_pretokenizer_step *step = &w->pre->steps[index];
    size_t length = strlen(step->replacement);
    bool starts =
        text[0] == ' ' || (size >= length && memcmp(text, step->replacement, length) == 0);
    dk_string s = DK_STRING_EMPTY;
    if (!starts &&
        (step->prepend == DK_PREPEND_ALWAYS || (step->prepend == DK_PREPEND_FIRST && first))) {
        dk_string_puts(&s, step->replacement);
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            dk_string_puts(&s, step->replacement);
        } else {
            dk_string_putc(&s, text[i]);
        }
    }
    dk_status status = DK_OK;
    size_t start = 0;
    for (size_t at = 1; at < s.length && step->split && status == DK_OK; at++) {
        if (s.length - at >= length && memcmp(s.data + at, step->replacement, length) == 0) {
            status =
                run_step(w, index + 1, s.data + start, at - start, first && start == 0, err);
            start = at;
        }
    }
    if (status == DK_OK) {
        status =
            run_step(w, index + 1, s.data + start, s.length - start, first && start == 0, err);
    }
    dk_string_release(&s);
    return status;
}

static dk_status run_step(const walk *w, size_t index, const char *text, size_t size,
                          bool first, dk_error *err)
{
    if (size == 0) {
        return DK_OK;
    }
    if (index == w->pre->count) {
        return w->fn(w->context, text, size, err);
    }
    return w->pre->steps[index].whitespace_split
               ? split_at_spaces(w, index, text, size, first, err)
               : metaspace(w, index, text, size, first, err);
}

dk_status dk_pretokenize(const dk_pretokenizer *pre, const char *text, size_t size, bool first,
                         dk_piece_fn *fn, void *context, dk_error *err)
{
    walk w = {pre, fn, context};
    return run_step(&w, 0, text, size, first, err);
}
