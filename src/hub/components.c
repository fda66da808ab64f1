/* The components of a diffusers folder. */
#include "hub/components.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"

enum { COMPONENTS_MAX = 64, INDEX_BYTES_MAX = 64 * 1024 * 1024 };

const char *const dk_hub_weight_stems[] = {"diffusion_pytorch_model", "model", NULL};

static dk_hub_component_kind kind_of(const char *class_name)
{
    if (strstr(class_name, "Tokenizer") != NULL) {
        return DK_HUB_TOKENIZER;
    }
    if (strstr(class_name, "Scheduler") != NULL) {
        return DK_HUB_SCHEDULER;
    }
    bool processor = strstr(class_name, "Processor") != NULL ||
                     strstr(class_name, "FeatureExtractor") != NULL;
    return processor ? DK_HUB_PROCESSOR : DK_HUB_MODEL;
}

static dk_status add_component(dk_hub_components *out, const char *key, const json_t *value,
                               const char *path, dk_error *err)
{
    /* A component is ["library", "Class"]; [null, null] is one that this model lacks. */
    const json_t *class_name = json_array_get(value, 1);
    if (key[0] == '_' || json_array_size(value) != 2 || !json_is_string(class_name)) {
        return DK_OK;
    }
    if (!dk_path_is_inside(key, false)) {
        return dk_fail(err, DK_FORMAT, "%s: component '%s' is not the name of a folder", path,
                       key);
    }
    if (out->count == COMPONENTS_MAX) {
        return dk_fail(err, DK_FORMAT, "%s: more than %d components", path, COMPONENTS_MAX);
    }
    out->items[out->count++] = (dk_hub_component){
        .name = dk_strdup(key), .kind = kind_of(json_string_value(class_name))};
    return DK_OK;
}

dk_status dk_hub_components_load(dk_hub_components *out, const char *path, dk_error *err)
{
    json_t *index = NULL;
    dk_hub_components found = {.items = dk_alloc(COMPONENTS_MAX * sizeof *found.items)};
    dk_status status = DK_OK;
    DK_TRY_DONE(dk_json_load(&index, path, DK_JSON_CONFIG_BYTES, err));
    if (!json_is_object(index)) {
        status = dk_fail(err, DK_FORMAT, "%s: is %s, expected an object", path,
                         dk_json_type_name(index));
        goto done;
    }
    const char *key;
    json_t *value;
    json_object_foreach(index, key, value)
    {
        DK_TRY_DONE(add_component(&found, key, value, path, err));
    }
    if (found.count == 0) {
        status = dk_fail(err, DK_FORMAT, "%s: names no components", path);
        goto done;
    }
    *out = found;
    found = (dk_hub_components){0};
done:
    json_decref(index);
    dk_hub_components_release(&found);
    return status;
}

void dk_hub_components_release(dk_hub_components *components)
{
    for (size_t i = 0; i < components->count; i++) {
        dk_free(components->items[i].name);
    }
    dk_free(components->items);
    *components = (dk_hub_components){0};
}

const dk_hub_component *dk_hub_components_find(const dk_hub_components *components,
                                               const char *name, size_t name_length)
{
    for (size_t i = 0; i < components->count; i++) {
        const char *known = components->items[i].name;
        if (strlen(known) == name_length && memcmp(known, name, name_length) == 0) {
            return &components->items[i];
        }
    }
    return NULL;
}

/* True when folder/name<tail> is there; a link to a blob that is gone counts as missing. */
static bool has_file(const char *folder, const char *name, const char *tail)
{
    dk_string path = DK_STRING_EMPTY;
    dk_string_printf(&path, "%s/%s%s", folder, name, tail);
    bool there = dk_path_exists(path.data);
    dk_string_release(&path);
    return there;
}

static dk_status check_any(const char *folder, const char *const *names, dk_error *err)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        if (has_file(folder, names[i], "")) {
            return DK_OK;
        }
    }
    return dk_fail(err, DK_NOT_FOUND, "%s/%s is missing", folder, names[0]);
}

static dk_status check_tokenizer(const char *folder, dk_error *err)
{
    static const char *const vocabularies[] = {"tokenizer.json",  "spiece.model",
                                               "tokenizer.model", "sentencepiece.bpe.model",
                                               "vocab.json",      NULL};
    DK_TRY(check_any(folder, vocabularies, err));
    bool byte_pairs = has_file(folder, "vocab.json", "");
    if (byte_pairs && !has_file(folder, "merges.txt", "") &&
        !has_file(folder, "tokenizer.json", "")) {
        return dk_fail(err, DK_NOT_FOUND, "%s/merges.txt is missing", folder);
    }
    return DK_OK;
}

/* Every file that the shard index names. */
static dk_status check_shards(const char *folder, const char *stem, dk_error *err)
{
    json_t *index = NULL;
    dk_string path = DK_STRING_EMPTY;
    dk_string_printf(&path, "%s/%s.safetensors.index.json", folder, stem);
    dk_status status = DK_OK;
    DK_TRY_DONE(dk_json_load(&index, path.data, INDEX_BYTES_MAX, err));
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        status = dk_fail(err, DK_FORMAT, "%s: 'weight_map' is %s, expected an object",
                         path.data, dk_json_type_name(map));
        goto done;
    }
    const char *checked = ""; /* neighbours share a shard: skips most look-ups */
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        const char *shard = json_string_value(value);
        if (shard == NULL || !dk_path_is_inside(shard, false)) {
            status = dk_fail(err, DK_FORMAT, "%s: tensor '%s' is not in a file of the folder",
                             path.data, key);
            goto done;
        }
        if (strcmp(shard, checked) != 0 && !has_file(folder, shard, "")) {
            status = dk_fail(err, DK_NOT_FOUND, "%s/%s is missing", folder, shard);
            goto done;
        }
        checked = shard;
    }
done:
    json_decref(index);
    dk_string_release(&path);
    return status;
}

static dk_status check_model(const char *folder, dk_error *err)
{
    if (!has_file(folder, "config.json", "")) {
        return dk_fail(err, DK_NOT_FOUND, "%s/config.json is missing", folder);
    }
    for (size_t i = 0; dk_hub_weight_stems[i] != NULL; i++) {
        if (has_file(folder, dk_hub_weight_stems[i], ".safetensors.index.json")) {
            return check_shards(folder, dk_hub_weight_stems[i], err);
        }
        if (has_file(folder, dk_hub_weight_stems[i], ".safetensors")) {
            return DK_OK;
        }
    }
    return dk_fail(err, DK_NOT_FOUND,
                   "%s has no weights: neither %s.safetensors nor %s.safetensors, nor an index "
                   "of shards",
                   folder, dk_hub_weight_stems[0], dk_hub_weight_stems[1]);
}

static dk_status check_component(const char *folder, dk_hub_component_kind kind, dk_error *err)
{
    static const char *const scheduler[] = {"scheduler_config.json", NULL};
    static const char *const processor[] = {"preprocessor_config.json", "processor_config.json",
                                            NULL};
    switch (kind) {
    case DK_HUB_TOKENIZER:
        return check_tokenizer(folder, err);
    case DK_HUB_SCHEDULER:
        return check_any(folder, scheduler, err);
    case DK_HUB_PROCESSOR:
        return check_any(folder, processor, err);
    default:
        return check_model(folder, err);
    }
}

dk_status dk_hub_check_folder(const char *folder, dk_error *err)
{
    dk_hub_components components = {0};
    char *index = dk_path_join(folder, "model_index.json");
    dk_status status = DK_OK;
    if (!dk_path_exists(index)) {
        status = dk_fail(err, DK_NOT_FOUND, "%s is missing", index);
        goto done;
    }
    DK_TRY_DONE(dk_hub_components_load(&components, index, err));
    for (size_t i = 0; i < components.count && status == DK_OK; i++) {
        char *path = dk_path_join(folder, components.items[i].name);
        status = check_component(path, components.items[i].kind, err);
        dk_free(path);
    }
done:
    dk_hub_components_release(&components);
    dk_free(index);
    return status;
}
