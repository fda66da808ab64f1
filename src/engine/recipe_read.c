/* Reading recipes. A recipe comes out of somebody's file: every value is checked against the
   parameter table, and what is unknown is passed over. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "engine/recipe.h"
#include "pipeline/request_parameters.h"

static dk_status read_request(dk_recipe *recipe, const char *where, dk_error *err)
{
    recipe->request = (dk_request){.prompt = "",
                                   .negative_prompt = "",
                                   .noise = "torch-cpu",
                                   .flow_shift = NAN,
                                   .num_outputs_per_prompt = 1,
                                   .fps = 16,
                                   .strength = 0.8};
    static const char *const needed[] = {
        "prompt",         "width", "height", "num_frames", "num_inference_steps",
        "guidance_scale", "seed"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        const json_t *value = json_object_get(recipe->json, needed[i]);
        if (value == NULL || json_is_null(value)) {
            return dk_fail(err, DK_FORMAT, "%s: the recipe has no %s", where, needed[i]);
        }
    }
    for (int i = 0; i < dk_request_parameters.count; i++) {
        const dk_parameter *parameter = &dk_request_parameters.parameters[i];
        const json_t *value = json_object_get(recipe->json, parameter->name);
        if (value != NULL && strcmp(parameter->name, "dump_tensors") != 0 &&
            strcmp(parameter->name, "num_outputs_per_prompt") != 0 &&
            dk_parameter_set_json(parameter, &recipe->request, value, parameter->name, err) !=
                DK_OK) {
            return dk_fail_in(err, DK_FORMAT, "%s: recipe", where);
        }
    }
    return DK_OK;
}

/* A recipe without it was made by one rank, or before ranks were told. */
static dk_status read_layout(dk_recipe *recipe, const char *where, dk_error *err)
{
    dk_layout *l = &recipe->layout;
    const struct {
        const char *key;
        int *to;
    } degrees[] = {
        {"cfg", &l->cfg}, {"ring", &l->ring}, {"ulysses", &l->ulysses}, {"tp", &l->tp}};
    const json_t *ranks = json_object_get(recipe->json, "ranks");
    *l = (dk_layout){.cfg = 1, .ring = 1, .ulysses = 1, .tp = 1};
    if (ranks != NULL && !json_is_object(ranks)) {
        return dk_fail(err, DK_FORMAT, "%s: ranks is %s, expected an object", where,
                       dk_json_type_name(ranks));
    }
    for (size_t i = 0; ranks != NULL && i < sizeof degrees / sizeof *degrees; i++) {
        int64_t degree = 1;
        DK_TRY(
            dk_json_int(ranks, degrees[i].key, 1, DK_COMM_MOST_RANKS, 0, &degree, where, err));
        *degrees[i].to = (int)degree;
    }
    return DK_OK;
}

static dk_status read_facts(dk_recipe *recipe, const char *where, dk_error *err)
{
    const struct {
        const char *key;
        const char **to;
        unsigned flags;
    } texts[] = {
        {"engine", &recipe->engine, DK_JSON_REQUIRED},
        {"model_path", &recipe->model, DK_JSON_REQUIRED},
        {"pipeline", &recipe->pipeline, DK_JSON_REQUIRED},
        {"dtype", &recipe->dtype, DK_JSON_REQUIRED},
        {"cpu", &recipe->cpu_level, DK_JSON_NULL_IS_ABSENT},
        {"quantization", &recipe->quantization, DK_JSON_NULL_IS_ABSENT},
        {"attention_backend", &recipe->attention, DK_JSON_NULL_IS_ABSENT},
        {"initial_latents_sha256", &recipe->latents_sha256, DK_JSON_NULL_IS_ABSENT},
        {"image_sha256", &recipe->image_sha256, DK_JSON_NULL_IS_ABSENT},
        {"mask_sha256", &recipe->mask_sha256, DK_JSON_NULL_IS_ABSENT},
        {"frames_sha256", &recipe->frames_sha256, DK_JSON_REQUIRED},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        DK_TRY(dk_json_string(recipe->json, texts[i].key, texts[i].flags, texts[i].to, where,
                              err));
    }
    DK_TRY(dk_json_double(recipe->json, "quantization_max_error", 0, 1, DK_JSON_NULL_IS_ABSENT,
                          &recipe->quantization_max_error, where, err));
    DK_TRY(read_layout(recipe, where, err));
    recipe->weights = json_object_get(recipe->json, "weights_sha256");
    if (!json_is_object(recipe->weights)) {
        return dk_fail(err, DK_FORMAT, "%s: weights_sha256 is %s, expected an object", where,
                       dk_json_type_name(recipe->weights));
    }
    return DK_OK;
}

dk_status dk_recipe_parse(dk_recipe *out, const char *text, const char *where, dk_error *err)
{
    dk_recipe recipe = {0};
    DK_TRY(dk_json_parse(&recipe.json, text, strlen(text), where, err));
    dk_status status = DK_OK;
    if (!json_is_object(recipe.json)) {
        status = dk_fail(err, DK_FORMAT, "%s: the recipe is %s, expected an object", where,
                         dk_json_type_name(recipe.json));
    }
    if (status == DK_OK) {
        status = read_facts(&recipe, where, err);
    }
    if (status == DK_OK) {
        status = read_request(&recipe, where, err);
    }
    if (status != DK_OK) {
        dk_recipe_release(&recipe);
        return status;
    }
    *out = recipe;
    return DK_OK;
}

void dk_recipe_release(dk_recipe *recipe)
{
    json_decref(recipe->json);
    *recipe = (dk_recipe){0};
}

/* A recipe of an older version may have no sum. */
static dk_status check_file(const char *path, const char *what, const char *expected,
                            dk_error *err)
{
    char hex[DK_SHA256_HEX_BYTES];
    if (path == NULL || expected == NULL) {
        return DK_OK;
    }
    DK_TRY(dk_sha256_file(hex, path, err));
    return strcmp(hex, expected) == 0
               ? DK_OK
               : dk_fail(err, DK_MISMATCH,
                         "%s: not the %s of the recipe: SHA-256 %s, expected %.64s", path, what,
                         hex, expected);
}

dk_status dk_recipe_check_files(const dk_recipe *recipe, dk_error *err)
{
    const dk_request *r = &recipe->request;
    DK_TRY(check_file(r->initial_latents, "initial latents", recipe->latents_sha256, err));
    DK_TRY(check_file(r->image_path, "picture", recipe->image_sha256, err));
    return check_file(r->mask_path, "mask", recipe->mask_sha256, err);
}

dk_status dk_recipe_compare_weights(const dk_recipe *recipe, const json_t *weights,
                                    dk_error *err)
{
    const char *file;
    json_t *sum;
    json_object_foreach((json_t *)recipe->weights, file, sum)
    {
        const char *wanted = json_string_value(sum);
        const char *found = json_string_value(json_object_get(weights, file));
        if (wanted == NULL || found == NULL || strcmp(wanted, found) != 0) {
            return dk_fail(err, DK_MISMATCH,
                           "weight file %.200s is not the one of the recipe: SHA-256 %.64s, "
                           "expected %.64s",
                           file, found != NULL ? found : "(no such file)",
                           wanted != NULL ? wanted : "(none)");
        }
    }
    json_object_foreach((json_t *)weights, file, sum)
    {
        if (json_object_get(recipe->weights, file) == NULL) {
            return dk_fail(err, DK_MISMATCH,
                           "weight file %.200s of this model is not in the recipe", file);
        }
    }
    return DK_OK;
}
