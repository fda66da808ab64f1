/* Writing recipes. */
#include "engine/recipe.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/region.h"
#include "base/sha256.h"
#include "pipeline/request_parameters.h"

/* Large files of a hub cache lie under blobs/<SHA-256>. */
static bool named_by_checksum(char hex[DK_SHA256_HEX_BYTES], const char *path)
{
    char real[PATH_MAX];
    if (realpath(path, real) == NULL || strstr(real, "/blobs/") == NULL) {
        return false;
    }
    const char *name = dk_path_name(real);
    if (strlen(name) != DK_SHA256_HEX_BYTES - 1 ||
        strspn(name, "0123456789abcdef") != DK_SHA256_HEX_BYTES - 1) {
        return false;
    }
    memcpy(hex, name, DK_SHA256_HEX_BYTES);
    return true;
}

/* A file of many gigabytes takes long to read: it can be stopped between pieces. */
static dk_status hash_file(char hex[DK_SHA256_HEX_BYTES], const char *path,
                           const atomic_bool *cancel, dk_error *err)
{
    enum { PIECE = 16 * 1024 * 1024 };
    dk_mapping file;
    dk_digest digest = {0};
    DK_TRY(dk_mapping_open(&file, path, err));
    dk_status status = dk_sha256_init(&digest, err);
    for (size_t at = 0; at < file.size && status == DK_OK; at += PIECE) {
        size_t bytes = file.size - at < PIECE ? file.size - at : PIECE;
        dk_digest_update(&digest, file.data + at, bytes);
        dk_pages_give_back(file.data + at, bytes);
        if (cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed)) {
            status = dk_fail(err, DK_CANCELLED, "stopped on request while %s was read", path);
        }
    }
    if (status == DK_OK) {
        dk_digest_final(&digest, hex);
    }
    dk_digest_release(&digest);
    dk_mapping_close(&file);
    return status;
}

dk_status dk_recipe_weights(json_t **out, const char *folder, char *const *files,
                            const atomic_bool *cancel, dk_error *err)
{
    json_t *weights = json_object();
    size_t prefix = strlen(folder);
    for (size_t i = 0; files != NULL && files[i] != NULL; i++) {
        char hex[DK_SHA256_HEX_BYTES];
        if (!named_by_checksum(hex, files[i])) {
            dk_status status = hash_file(hex, files[i], cancel, err);
            if (status != DK_OK) {
                json_decref(weights);
                return status;
            }
        }
        const char *name = files[i];
        if (strncmp(name, folder, prefix) == 0) {
            name += prefix + (name[prefix] == '/' ? 1 : 0);
        }
        json_object_set_new(weights, name, json_string(hex));
    }
    *out = weights;
    return DK_OK;
}

dk_status dk_recipe_frames_sha256(char hex[DK_SHA256_HEX_BYTES], const uint8_t *rgb,
                                  size_t bytes, dk_error *err)
{
    dk_digest digest;
    DK_TRY(dk_sha256_init(&digest, err));
    dk_digest_update(&digest, rgb, bytes);
    dk_digest_final(&digest, hex);
    return DK_OK;
}

static dk_status sum_of(char hex[DK_SHA256_HEX_BYTES], const char *path, dk_error *err)
{
    hex[0] = '\0';
    return path != NULL ? dk_sha256_file(hex, path, err) : DK_OK;
}

dk_status dk_file_sums_read(dk_file_sums *out, const dk_request *request, dk_error *err)
{
    DK_TRY(sum_of(out->latents, request->initial_latents, err));
    DK_TRY(sum_of(out->image, request->image_path, err));
    return sum_of(out->mask, request->mask_path, err);
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, text != NULL ? json_string(text) : json_null());
}

/* What says nothing about this output. */
static bool left_out(const char *name, const dk_request *one)
{
    bool edits = strcmp(name, "image_path") == 0 || strcmp(name, "mask_path") == 0 ||
                 strcmp(name, "strength") == 0;
    return strcmp(name, "dump_tensors") == 0 || strcmp(name, "num_outputs_per_prompt") == 0 ||
           (strcmp(name, "initial_latents_first") == 0 && one->initial_latents == NULL) ||
           (edits && one->image_path == NULL);
}

/* One output: the seed and the latent are its own; how many there were does not matter. */
static void set_request(json_t *recipe, const dk_recipe_facts *facts)
{
    dk_request one = *facts->request;
    one.seed += (uint64_t)facts->output;
    one.initial_latents_first += facts->output;
    for (int i = 0; i < dk_request_parameters.count; i++) {
        const dk_parameter *parameter = &dk_request_parameters.parameters[i];
        if (!left_out(parameter->name, &one)) {
            json_object_set_new(recipe, parameter->name,
                                dk_parameter_get_json(parameter, &one));
        }
    }
}

static void set_sum(json_t *recipe, const char *key, const char *sum)
{
    if (sum[0] != '\0') {
        set_text(recipe, key, sum);
    }
}

/* Sums are rounded in another order on other ranks. */
static void set_layout(json_t *recipe, const dk_layout *l)
{
    if (l != NULL) {
        json_object_set_new(recipe, "ranks",
                            json_pack("{s:i, s:i, s:i, s:i}", "cfg", l->cfg, "ring", l->ring,
                                      "ulysses", l->ulysses, "tp", l->tp));
    }
}

dk_status dk_recipe_text(char **out, const dk_recipe_facts *facts, dk_error *err)
{
    char hex[DK_SHA256_HEX_BYTES];
    DK_TRY(dk_recipe_frames_sha256(hex, facts->rgb, facts->rgb_bytes, err));
    json_t *recipe = json_object();
    set_text(recipe, "engine", "darkroom " DK_VERSION);
    set_text(recipe, "model_path", facts->model);
    set_text(recipe, "pipeline", facts->pipeline);
    set_text(recipe, "dtype", facts->dtype);
    set_text(recipe, "cpu", facts->cpu_level);
    set_text(recipe, "attention_backend", facts->attention);
    set_text(recipe, "quantization", facts->quantization);
    if (strcmp(facts->quantization, "none") != 0) {
        json_object_set_new(recipe, "quantization_max_error",
                            json_real(facts->quantization_max_error));
    }
    set_layout(recipe, facts->layout);
    set_request(recipe, facts);
    set_sum(recipe, "initial_latents_sha256", facts->sums->latents);
    set_sum(recipe, "image_sha256", facts->sums->image);
    set_sum(recipe, "mask_sha256", facts->sums->mask);
    json_object_set(recipe, "weights_sha256", (json_t *)facts->weights);
    set_text(recipe, "frames_sha256", hex);
    char *text = json_dumps(recipe, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(recipe);
    if (text == NULL) {
        return dk_fail(err, DK_INTERNAL, "the recipe is not valid UTF-8");
    }
    *out = dk_strdup(text);
    free(text);
    return DK_OK;
}
