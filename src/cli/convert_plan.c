/* Planning a conversion. */
#include "cli/convert_plan.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"

enum { INDEX_BYTES = 64 * 1024 * 1024 };

/* What diffusers keeps in f32 of a WanTransformer3DModel (_keep_in_fp32_modules): our
   transformer computes its modulation and norms in f32, too. */
static const char *const wan_keep_f32[] = {
    "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", NULL};

dk_recast_options dk_convert_options(const dk_convert_item *item, dk_dtype dtype)
{
    return (dk_recast_options){.dtype = dtype,
                               .keep_f32 = item->keep_f32 ? wan_keep_f32 : NULL};
}

/* In a model folder, weights lie in the components' folders; what lies beside model_index.json
   belongs to none and is copied. */
static dk_convert_kind kind_of(const char *path, bool is_model)
{
    static const char *const unread[] = {".bin", ".pt",      ".pth",  ".ckpt",
                                         ".h5",  ".msgpack", ".onnx", ".gguf"};
    bool loose = is_model && strchr(path, '/') == NULL;
    if (dk_ends_with(path, ".safetensors")) {
        return loose ? DK_CONVERT_COPY : DK_CONVERT_RECAST;
    }
    if (dk_ends_with(path, ".safetensors.index.json")) {
        return DK_CONVERT_INDEX;
    }
    for (size_t i = 0; i < sizeof unread / sizeof *unread; i++) {
        if (dk_ends_with(path, unread[i])) {
            return DK_CONVERT_SKIP;
        }
    }
    return DK_CONVERT_COPY;
}

/* The config.json beside a weight file names the class; a file alone is known by its tensors.
 */
static bool is_wan_transformer(const char *path, const dk_safetensors *file)
{
    const char *name = dk_path_name(path), *class_name = NULL;
    dk_string config = DK_STRING_EMPTY;
    json_t *json = NULL;
    dk_string_append(&config, path, (size_t)(name - path));
    dk_string_puts(&config, "config.json");
    if (dk_json_load(&json, config.data, DK_JSON_CONFIG_BYTES, NULL) == DK_OK) {
        class_name = json_string_value(json_object_get(json, "_class_name"));
    }
    bool found =
        class_name != NULL
            ? strcmp(class_name, "WanTransformer3DModel") == 0
            : dk_safetensors_find(file, "scale_shift_table") != NULL &&
                  dk_safetensors_find(
                      file, "condition_embedder.time_embedder.linear_1.weight") != NULL;
    json_decref(json);
    dk_string_release(&config);
    return found;
}

static dk_status plan_item(dk_convert_plan *plan, int i, bool is_model, dk_dtype dtype,
                           dk_error *err)
{
    dk_convert_item *item = &plan->items[i];
    item->path = plan->files.paths[i];
    item->kind = kind_of(item->path, is_model);
    item->bytes = item->new_bytes = plan->files.sizes[i];
    if (item->kind == DK_CONVERT_SKIP) {
        return DK_OK;
    }
    if (item->kind == DK_CONVERT_RECAST) {
        char *path = dk_path_join(plan->folder, item->path);
        dk_status status = dk_safetensors_open(&item->file, path, err);
        if (status == DK_OK) {
            item->keep_f32 = is_wan_transformer(path, item->file);
            dk_recast_options options = dk_convert_options(item, dtype);
            item->new_bytes = dk_recast_bytes(item->file, &options);
            plan->recasts++;
        }
        dk_free(path);
        DK_TRY(status);
    }
    plan->bytes += item->bytes;
    plan->new_bytes += item->new_bytes;
    return DK_OK;
}

dk_status dk_convert_plan_make(dk_convert_plan *out, const char *folder, const char *file_name,
                               dk_dtype dtype, dk_error *err)
{
    dk_convert_plan plan = {.folder = dk_strdup(folder)};
    dk_status status = DK_OK;
    if (file_name != NULL) {
        plan.files.paths = dk_alloc(sizeof *plan.files.paths);
        plan.files.sizes = dk_alloc(sizeof *plan.files.sizes);
        plan.files.paths[plan.files.count++] = dk_strdup(file_name);
    } else {
        status = dk_list_files(&plan.files, folder, err);
    }
    bool is_model = false;
    for (int i = 0; i < plan.files.count; i++) {
        is_model = is_model || strcmp(plan.files.paths[i], "model_index.json") == 0;
    }
    plan.items = dk_alloc((size_t)plan.files.count * sizeof *plan.items);
    for (int i = 0; i < plan.files.count && status == DK_OK; i++) {
        status = plan_item(&plan, i, is_model, dtype, err);
    }
    if (status == DK_OK && plan.recasts == 0) {
        status = dk_fail(err, DK_NOT_FOUND, "%s: no safetensors files to convert", folder);
    }
    if (status != DK_OK) {
        dk_convert_plan_release(&plan);
        return status;
    }
    *out = plan;
    return DK_OK;
}

void dk_convert_plan_release(dk_convert_plan *plan)
{
    for (int i = 0; i < plan->files.count && plan->items != NULL; i++) {
        dk_safetensors_close(&plan->items[i].file);
    }
    dk_free(plan->items);
    dk_file_list_release(&plan->files);
    dk_free(plan->folder);
    *plan = (dk_convert_plan){0};
}

/* The plan's entry for a shard beside an index. */
static const dk_convert_item *find_shard(const dk_convert_plan *plan,
                                         const dk_convert_item *index, const char *shard)
{
    size_t folder = (size_t)(dk_path_name(index->path) - index->path);
    for (int i = 0; i < plan->files.count; i++) {
        const char *path = plan->items[i].path;
        if (strncmp(path, index->path, folder) == 0 && strcmp(path + folder, shard) == 0) {
            return &plan->items[i];
        }
    }
    return NULL;
}

/* Adds up the shards that the index names, each once. */
static dk_status new_total(uint64_t *total, const dk_convert_plan *plan,
                           const dk_convert_item *item, const json_t *map, const char *where,
                           dk_error *err)
{
    json_t *seen = json_object(), *shard;
    const char *tensor;
    dk_status status = DK_OK;
    *total = 0;
    json_object_foreach((json_t *)map, tensor, shard)
    {
        const char *name = json_string_value(shard);
        const dk_convert_item *found = name != NULL ? find_shard(plan, item, name) : NULL;
        if (found == NULL || found->file == NULL) {
            status = dk_fail(err, DK_FORMAT, "%s: the shard of tensor '%.200s' is missing",
                             where, tensor);
            break;
        }
        if (json_object_get(seen, name) == NULL) {
            json_object_set_new(seen, name, json_true());
            *total += found->new_bytes;
        }
    }
    json_decref(seen);
    return status;
}

dk_status dk_convert_index(char **text, const dk_convert_plan *plan,
                           const dk_convert_item *item, dk_error *err)
{
    char *path = dk_path_join(plan->folder, item->path);
    json_t *index = NULL;
    uint64_t total = 0;
    dk_status status = dk_json_load(&index, path, INDEX_BYTES, err);
    if (status == DK_OK && !json_is_object(json_object_get(index, "weight_map"))) {
        status = dk_fail(err, DK_FORMAT, "%s: no weight_map", path);
    }
    if (status == DK_OK) {
        status = new_total(&total, plan, item, json_object_get(index, "weight_map"), path, err);
    }
    if (status == DK_OK) {
        json_t *metadata = json_object_get(index, "metadata");
        if (!json_is_object(metadata)) {
            metadata = json_object();
            json_object_set_new(index, "metadata", metadata);
        }
        json_object_set_new(metadata, "total_size", json_integer((json_int_t)total));
        *text = json_dumps(index, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    }
    json_decref(index);
    dk_free(path);
    return status;
}
