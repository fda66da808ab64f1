/* Patterns of tokenizer files. The tokenizers library runs them with Oniguruma in Ruby syntax;
   pcre2 with Unicode classes and multi-line anchors reads the ones that occur alike. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/utf8.h"

enum {
    PATTERN_MAX_BYTES = 16 * 1024,
    MATCH_LIMIT = 1000000, /* backtracking steps of one match: some 10 ms */
    HEAP_LIMIT_KIB = 32 * 1024,
};

struct dk_pattern {
    char *literal; /* owned; NULL for a regular expression */
    size_t literal_length;
    pcre2_code *code;             /* owned */
    pcre2_match_context *context; /* owned */
};

static dk_status compile(dk_pattern *pattern, const char *text, const char *where,
                         dk_error *err)
{
    int code;
    PCRE2_SIZE offset;
    size_t length = strlen(text);
    if (length > PATTERN_MAX_BYTES) {
        return dk_fail(err, DK_FORMAT,
                       "%s: a regular expression of %zu bytes, at most %d are read", where,
                       length, PATTERN_MAX_BYTES);
    }
    pattern->code =
        pcre2_compile((PCRE2_SPTR)text, length,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code,
                      &offset, NULL);
    if (pattern->code == NULL) {
        PCRE2_UCHAR message[160] = "";
        pcre2_get_error_message(code, message, sizeof(message));
        return dk_fail(err, DK_FORMAT, "%s: regular expression '%s': %s at offset %zu", where,
                       text, (const char *)message, (size_t)offset);
    }
    pattern->context = pcre2_match_context_create(NULL);
    if (pattern->context == NULL) {
        return dk_fail(err, DK_MEMORY, "%s: no memory for a regular expression", where);
    }
    pcre2_set_match_limit(pattern->context, MATCH_LIMIT);
    pcre2_set_heap_limit(pattern->context, HEAP_LIMIT_KIB);
    return DK_OK;
}

dk_status dk_pattern_create(dk_pattern **out, const json_t *object, const char *where,
                            dk_error *err)
{
    const json_t *literal = json_object_get(object, "String");
    const json_t *regex = json_object_get(object, "Regex");
    if (!json_is_string(literal) && !json_is_string(regex)) {
        return dk_fail(err, DK_FORMAT,
                       "%s: 'pattern' is %s, expected {\"String\": …} or {\"Regex\": …}", where,
                       dk_json_type_name(object));
    }
    dk_pattern *pattern = dk_alloc(sizeof(*pattern));
    dk_status status = DK_OK;
    if (json_is_string(literal)) {
        pattern->literal = dk_strdup(json_string_value(literal));
        pattern->literal_length = strlen(pattern->literal);
    } else {
        status = compile(pattern, json_string_value(regex), where, err);
    }
    if (status != DK_OK) {
        dk_pattern_destroy(&pattern);
        return status;
    }
    *out = pattern;
    return DK_OK;
}

void dk_pattern_destroy(dk_pattern **pattern)
{
    if (*pattern != NULL) {
        dk_free((*pattern)->literal);
        pcre2_code_free((*pattern)->code);
        pcre2_match_context_free((*pattern)->context);
        dk_free(*pattern);
        *pattern = NULL;
    }
}

static bool find_literal(const dk_pattern *pattern, const char *text, size_t size, size_t from,
                         size_t *start)
{
    size_t length = pattern->literal_length;
    while (length > 0 && from < size && length <= size - from) {
        const char *first = memchr(text + from, pattern->literal[0], size - from - length + 1);
        if (first == NULL) {
            return false;
        }
        *start = (size_t)(first - text);
        if (memcmp(first, pattern->literal, length) == 0) {
            return true;
        }
        from = *start + 1;
    }
    return false;
}

dk_status dk_pattern_find(const dk_pattern *pattern, const char *text, size_t size, size_t from,
                          bool *found, size_t *start, size_t *end, dk_error *err)
{
    if (pattern->literal != NULL) {
        *found = find_literal(pattern, text, size, from, start);
        *end = *found ? *start + pattern->literal_length : from;
        return DK_OK;
    }
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(pattern->code, NULL);
    if (match == NULL) {
        return dk_fail(err, DK_MEMORY, "no memory for a regular expression's match");
    }
    int code = pcre2_match(pattern->code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK,
                           match, pattern->context);
    dk_status status = DK_OK;
    *found = code >= 0;
    if (code >= 0) {
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(match);
        *start = span[0];
        *end = span[1];
        /* \K inside a look-ahead can put the start behind the end. */
        if (*start > *end || *start < from) {
            status = dk_fail(err, DK_UNSUPPORTED,
                             "the tokenizer's regular expression moves its match's start");
        }
    } else if (code != PCRE2_ERROR_NOMATCH) {
        status = dk_fail(err, DK_INVALID,
                         "the tokenizer's regular expression needs too many steps on this text "
                         "(limit %d)",
                         MATCH_LIMIT);
    }
    pcre2_match_data_free(match);
    return status;
}
