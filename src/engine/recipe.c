/* Writing recipes. */
#include "engine/recipe.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/sha256.h"

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

dk_status dk_recipe_weights(json_t **out, const char *folder, char *const *files, dk_error *err)
{
    json_t *weights = json_object();
    size_t prefix = strlen(folder);
    for (size_t i = 0; files != NULL && files[i] != NULL; i++) {
        char hex[DK_SHA256_HEX_BYTES];
        if (!named_by_checksum(hex, files[i])) {
            dk_status status = dk_sha256_file(hex, files[i], err);
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

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, text != NULL ? json_string(text) : json_null());
}

dk_status dk_recipe_text(char **out, const dk_recipe_facts *facts, dk_error *err)
{
    const dk_request *r = facts->request;
    char hex[DK_SHA256_HEX_BYTES], seed[32];
    dk_digest digest;
    DK_TRY(dk_sha256_init(&digest, err));
    dk_digest_update(&digest, facts->rgb, facts->rgb_bytes);
    dk_digest_final(&digest, hex);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)facts->seed);
    json_t *recipe = json_object();
    set_text(recipe, "engine", "darkroom " DK_VERSION);
    set_text(recipe, "model_path", facts->model);
    set_text(recipe, "pipeline", facts->pipeline);
    set_text(recipe, "dtype", facts->dtype);
    set_text(recipe, "prompt", r->prompt);
    set_text(recipe, "negative_prompt", r->negative_prompt);
    json_object_set_new(recipe, "width", json_integer(r->width));
    json_object_set_new(recipe, "height", json_integer(r->height));
    json_object_set_new(recipe, "num_frames", json_integer(r->num_frames));
    json_object_set_new(recipe, "num_inference_steps", json_integer(r->num_inference_steps));
    json_object_set_new(recipe, "guidance_scale", json_real(r->guidance_scale));
    json_object_set_new(recipe, "flow_shift",
                        isnan(r->flow_shift) ? json_null() : json_real(r->flow_shift));
    set_text(recipe, "sampler", r->sampler);
    set_text(recipe, "seed", seed); /* text: readers of JSON lose digits above 2^53 */
    set_text(recipe, "noise", r->noise);
    json_object_set_new(recipe, "fps", json_real(r->fps));
    set_text(recipe, "initial_latents", r->initial_latents);
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
