/* Normalisers of tokenizer.json, as the tokenizers library 0.23 runs them. */
#include "tokenizer/normalizer.h"

#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"
#include "base/json.h"
#include "tokenizer/utf8.h"

enum { MAX_STEPS = 64 };

typedef dk_status apply_fn(const dk_normalizer_step *step, dk_string *out,
                           const dk_string *text, dk_error *err);

struct dk_normalizer_step {
    apply_fn *apply;
    bool strip_left, strip_right;
    utf8proc_option_t form;
    char *content; /* owned; what is put in or in front */
    dk_pattern *pattern;
    dk_charsmap charsmap;
    dk_spm_rules rules;
};

static dk_status fail_growth(dk_error *err)
{
    return dk_fail(err, DK_INVALID, "the text grows beyond %d bytes when it is normalised",
                   DK_NORMALIZED_MAX_BYTES);
}

static dk_status apply_strip(const dk_normalizer_step *step, dk_string *out,
                             const dk_string *text, dk_error *err)
{
    (void)err;
    const char *s = dk_string_text(text);
    size_t start = text->length, end = 0;
    uint32_t c;
    for (size_t at = 0; at < text->length;) {
        size_t length = dk_utf8_decode(&c, s + at, text->length - at);
        if (!dk_is_space(c)) {
            start = at < start ? at : start;
            end = at + length;
        }
        at += length;
    }
    start = step->strip_left ? start : 0;
    end = step->strip_right ? end : text->length;
    if (start < end) {
        dk_string_append(out, s + start, end - start);
    }
    return DK_OK;
}

static dk_status apply_replace(const dk_normalizer_step *step, dk_string *out,
                               const dk_string *text, dk_error *err)
{
    const char *s = dk_string_text(text);
    size_t kept = 0, from = 0, start = 0, end = 0, content = strlen(step->content);
    while (from <= text->length) {
        bool found;
        DK_TRY(
            dk_pattern_find(step->pattern, s, text->length, from, &found, &start, &end, err));
        if (!found) {
            break;
        }
        dk_string_append(out, s + kept, start - kept);
        dk_string_append(out, step->content, content);
        if (out->length > DK_NORMALIZED_MAX_BYTES) {
            return fail_growth(err);
        }
        kept = from = end;
        if (start == end) { /* an empty match: go on behind the next character */
            from += end < text->length ? dk_utf8_length((unsigned char)s[end]) : 1;
        }
    }
    dk_string_append(out, s + kept, text->length - kept);
    return DK_OK;
}

static dk_status apply_charsmap(const dk_normalizer_step *step, dk_string *out,
                                const dk_string *text, dk_error *err)
{
    return dk_charsmap_apply(&step->charsmap, out, dk_string_text(text), text->length,
                             DK_NORMALIZED_MAX_BYTES)
               ? DK_OK
               : fail_growth(err);
}

static dk_status apply_unicode(const dk_normalizer_step *step, dk_string *out,
                               const dk_string *text, dk_error *err)
{
    return dk_utf8_normalize(out, dk_string_text(text), text->length, (int)step->form)
               ? DK_OK
               : fail_growth(err);
}

static dk_status apply_lowercase(const dk_normalizer_step *step, dk_string *out,
                                 const dk_string *text, dk_error *err)
{
    (void)step;
    (void)err;
    const char *s = dk_string_text(text);
    for (size_t at = 0; at < text->length;) {
        uint32_t c;
        at += dk_utf8_decode(&c, s + at, text->length - at);
        if (c == 0x130) { /* the only letter whose lower case is two characters */
            dk_string_puts(out, "i\xCC\x87");
        } else {
            dk_utf8_append(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
        }
    }
    return DK_OK;
}

static dk_status apply_prepend(const dk_normalizer_step *step, dk_string *out,
                               const dk_string *text, dk_error *err)
{
    (void)err;
    if (text->length > 0) {
        dk_string_puts(out, step->content);
        dk_string_append(out, text->data, text->length);
    }
    return DK_OK;
}

static dk_status apply_spm(const dk_normalizer_step *step, dk_string *out,
                           const dk_string *text, dk_error *err)
{
    return dk_spm_normalize(&step->rules, out, dk_string_text(text), text->length,
                            DK_NORMALIZED_MAX_BYTES)
               ? DK_OK
               : fail_growth(err);
}

dk_status dk_normalizer_apply(const dk_normalizer *normalizer, dk_string *text, dk_error *err)
{
    dk_string out = DK_STRING_EMPTY;
    dk_status status = DK_OK;
    for (size_t i = 0; i < normalizer->count; i++) {
        const dk_normalizer_step *step = &normalizer->steps[i];
        dk_string_clear(&out);
        DK_TRY_DONE(step->apply(step, &out, text, err));
        if (out.length > DK_NORMALIZED_MAX_BYTES) {
            status = fail_growth(err);
            goto done;
        }
        dk_string swapped = *text;
        *text = out;
        out = swapped;
    }
done:
    dk_string_release(&out);
    return status;
}

/* Reading "normalizer". */

typedef dk_status parse_fn(dk_normalizer_step *step, const json_t *object, const char *where,
                           dk_error *err);

static dk_status parse_nothing(dk_normalizer_step *step, const json_t *object,
                               const char *where, dk_error *err)
{
    (void)step;
    (void)object;
    (void)where;
    (void)err;
    return DK_OK;
}

static dk_status parse_strip(dk_normalizer_step *step, const json_t *object, const char *where,
                             dk_error *err)
{
    DK_TRY(dk_json_bool(object, "strip_left", DK_JSON_REQUIRED, &step->strip_left, where, err));
    return dk_json_bool(object, "strip_right", DK_JSON_REQUIRED, &step->strip_right, where,
                        err);
}

static dk_status parse_replace(dk_normalizer_step *step, const json_t *object,
                               const char *where, dk_error *err)
{
    const char *content = NULL;
    DK_TRY(dk_json_string(object, "content", DK_JSON_REQUIRED, &content, where, err));
    step->content = dk_strdup(content);
    return dk_pattern_create(&step->pattern, json_object_get(object, "pattern"), where, err);
}

static dk_status parse_prepend(dk_normalizer_step *step, const json_t *object,
                               const char *where, dk_error *err)
{
    const char *content = NULL;
    DK_TRY(dk_json_string(object, "prepend", DK_JSON_REQUIRED, &content, where, err));
    step->content = dk_strdup(content);
    return DK_OK;
}

static dk_status parse_precompiled(dk_normalizer_step *step, const json_t *object,
                                   const char *where, dk_error *err)
{
    const char *text = NULL;
    DK_TRY(dk_json_string(object, "precompiled_charsmap", DK_JSON_REQUIRED, &text, where, err));
    return dk_charsmap_init_base64(&step->charsmap, text, strlen(text), where, err);
}

static const struct normalizer_kind {
    const char *name;
    parse_fn *parse;
    apply_fn *apply;
    utf8proc_option_t form;
} kinds[] = {
    {"Precompiled", parse_precompiled, apply_charsmap, 0},
    {"Strip", parse_strip, apply_strip, 0},
    {"Replace", parse_replace, apply_replace, 0},
    {"Prepend", parse_prepend, apply_prepend, 0},
    {"Lowercase", parse_nothing, apply_lowercase, 0},
    {"NFC", parse_nothing, apply_unicode, UTF8PROC_STABLE | UTF8PROC_COMPOSE},
    {"NFD", parse_nothing, apply_unicode, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
    {"NFKC", parse_nothing, apply_unicode,
     UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", parse_nothing, apply_unicode,
     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};

static dk_status parse_step(dk_normalizer *out, const json_t *object, const char *where,
                            dk_error *err)
{
    const char *type = NULL;
    DK_TRY(dk_json_string(object, "type", DK_JSON_REQUIRED, &type, where, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(object, "normalizers"), *item;
        size_t i;
        if (!json_is_array(list)) {
            return dk_fail(err, DK_FORMAT, "%s: 'normalizers' is %s, expected an array", where,
                           dk_json_type_name(list));
        }
        json_array_foreach(list, i, item)
        {
            DK_TRY(parse_step(out, item, where, err)); /* as deep as the JSON parser allows */
        }
        return DK_OK;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i].name) == 0) {
            if (out->count == MAX_STEPS) {
                return dk_fail(err, DK_FORMAT, "%s: more than %d normalizers", where,
                               MAX_STEPS);
            }
            out->steps = dk_realloc(out->steps, (out->count + 1) * sizeof(*out->steps));
            dk_normalizer_step *step = &out->steps[out->count++];
            *step = (dk_normalizer_step){.apply = kinds[i].apply, .form = kinds[i].form};
            return kinds[i].parse(step, object, where, err);
        }
    }
    dk_string known = DK_STRING_EMPTY;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        dk_string_printf(&known, ", %s", kinds[i].name);
    }
    dk_status status = dk_fail(err, DK_UNSUPPORTED, "%s: normalizer '%s', known are Sequence%s",
                               where, type, dk_string_text(&known));
    dk_string_release(&known);
    return status;
}

dk_status dk_normalizer_parse(dk_normalizer *out, const json_t *object, const char *where,
                              dk_error *err)
{
    *out = (dk_normalizer){0};
    if (object == NULL || json_is_null(object)) {
        return DK_OK;
    }
    if (!json_is_object(object)) {
        return dk_fail(err, DK_FORMAT, "%s: 'normalizer' is %s, expected an object or null",
                       where, dk_json_type_name(object));
    }
    dk_status status = parse_step(out, object, where, err);
    if (status != DK_OK) {
        dk_normalizer_release(out);
    }
    return status;
}

void dk_normalizer_init_spm(dk_normalizer *out, dk_spm_rules *rules)
{
    out->steps = dk_alloc(sizeof(*out->steps));
    out->steps[0] = (dk_normalizer_step){.apply = apply_spm, .rules = *rules};
    out->count = 1;
    *rules = (dk_spm_rules){0};
}

void dk_normalizer_release(dk_normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        dk_normalizer_step *step = &normalizer->steps[i];
        dk_free(step->content);
        dk_pattern_destroy(&step->pattern);
        dk_charsmap_release(&step->charsmap);
        dk_spm_rules_release(&step->rules);
    }
    dk_free(normalizer->steps);
    *normalizer = (dk_normalizer){0};
}
