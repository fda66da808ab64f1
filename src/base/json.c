/* JSON access. */
#include "base/json.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"

/* jansson recurses up to 2,048 levels; a scan before parsing keeps hostile nesting away from
   the stack and holds the whole project to one limit. */
static bool nesting_is_fine(const char *text, size_t size)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                quoted = false;
            }
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > DK_JSON_MAX_DEPTH) {
                return false;
            }
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return true;
}

dk_status dk_json_parse(json_t **out, const char *text, size_t size, const char *where,
                        dk_error *err)
{
    if (!nesting_is_fine(text, size)) {
        return dk_fail(err, DK_FORMAT, "%s: JSON is nested more than %d levels deep", where,
                       DK_JSON_MAX_DEPTH);
    }
    json_error_t problem;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &problem);
    if (value == NULL) {
        return dk_fail(err, DK_FORMAT, "%s: not valid JSON, line %d column %d: %s", where,
                       problem.line, problem.column, problem.text);
    }
    *out = value;
    return DK_OK;
}

dk_status dk_json_load(json_t **out, const char *path, size_t max_bytes, dk_error *err)
{
    char *text;
    size_t size;
    DK_TRY(dk_file_read(&text, &size, path, max_bytes, err));
    dk_status status = dk_json_parse(out, text, size, path, err);
    dk_free(text);
    return status;
}

const char *dk_json_type_name(const json_t *value)
{
    if (value == NULL) {
        return "nothing";
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    default:
        return "null";
    }
}

/* Finds object[key]. *value stays NULL when the key may be, and is, absent. */
static dk_status find(const json_t **value, const json_t *object, const char *key,
                      unsigned flags, const char *where, dk_error *err)
{
    *value = NULL;
    if (!json_is_object(object)) {
        return dk_fail(err, DK_FORMAT, "%s: is %s, expected an object", where,
                       dk_json_type_name(object));
    }
    const json_t *found = json_object_get(object, key);
    if (found != NULL && json_is_null(found) && (flags & DK_JSON_NULL_IS_ABSENT) != 0) {
        found = NULL;
    }
    if (found == NULL && (flags & DK_JSON_REQUIRED) != 0) {
        return dk_fail(err, DK_FORMAT, "%s: key '%s' is missing", where, key);
    }
    *value = found;
    return DK_OK;
}

static dk_status wrong_type(const json_t *value, const char *key, const char *expected,
                            const char *where, dk_error *err)
{
    return dk_fail(err, DK_FORMAT, "%s: '%s' is %s, expected %s", where, key,
                   dk_json_type_name(value), expected);
}

static dk_status read_int(const json_t *value, const char *key, int64_t min, int64_t max,
                          int64_t *out, const char *where, dk_error *err)
{
    if (!json_is_integer(value)) {
        return wrong_type(value, key, "an integer", where, err);
    }
    int64_t number = json_integer_value(value);
    if (number < min || number > max) {
        return dk_fail(err, DK_FORMAT, "%s: '%s' is %lld, accepted are %lld to %lld", where,
                       key, (long long)number, (long long)min, (long long)max);
    }
    *out = number;
    return DK_OK;
}

static dk_status read_double(const json_t *value, const char *key, double min, double max,
                             double *out, const char *where, dk_error *err)
{
    if (!json_is_number(value)) {
        return wrong_type(value, key, "a number", where, err);
    }
    double number = json_number_value(value);
    if (!(number >= min && number <= max)) {
        return dk_fail(err, DK_FORMAT, "%s: '%s' is %g, accepted are %g to %g", where, key,
                       number, min, max);
    }
    *out = number;
    return DK_OK;
}

dk_status dk_json_int(const json_t *object, const char *key, int64_t min, int64_t max,
                      unsigned flags, int64_t *out, const char *where, dk_error *err)
{
    const json_t *value;
    DK_TRY(find(&value, object, key, flags, where, err));
    return value == NULL ? DK_OK : read_int(value, key, min, max, out, where, err);
}

dk_status dk_json_double(const json_t *object, const char *key, double min, double max,
                         unsigned flags, double *out, const char *where, dk_error *err)
{
    const json_t *value;
    DK_TRY(find(&value, object, key, flags, where, err));
    return value == NULL ? DK_OK : read_double(value, key, min, max, out, where, err);
}

dk_status dk_json_bool(const json_t *object, const char *key, unsigned flags, bool *out,
                       const char *where, dk_error *err)
{
    const json_t *value;
    DK_TRY(find(&value, object, key, flags, where, err));
    if (value == NULL) {
        return DK_OK;
    }
    if (!json_is_boolean(value)) {
        return wrong_type(value, key, "true or false", where, err);
    }
    *out = json_is_true(value);
    return DK_OK;
}

dk_status dk_json_string(const json_t *object, const char *key, unsigned flags,
                         const char **out, const char *where, dk_error *err)
{
    const json_t *value;
    DK_TRY(find(&value, object, key, flags, where, err));
    if (value == NULL) {
        return DK_OK;
    }
    if (!json_is_string(value)) {
        return wrong_type(value, key, "a string", where, err);
    }
    *out = json_string_value(value);
    return DK_OK;
}

dk_status dk_json_choice(const json_t *object, const char *key, const char *const *accepted,
                         const char *where, dk_error *err)
{
    const char *text = NULL;
    DK_TRY(dk_json_string(object, key, 0, &text, where, err));
    dk_string list = DK_STRING_EMPTY;
    bool fits = text == NULL;
    for (int i = 0; accepted[i] != NULL; i++) {
        fits = fits || strcmp(text, accepted[i]) == 0;
        dk_string_printf(&list, "%s'%s'", i > 0 ? ", " : "", accepted[i]);
    }
    dk_status status =
        fits ? DK_OK
             : dk_fail(err, DK_UNSUPPORTED, "%s: %s '%.80s' is not supported, accepted is %s",
                       where, key, text, dk_string_text(&list));
    dk_string_release(&list);
    return status;
}

/* Finds an array of an accepted length; *value stays NULL when absent. */
static dk_status find_array(const json_t **value, const json_t *object, const char *key,
                            int count_min, int count_max, unsigned flags, const char *where,
                            dk_error *err)
{
    DK_TRY(find(value, object, key, flags, where, err));
    if (*value == NULL) {
        return DK_OK;
    }
    if (!json_is_array(*value)) {
        return wrong_type(*value, key, "an array", where, err);
    }
    size_t size = json_array_size(*value);
    if (size != (size_t)count_min && count_min == count_max) {
        return dk_fail(err, DK_FORMAT, "%s: '%s' has %zu entries, expected %d", where, key,
                       size, count_min);
    }
    if (size < (size_t)count_min || size > (size_t)count_max) {
        return dk_fail(err, DK_FORMAT, "%s: '%s' has %zu entries, accepted are %d to %d", where,
                       key, size, count_min, count_max);
    }
    return DK_OK;
}

dk_status dk_json_ints(const json_t *object, const char *key, int count_min, int count_max,
                       int64_t min, int64_t max, unsigned flags, int64_t *out, int *count,
                       const char *where, dk_error *err)
{
    const json_t *value;
    DK_TRY(find_array(&value, object, key, count_min, count_max, flags, where, err));
    if (value == NULL) {
        return DK_OK;
    }
    int size = (int)json_array_size(value);
    for (int i = 0; i < size; i++) {
        DK_TRY(read_int(json_array_get(value, (size_t)i), key, min, max, &out[i], where, err));
    }
    *count = size;
    return DK_OK;
}

dk_status dk_json_doubles(const json_t *object, const char *key, int count_min, int count_max,
                          unsigned flags, double *out, int *count, const char *where,
                          dk_error *err)
{
    const json_t *value;
    DK_TRY(find_array(&value, object, key, count_min, count_max, flags, where, err));
    if (value == NULL) {
        return DK_OK;
    }
    int size = (int)json_array_size(value);
    for (int i = 0; i < size; i++) {
        DK_TRY(read_double(json_array_get(value, (size_t)i), key, -HUGE_VAL, HUGE_VAL, &out[i],
                           where, err));
    }
    *count = size;
    return DK_OK;
}

dk_status dk_json_bools(const json_t *object, const char *key, int count_min, int count_max,
                        unsigned flags, bool *out, int *count, const char *where, dk_error *err)
{
    const json_t *value;
    DK_TRY(find_array(&value, object, key, count_min, count_max, flags, where, err));
    if (value == NULL) {
        return DK_OK;
    }
    int size = (int)json_array_size(value);
    for (int i = 0; i < size; i++) {
        const json_t *entry = json_array_get(value, (size_t)i);
        if (!json_is_boolean(entry)) {
            return wrong_type(entry, key, "true or false", where, err);
        }
        out[i] = json_is_true(entry);
    }
    *count = size;
    return DK_OK;
}
