/* Reading, checking and describing parameters. */
#include "base/parameter.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* A field of the struct that a table describes. */
typedef union field {
    void *address;
    const char **text;
    int *whole;
    double *real;
    uint64_t *seed;
    bool *flag;
} field;

static field field_of(const dk_parameter *parameter, const void *object)
{
    return (field){.address = (char *)(uintptr_t)object + parameter->offset};
}

static char plain(char c)
{
    return c == '-' ? '_' : c;
}

const dk_parameter *dk_parameter_find(const dk_parameter_table *table, const char *name)
{
    for (int i = 0; i < table->count; i++) {
        const char *known = table->parameters[i].name, *given = name;
        while (*known != '\0' && *known == plain(*given)) {
            known++;
            given++;
        }
        if (*known == '\0' && *given == '\0') {
            return &table->parameters[i];
        }
    }
    return NULL;
}

static dk_status fail_value(const dk_parameter *parameter, const char *value, const char *where,
                            dk_error *err)
{
    dk_string range = DK_STRING_EMPTY;
    dk_parameter_range(&range, parameter);
    dk_status status =
        dk_fail(err, DK_INVALID, "%s is %.200s, accepted %s %s", where, value,
                parameter->type == DK_PARAMETER_TEXT ? "is" : "are", dk_string_text(&range));
    dk_string_release(&range);
    return status;
}

static dk_status fail_text(const dk_parameter *parameter, const char *text, const char *where,
                           dk_error *err)
{
    dk_string quoted = DK_STRING_EMPTY;
    dk_string_printf(&quoted, "'%.190s'", text);
    dk_status status = fail_value(parameter, quoted.data, where, err);
    dk_string_release(&quoted);
    return status;
}

/* The place of `text` in a list "a, b, c", or -1; *found is the start of that entry. */
static int place_in(const char *choices, const char *text)
{
    size_t length = strlen(text);
    int place = 0;
    for (const char *at = choices; *at != '\0'; place++) {
        size_t entry = strcspn(at, ",");
        if (entry == length && memcmp(at, text, length) == 0) {
            return place;
        }
        at += entry;
        at += strspn(at, ", ");
    }
    return -1;
}

static dk_status set_number(const dk_parameter *parameter, field to, double value,
                            const char *shown, const char *where, dk_error *err)
{
    if (!(value >= parameter->min && value <= parameter->max)) {
        return fail_value(parameter, shown, where, err);
    }
    if (parameter->type == DK_PARAMETER_INT) {
        *to.whole = (int)value;
    } else {
        *to.real = value;
    }
    return DK_OK;
}

static dk_status set_words(const dk_parameter *parameter, field to, const char *text,
                           const char *where, dk_error *err)
{
    if (parameter->type == DK_PARAMETER_TEXT) {
        if (parameter->max > 0 && (double)strlen(text) > parameter->max) {
            return dk_fail(err, DK_INVALID, "%s has %zu bytes, accepted are up to %.0f", where,
                           strlen(text), parameter->max);
        }
        *to.text = text;
        return DK_OK;
    }
    int place = place_in(parameter->choices, text);
    if (place < 0) {
        return fail_text(parameter, text, where, err);
    }
    if (parameter->type == DK_PARAMETER_LEVEL) {
        *to.whole = place;
    } else {
        *to.text = text;
    }
    return DK_OK;
}

dk_status dk_parameter_set_text(const dk_parameter *parameter, void *object, const char *text,
                                const char *where, dk_error *err)
{
    field to = field_of(parameter, object);
    char *end = NULL;
    bool number = isdigit((unsigned char)text[0]) || strchr("+-.", text[0]) != NULL;
    errno = 0;
    switch (parameter->type) {
    case DK_PARAMETER_INT: {
        long value = strtol(text, &end, 10);
        if (!number || errno != 0 || end == text || *end != '\0') {
            return fail_text(parameter, text, where, err);
        }
        return set_number(parameter, to, (double)value, text, where, err);
    }
    case DK_PARAMETER_REAL: {
        double value = strtod(text, &end);
        if (!number || end == text || *end != '\0' || !isfinite(value)) {
            return fail_text(parameter, text, where, err);
        }
        return set_number(parameter, to, value, text, where, err);
    }
    case DK_PARAMETER_SEED: {
        unsigned long long value = strtoull(text, &end, 10);
        if (!isdigit((unsigned char)text[0]) || errno != 0 || *end != '\0') {
            return fail_text(parameter, text, where, err);
        }
        *to.seed = value;
        return DK_OK;
    }
    case DK_PARAMETER_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            return fail_text(parameter, text, where, err);
        }
        *to.flag = text[0] == 't';
        return DK_OK;
    default:
        return set_words(parameter, to, text, where, err);
    }
}

/* A JSON value as a message shows it. */
static dk_status fail_json(const dk_parameter *parameter, const json_t *value,
                           const char *where, dk_error *err)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    dk_status status =
        fail_value(parameter, text != NULL ? text : dk_json_type_name(value), where, err);
    free(text);
    return status;
}

dk_status dk_parameter_set_json(const dk_parameter *parameter, void *object,
                                const json_t *value, const char *where, dk_error *err)
{
    field to = field_of(parameter, object);
    if (json_is_null(value)) {
        return DK_OK;
    }
    switch (parameter->type) {
    case DK_PARAMETER_INT:
        if (json_is_integer(value) && (double)json_integer_value(value) >= parameter->min &&
            (double)json_integer_value(value) <= parameter->max) {
            *to.whole = (int)json_integer_value(value);
            return DK_OK;
        }
        break;
    case DK_PARAMETER_REAL:
        if (json_is_number(value) && json_number_value(value) >= parameter->min &&
            json_number_value(value) <= parameter->max) {
            *to.real = json_number_value(value);
            return DK_OK;
        }
        break;
    case DK_PARAMETER_SEED:
        if (json_is_integer(value) && json_integer_value(value) >= 0) {
            *to.seed = (uint64_t)json_integer_value(value);
            return DK_OK;
        }
        if (json_is_string(value)) {
            return dk_parameter_set_text(parameter, object, json_string_value(value), where,
                                         err);
        }
        break;
    case DK_PARAMETER_BOOL:
        if (json_is_boolean(value)) {
            *to.flag = json_is_true(value);
            return DK_OK;
        }
        break;
    default:
        if (json_is_string(value)) {
            return set_words(parameter, to, json_string_value(value), where, err);
        }
    }
    return fail_json(parameter, value, where, err);
}

dk_status dk_parameter_check(const dk_parameter *parameter, const void *object, dk_error *err)
{
    field from = field_of(parameter, object);
    bool inside = true;
    switch (parameter->type) {
    case DK_PARAMETER_INT:
        inside = *from.whole >= parameter->min && *from.whole <= parameter->max;
        break;
    case DK_PARAMETER_REAL:
        inside =
            isnan(*from.real) || (*from.real >= parameter->min && *from.real <= parameter->max);
        break;
    case DK_PARAMETER_TEXT:
    case DK_PARAMETER_CHOICE: {
        const char *text = *from.text;
        field to = {.text = &text};
        return text == NULL ? DK_OK : set_words(parameter, to, text, parameter->name, err);
    }
    default:
        break;
    }
    if (inside) {
        return DK_OK;
    }
    json_t *value = dk_parameter_get_json(parameter, object);
    dk_status status = fail_json(parameter, value, parameter->name, err);
    json_decref(value);
    return status;
}

dk_status dk_parameter_check_all(const dk_parameter_table *table, const void *object,
                                 dk_error *err)
{
    for (int i = 0; i < table->count; i++) {
        DK_TRY(dk_parameter_check(&table->parameters[i], object, err));
    }
    return DK_OK;
}

/* The entry of a list "a, b, c" at a place as JSON; a number when there is none. */
static json_t *word_at(const char *choices, int place)
{
    const char *at = choices;
    for (int i = 0; i < place && *at != '\0'; i++) {
        at += strcspn(at, ",");
        at += strspn(at, ", ");
    }
    bool inside = place >= 0 && *at != '\0';
    return inside ? json_stringn(at, strcspn(at, ",")) : json_integer(place);
}

json_t *dk_parameter_get_json(const dk_parameter *parameter, const void *object)
{
    field from = field_of(parameter, object);
    json_t *value = NULL;
    switch (parameter->type) {
    case DK_PARAMETER_TEXT:
    case DK_PARAMETER_CHOICE:
        value = *from.text != NULL ? json_string(*from.text) : json_null();
        break;
    case DK_PARAMETER_INT:
        value = json_integer(*from.whole);
        break;
    case DK_PARAMETER_LEVEL:
        value = word_at(parameter->choices, *from.whole);
        break;
    case DK_PARAMETER_REAL:
        value = isfinite(*from.real) ? json_real(*from.real) : json_null();
        break;
    case DK_PARAMETER_SEED: {
        dk_string digits = DK_STRING_EMPTY;
        dk_string_printf(&digits, "%llu", (unsigned long long)*from.seed);
        value = json_string(digits.data);
        dk_string_release(&digits);
        break;
    }
    case DK_PARAMETER_BOOL:
        value = json_boolean(*from.flag);
        break;
    }
    return value;
}

json_t *dk_parameter_choices_json(const dk_parameter *parameter)
{
    if (parameter->choices == NULL) {
        return json_null();
    }
    json_t *list = json_array();
    for (const char *at = parameter->choices; *at != '\0';) {
        size_t length = strcspn(at, ",");
        json_array_append_new(list, json_stringn(at, length));
        at += length;
        at += strspn(at, ", ");
    }
    return list;
}

void dk_parameter_flag(dk_string *out, const dk_parameter *parameter)
{
    dk_string_puts(out, "--");
    for (const char *c = parameter->name; *c != '\0'; c++) {
        dk_string_putc(out, *c == '_' ? '-' : *c);
    }
}

const char *dk_parameter_unit(const dk_parameter *parameter)
{
    static const char *const units[] = {
        [DK_PARAMETER_TEXT] = "TEXT",       [DK_PARAMETER_CHOICE] = "NAME",
        [DK_PARAMETER_LEVEL] = "NAME",      [DK_PARAMETER_INT] = "N",
        [DK_PARAMETER_REAL] = "X",          [DK_PARAMETER_SEED] = "N",
        [DK_PARAMETER_BOOL] = "true|false",
    };
    return parameter->unit != NULL ? parameter->unit : units[parameter->type];
}

void dk_parameter_range(dk_string *out, const dk_parameter *parameter)
{
    switch (parameter->type) {
    case DK_PARAMETER_TEXT:
        dk_string_puts(out, "a text");
        if (parameter->max > 0) {
            dk_string_printf(out, " of up to %.0f bytes", parameter->max);
        }
        break;
    case DK_PARAMETER_CHOICE:
    case DK_PARAMETER_LEVEL:
        dk_string_puts(out, parameter->choices);
        break;
    case DK_PARAMETER_INT:
        dk_string_printf(out, "whole numbers from %.0f to %.0f", parameter->min,
                         parameter->max);
        break;
    case DK_PARAMETER_REAL:
        dk_string_printf(out, "numbers from %g to %g", parameter->min, parameter->max);
        break;
    case DK_PARAMETER_SEED:
        dk_string_puts(out, "whole numbers from 0 to 2^64 - 1");
        break;
    case DK_PARAMETER_BOOL:
        dk_string_puts(out, "true, false");
        break;
    }
}

int dk_name_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int row[LONGEST + 1];
    size_t columns = strlen(b);
    if (strlen(a) > LONGEST || columns > LONGEST) {
        return INT_MAX;
    }
    for (size_t j = 0; j <= columns; j++) {
        row[j] = (int)j;
    }
    for (size_t i = 0; a[i] != '\0'; i++) { /* Levenshtein, one row at a time */
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < columns; j++) {
            int replaced = diagonal + (plain(a[i]) != plain(b[j]) ? 1 : 0);
            int shorter = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = replaced < shorter ? replaced : shorter;
        }
    }
    return row[columns];
}
