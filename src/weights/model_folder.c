/* Reading model_index.json. Component names become folder names, so they are checked. */
#include "weights/model_folder.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"

struct dk_model_folder {
    char *path, *index_path;
    json_t *index;
    const char *class_name; /* borrowed from index */
};

static dk_status check_entry(const dk_model_folder *folder, const char *key,
                             const json_t *value, dk_error *err)
{
    if (!json_is_array(value)) {
        return DK_OK; /* an option of the pipeline */
    }
    const json_t *library = json_array_get(value, 0), *class_name = json_array_get(value, 1);
    bool present = json_is_string(library) && json_is_string(class_name);
    bool absent = json_is_null(library) && json_is_null(class_name);
    if (json_array_size(value) != 2 || (!present && !absent)) {
        return dk_fail(err, DK_FORMAT,
                       "%s: '%.80s' is no [library, class] pair of strings or nulls",
                       folder->index_path, key);
    }
    if (present && !dk_path_is_inside(key, false)) {
        return dk_fail(err, DK_FORMAT, "%s: component '%.80s' is not a plain folder name",
                       folder->index_path, key);
    }
    return DK_OK;
}

static dk_status read_index(dk_model_folder *folder, dk_error *err)
{
    const char *key;
    json_t *value;
    DK_TRY(dk_json_load(&folder->index, folder->index_path, DK_JSON_CONFIG_BYTES, err));
    DK_TRY(dk_json_string(folder->index, "_class_name", DK_JSON_REQUIRED, &folder->class_name,
                          folder->index_path, err));
    json_object_foreach(folder->index, key, value)
    {
        DK_TRY(check_entry(folder, key, value, err));
    }
    return DK_OK;
}

dk_status dk_model_folder_open(dk_model_folder **out, const char *path, dk_error *err)
{
    dk_model_folder *folder = dk_alloc(sizeof *folder);
    folder->path = dk_strdup(path);
    folder->index_path = dk_path_join(path, "model_index.json");
    dk_status status = DK_OK;
    if (!dk_path_is_folder(path)) {
        status = dk_fail(err, DK_NOT_FOUND, "%s: no such model folder", path);
    } else if (!dk_path_exists(folder->index_path)) {
        status =
            dk_fail(err, DK_NOT_FOUND,
                    "%s: no model_index.json, expected a folder in diffusers layout", path);
    } else {
        status = read_index(folder, err);
    }
    if (status != DK_OK) {
        dk_model_folder_close(&folder);
        return status;
    }
    *out = folder;
    return DK_OK;
}

void dk_model_folder_close(dk_model_folder **folder)
{
    if (*folder != NULL) {
        json_decref((*folder)->index);
        dk_free((*folder)->index_path);
        dk_free((*folder)->path);
        dk_free(*folder);
        *folder = NULL;
    }
}

const char *dk_model_folder_path(const dk_model_folder *folder)
{
    return folder->path;
}

const char *dk_model_folder_class(const dk_model_folder *folder)
{
    return folder->class_name;
}

const json_t *dk_model_folder_index(const dk_model_folder *folder)
{
    return folder->index;
}

static const char *class_of(const dk_model_folder *folder, const char *component)
{
    return json_string_value(json_array_get(json_object_get(folder->index, component), 1));
}

bool dk_model_folder_has(const dk_model_folder *folder, const char *component)
{
    return class_of(folder, component) != NULL;
}

dk_status dk_model_folder_component(const dk_model_folder *folder, const char *component,
                                    const char *const *classes, char **path, dk_error *err)
{
    const char *class_name = class_of(folder, component);
    const json_t *pair = json_object_get(folder->index, component);
    if (pair != NULL && !json_is_array(pair) && !json_is_null(pair)) {
        return dk_fail(err, DK_FORMAT, "%s: component '%s' is %s, expected [library, class]",
                       folder->index_path, component, dk_json_type_name(pair));
    }
    if (class_name == NULL) {
        return dk_fail(err, DK_FORMAT, "%s: component '%s' is missing, expected class %s",
                       folder->index_path, component, classes[0]);
    }
    for (int i = 0; classes[i] != NULL; i++) {
        if (strcmp(classes[i], class_name) == 0) {
            char *joined = dk_path_join(folder->path, component);
            if (!dk_path_is_folder(joined)) {
                dk_status status =
                    dk_fail(err, DK_NOT_FOUND, "%s: no such component folder", joined);
                dk_free(joined);
                return status;
            }
            *path = joined;
            return DK_OK;
        }
    }
    return dk_fail(err, DK_UNSUPPORTED, "%s: component '%s' has class '%s', accepted is %s",
                   folder->index_path, component, class_name, classes[0]);
}

dk_status dk_model_folder_config(const dk_model_folder *folder, const char *component,
                                 const char *file, json_t **out, char **where, dk_error *err)
{
    dk_string path = DK_STRING_EMPTY;
    dk_string_printf(&path, "%s/%s/%s", folder->path, component, file);
    dk_status status = dk_json_load(out, path.data, DK_JSON_CONFIG_BYTES, err);
    if (status == DK_OK && !json_is_object(*out)) {
        status = dk_fail(err, DK_FORMAT, "%s: %s, expected an object", path.data,
                         dk_json_type_name(*out));
        json_decref(*out);
        *out = NULL;
    }
    if (status == DK_OK) {
        *where = dk_string_take(&path);
    }
    dk_string_release(&path);
    return status;
}
