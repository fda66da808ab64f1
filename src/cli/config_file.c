/* Configuration files: one flat mapping of flag names to values, in JSON or YAML (libyaml). */
#include <string.h>
#include <yaml.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"
#include "cli/arguments.h"

enum { MAX_BYTES = 1024 * 1024 };

typedef struct reader {
    yaml_parser_t parser;
    const char *path;
    json_t *object;
} reader;

static dk_status next(reader *r, yaml_event_t *event, dk_error *err)
{
    if (yaml_parser_parse(&r->parser, event) == 0) {
        const char *problem = r->parser.problem != NULL ? r->parser.problem : "not valid YAML";
        return dk_fail(err, DK_FORMAT, "%s: line %zu: %s", r->path,
                       r->parser.problem_mark.line + 1, problem);
    }
    return DK_OK;
}

static dk_status fail_event(const reader *r, const yaml_event_t *event, const char *expected,
                            dk_error *err)
{
    return dk_fail(err, DK_FORMAT, "%s: line %zu: expected %s", r->path,
                   event->start_mark.line + 1, expected);
}

/* A scalar as a string owned by the caller; NULL for the plain words of nothing. */
static dk_status read_scalar(const reader *r, const yaml_event_t *event, const char *expected,
                             char **out, dk_error *err)
{
    if (event->type != YAML_SCALAR_EVENT) {
        return fail_event(r, event, expected, err);
    }
    const char *text = (const char *)event->data.scalar.value;
    if (strlen(text) != event->data.scalar.length) {
        return fail_event(r, event, "text without NUL characters", err);
    }
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    bool nothing =
        plain && (text[0] == '\0' || strcmp(text, "null") == 0 || strcmp(text, "~") == 0);
    *out = nothing ? NULL : dk_strdup(text);
    return DK_OK;
}

static dk_status read_value(reader *r, const char *key, dk_error *err)
{
    yaml_event_t event;
    char *value = NULL;
    DK_TRY(next(r, &event, err));
    dk_status status =
        read_scalar(r, &event, "a text, a number, true or false behind the key", &value, err);
    if (status == DK_OK && json_object_get(r->object, key) != NULL) {
        status = dk_fail(err, DK_FORMAT, "%s: line %zu: a second '%.100s'", r->path,
                         event.start_mark.line + 1, key);
    }
    if (status == DK_OK) {
        json_t *text = value != NULL ? json_string(value) : json_null();
        if (json_object_set_new(r->object, key, text) != 0) {
            status = fail_event(r, &event, "UTF-8", err);
        }
    }
    dk_free(value);
    yaml_event_delete(&event);
    return status;
}

/* The pairs behind the mapping's start, to its end. */
static dk_status read_pairs(reader *r, dk_error *err)
{
    for (;;) {
        yaml_event_t event;
        char *key = NULL;
        DK_TRY(next(r, &event, err));
        bool end = event.type == YAML_MAPPING_END_EVENT;
        dk_status status = end ? DK_OK : read_scalar(r, &event, "a flag's name", &key, err);
        if (status == DK_OK && !end && key == NULL) {
            status = fail_event(r, &event, "a flag's name", err);
        }
        yaml_event_delete(&event);
        if (status == DK_OK && !end) {
            status = read_value(r, key, err);
        }
        dk_free(key);
        if (status != DK_OK || end) {
            return status;
        }
    }
}

/* Stream start, document start, the mapping (or nothing at all), document end, stream end. */
static dk_status read_document(reader *r, dk_error *err)
{
    for (;;) {
        yaml_event_t event;
        DK_TRY(next(r, &event, err));
        yaml_event_type_t type = event.type;
        dk_status status = DK_OK;
        bool empty = type == YAML_SCALAR_EVENT && event.data.scalar.length == 0;
        if (type == YAML_MAPPING_START_EVENT) {
            status = read_pairs(r, err);
        } else if ((type == YAML_SCALAR_EVENT && !empty) || type == YAML_ALIAS_EVENT ||
                   type == YAML_SEQUENCE_START_EVENT) {
            status = fail_event(r, &event, "lines such as 'width: 128'", err);
        }
        yaml_event_delete(&event);
        if (status != DK_OK || type == YAML_STREAM_END_EVENT) {
            return status;
        }
    }
}

static dk_status load_yaml(json_t **out, const char *path, dk_error *err)
{
    char *text;
    size_t size;
    DK_TRY(dk_file_read(&text, &size, path, MAX_BYTES, err));
    reader r = {.path = path};
    if (yaml_parser_initialize(&r.parser) == 0) {
        dk_free(text);
        return dk_fail(err, DK_MEMORY, "%s: out of memory", path);
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    r.object = json_object();
    dk_status status = read_document(&r, err);
    yaml_parser_delete(&r.parser);
    dk_free(text);
    if (status != DK_OK) {
        json_decref(r.object);
        return status;
    }
    *out = r.object;
    return DK_OK;
}

/* Null means "as if the key were absent". */
static void drop_nulls(json_t *object)
{
    const char *key;
    json_t *value;
    void *after;
    json_object_foreach_safe(object, after, key, value)
    {
        if (json_is_null(value)) {
            json_object_del(object, key);
        }
    }
}

dk_status dk_config_load(json_t **out, bool *texts, const char *path, dk_error *err)
{
    json_t *object;
    *texts = !dk_ends_with(path, ".json");
    DK_TRY(*texts ? load_yaml(&object, path, err)
                  : dk_json_load(&object, path, MAX_BYTES, err));
    if (!json_is_object(object)) {
        dk_status status = dk_fail(err, DK_FORMAT, "%s: the file is %s, expected an object",
                                   path, dk_json_type_name(object));
        json_decref(object);
        return status;
    }
    drop_nulls(object);
    *out = object;
    return DK_OK;
}
