/* Opening a component's files. Nothing outside the folder is opened: shard names are plain file
   names. */
#include "weights/weights.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"
#include "tensor/convert.h"

enum { MAX_SHARDS = 1000, MAX_LAYERS = 10000 };

struct dk_weights {
    atomic_int references;
    int file_count;
    char **paths;           /* [file_count] */
    dk_safetensors **files; /* [file_count] */
    const dk_weight **all;  /* [count], by name */
    int count;
    bool random;
    dk_dtype random_dtype;
    uint64_t seed;
    dk_device *device; /* borrowed, may be NULL */
    dk_comm *comm;     /* borrowed, may be NULL */
    dk_shards *shards; /* borrowed, may be NULL */
    const char *shard_prefix;
    dk_component component;
};

static int by_name(const void *a, const void *b)
{
    const dk_weight *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static dk_status add_file(dk_weights *weights, const char *folder, const char *name,
                          dk_error *err)
{
    char *path = dk_path_join(folder, name);
    dk_safetensors *file = NULL;
    dk_status status = dk_safetensors_open(&file, path, err);
    if (status != DK_OK) {
        dk_free(path);
        return status;
    }
    size_t count = (size_t)weights->file_count + 1;
    weights->paths = dk_realloc(weights->paths, count * sizeof *weights->paths);
    weights->files = dk_realloc(weights->files, count * sizeof *weights->files);
    weights->paths[weights->file_count] = path;
    weights->files[weights->file_count] = file;
    weights->file_count++;
    return DK_OK;
}

static int find_file(const dk_weights *weights, const char *name)
{
    for (int i = 0; i < weights->file_count; i++) {
        if (strcmp(dk_path_name(weights->paths[i]), name) == 0) {
            return i;
        }
    }
    return -1;
}

/* Sorts all tensors of all files by name; a name in two files is an error. */
static dk_status collect(dk_weights *weights, const char *folder, dk_error *err)
{
    int count = 0;
    for (int i = 0; i < weights->file_count; i++) {
        count += dk_safetensors_count(weights->files[i]);
    }
    weights->all = dk_alloc((size_t)count * sizeof *weights->all);
    for (int i = 0; i < weights->file_count; i++) {
        for (int k = 0; k < dk_safetensors_count(weights->files[i]); k++) {
            weights->all[weights->count++] = dk_safetensors_at(weights->files[i], k);
        }
    }
    qsort(weights->all, (size_t)count, sizeof *weights->all, by_name);
    for (int i = 1; i < count; i++) {
        if (strcmp(weights->all[i - 1]->name, weights->all[i]->name) == 0) {
            return dk_fail(err, DK_FORMAT, "%s: tensor '%s' is in two shards", folder,
                           weights->all[i]->name);
        }
    }
    return DK_OK;
}

/* Every tensor of the index must be in the shard that the index names. */
static dk_status check_map(const dk_weights *weights, const json_t *map, const char *where,
                           dk_error *err)
{
    const char *tensor;
    json_t *shard;
    json_object_foreach((json_t *)map, tensor, shard)
    {
        int file = find_file(weights, json_string_value(shard));
        if (file < 0 || dk_safetensors_find(weights->files[file], tensor) == NULL) {
            return dk_fail(err, DK_FORMAT, "%s: tensor '%s' is not in its shard '%s'", where,
                           tensor, json_string_value(shard));
        }
    }
    return DK_OK;
}

static dk_status open_shards(dk_weights *weights, const char *folder, const json_t *index,
                             const char *where, dk_error *err)
{
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        return dk_fail(err, DK_FORMAT, "%s: weight_map is %s, expected a filled object", where,
                       json_is_object(map) ? "empty" : dk_json_type_name(map));
    }
    const char *tensor;
    json_t *shard;
    json_object_foreach((json_t *)map, tensor, shard)
    {
        const char *name = json_string_value(shard);
        if (name == NULL) {
            return dk_fail(err, DK_FORMAT,
                           "%s: the shard of tensor '%s' is %s, expected a string", where,
                           tensor, dk_json_type_name(shard));
        }
        if (!dk_path_is_inside(name, false) || !dk_ends_with(name, ".safetensors")) {
            return dk_fail(
                err, DK_FORMAT,
                "%s: shard '%.200s' is not the name of a .safetensors file beside the "
                "index",
                where, name);
        }
        if (find_file(weights, name) < 0) {
            if (weights->file_count == MAX_SHARDS) {
                return dk_fail(err, DK_FORMAT, "%s: more than %d shards", where, MAX_SHARDS);
            }
            DK_TRY(add_file(weights, folder, name, err));
        }
    }
    return check_map(weights, map, where, err);
}

static dk_status open_stem(dk_weights *weights, const char *folder, const char *stem,
                           bool *found, dk_error *err)
{
    dk_string name = DK_STRING_EMPTY;
    dk_string_printf(&name, "%s.safetensors.index.json", stem);
    char *index_path = dk_path_join(folder, name.data);
    dk_string_clear(&name);
    dk_string_printf(&name, "%s.safetensors", stem);
    char *file_path = dk_path_join(folder, name.data);
    json_t *index = NULL;
    dk_status status = DK_OK;
    *found = true;
    if (dk_path_exists(file_path)) {
        status = add_file(weights, folder, name.data, err);
    } else if (dk_path_exists(index_path)) {
        status = dk_json_load(&index, index_path, 64 * 1024 * 1024, err);
        if (status == DK_OK) {
            status = open_shards(weights, folder, index, index_path, err);
        }
    } else {
        *found = false;
    }
    json_decref(index);
    dk_free(file_path);
    dk_free(index_path);
    dk_string_release(&name);
    return status;
}

dk_status dk_weights_open(dk_weights **out, const char *folder, dk_error *err)
{
    static const char *const stems[] = {"diffusion_pytorch_model", "model"};
    dk_weights *weights = dk_alloc(sizeof *weights);
    atomic_init(&weights->references, 1);
    bool found = false;
    dk_status status = DK_OK;
    for (int i = 0; i < 2 && !found && status == DK_OK; i++) {
        status = open_stem(weights, folder, stems[i], &found, err);
    }
    if (status == DK_OK && !found) {
        status = dk_fail(err, DK_NOT_FOUND,
                         "%s: no weights, expected diffusion_pytorch_model.safetensors or "
                         "model.safetensors, or one of them with an .index.json",
                         folder);
    }
    if (status == DK_OK) {
        status = collect(weights, folder, err);
    }
    if (status != DK_OK) {
        dk_weights_unref(weights);
        return status;
    }
    *out = weights;
    return DK_OK;
}

dk_weights *dk_weights_create_random(dk_dtype dtype, uint64_t seed)
{
    dk_weights *weights = dk_alloc(sizeof *weights);
    atomic_init(&weights->references, 1);
    weights->random = true;
    weights->random_dtype = dtype;
    weights->seed = seed;
    return weights;
}

dk_weights *dk_weights_ref(dk_weights *weights)
{
    atomic_fetch_add(&weights->references, 1);
    return weights;
}

void dk_weights_unref(dk_weights *weights)
{
    if (weights == NULL || atomic_fetch_sub(&weights->references, 1) != 1) {
        return;
    }
    for (int i = 0; i < weights->file_count; i++) {
        dk_safetensors_close(&weights->files[i]);
        dk_free(weights->paths[i]);
    }
    for (int i = 0; weights->random && i < weights->count; i++) {
        dk_weight *made = (dk_weight *)weights->all[i];
        dk_free((char *)made->name);
        dk_free(made->tensor.data);
        dk_free(made);
    }
    dk_free(weights->paths);
    dk_free(weights->files);
    dk_free(weights->all);
    dk_free(weights);
}

void dk_weights_split(dk_weights *weights, dk_comm *comm)
{
    weights->comm = comm;
}

dk_comm *dk_weights_comm(const dk_weights *weights)
{
    return weights->comm;
}

void dk_weights_shard(dk_weights *weights, dk_shards *shards, const char *prefix)
{
    weights->shards = weights->random ? NULL : shards;
    weights->shard_prefix = prefix;
}

dk_shards *dk_weights_shards(const dk_weights *weights)
{
    return weights->shards;
}

int dk_weights_layer(const dk_weights *weights, const char *name)
{
    if (weights->shards == NULL || !dk_starts_with(name, weights->shard_prefix)) {
        return -1;
    }
    const char *digits = name + strlen(weights->shard_prefix);
    char *end;
    long number = strtol(digits, &end, 10);
    bool plain = digits[0] >= '0' && digits[0] <= '9' && *end == '.';
    return plain && number < MAX_LAYERS ? (int)number : -1;
}

void dk_weights_attach(dk_weights *weights, dk_device *device, dk_component component)
{
    weights->device = device;
    weights->component = component;
}

dk_device *dk_weights_device(const dk_weights *weights, dk_component *component)
{
    *component = weights->component;
    return weights->device;
}

const dk_weight *dk_weights_find(const dk_weights *weights, const char *name)
{
    dk_weight key = {.name = name};
    const dk_weight *pointer = &key;
    const dk_weight **found = NULL;
    if (weights->count > 0 && !weights->random) {
        found = bsearch(&pointer, weights->all, (size_t)weights->count, sizeof *weights->all,
                        by_name);
    }
    return found != NULL ? *found : NULL;
}

int dk_weights_count(const dk_weights *weights)
{
    return weights->count;
}

const dk_weight *dk_weights_at(const dk_weights *weights, int index)
{
    return weights->all[index];
}

bool dk_weights_are_random(const dk_weights *weights)
{
    return weights->random;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Sums of four uniforms are normal enough for timing; 16-bit steps, fast to make. */
static void fill_random(dk_tensor *tensor, uint64_t seed, float centre)
{
    enum { CHUNK = 4096 };
    float values[CHUNK];
    uint64_t state = seed | 1;
    int64_t count = dk_tensor_count(tensor);
    size_t width = dk_dtype_bytes(tensor->dtype);
    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        for (int64_t k = 0; k < n; k++) {
            uint64_t bits = next_random(&state);
            float sum = 0;
            for (int part = 0; part < 4; part++) {
                sum += (float)(bits >> (16 * part) & 0xffff) / 65536.0f - 0.5f;
            }
            values[k] = centre + 0.02f * 1.732f * sum;
        }
        dk_convert_from_f32((char *)tensor->data + (size_t)i * width, tensor->dtype, values, n);
    }
}

dk_status dk_weights_make(dk_weights *weights, const dk_weight **out, const char *name,
                          int rank, const int64_t *shape, dk_error *err)
{
    dk_tensor tensor = dk_tensor_view(NULL, weights->random_dtype, rank, shape);
    DK_TRY(dk_try_alloc(&tensor.data, dk_tensor_bytes(&tensor), name, err));
    bool is_norm = strstr(name, "norm") != NULL &&
                   (dk_ends_with(name, "weight") || dk_ends_with(name, "gamma"));
    uint64_t seed = weights->seed + 0x9e3779b97f4a7c15u;
    for (const char *c = name; *c != '\0'; c++) {
        seed = (seed ^ (unsigned char)*c) * 0x100000001b3u;
    }
    fill_random(&tensor, seed, is_norm ? 1.0f : 0.0f);
    dk_weight *made = dk_alloc(sizeof *made);
    made->name = dk_strdup(name);
    made->tensor = tensor;
    weights->all =
        dk_realloc(weights->all, ((size_t)weights->count + 1) * sizeof *weights->all);
    weights->all[weights->count++] = made;
    *out = made;
    return DK_OK;
}

int dk_weights_file_count(const dk_weights *weights)
{
    return weights->file_count;
}

const char *dk_weights_file(const dk_weights *weights, int index)
{
    return weights->paths[index];
}
