/* darkroom inspect: what a model folder or a weight file holds. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/arguments.h"
#include "cli/folder.h"
#include "cli/interrupt.h"
#include "cli/models.h"
#include "cli/report.h"
#include "cli/tensor_list.h"
#include "engine/option_parameters.h"
#include "weights/model_folder.h"

typedef struct inspect_options {
    bool json, tensors;
} inspect_options;

static const dk_parameter parameters[] = {
    {.name = "json",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(inspect_options, json),
     .default_text = "false",
     .help = "print one JSON object, a failure too"},
    {.name = "tensors",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(inspect_options, tensors),
     .default_text = "false",
     .help = "list every tensor"},
};

static const dk_parameter_table table = {
    .title = "Output",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

/* The keys of component configurations that tell how large and of which kind it is. */
static const char *const highlights[] = {"num_layers",
                                         "num_attention_heads",
                                         "attention_head_dim",
                                         "ffn_dim",
                                         "patch_size",
                                         "in_channels",
                                         "text_dim",
                                         "d_model",
                                         "num_heads",
                                         "d_kv",
                                         "d_ff",
                                         "vocab_size",
                                         "z_dim",
                                         "base_dim",
                                         "dim_mult",
                                         "num_train_timesteps",
                                         "flow_shift",
                                         "shift",
                                         "prediction_type",
                                         "solver_order",
                                         "model_max_length"};

static json_t *read_highlights(const char *folder)
{
    static const char *const files[] = {"config.json", "scheduler_config.json",
                                        "tokenizer_config.json"};
    json_t *found = json_object();
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        json_t *config = NULL;
        char *path = dk_path_join(folder, files[f]);
        if (dk_json_load(&config, path, DK_JSON_CONFIG_BYTES, NULL) == DK_OK) {
            for (size_t i = 0; i < sizeof highlights / sizeof *highlights; i++) {
                json_t *value = json_object_get(config, highlights[i]);
                if (value != NULL) {
                    json_object_set(found, highlights[i], value);
                }
            }
        }
        json_decref(config);
        dk_free(path);
    }
    return found;
}

/* The class that a component's own configuration names, or NULL. Owned. */
static json_t *read_class(const char *folder)
{
    json_t *config = NULL, *found = NULL;
    char *path = dk_path_join(folder, "config.json");
    if (dk_json_load(&config, path, DK_JSON_CONFIG_BYTES, NULL) == DK_OK) {
        found = json_object_get(config, "_class_name");
        found =
            found != NULL ? found : json_array_get(json_object_get(config, "architectures"), 0);
        json_incref(found);
    }
    json_decref(config);
    dk_free(path);
    return found;
}

/* Adds up the weight files of `folder` that lie directly in it. */
static dk_status add_weights(json_t *object, const char *folder, bool tensors, dk_error *err)
{
    dk_file_list files;
    DK_TRY(dk_list_files(&files, folder, err));
    dk_tensor_list list = {.tensors = tensors};
    json_t *names = json_array();
    dk_status status = DK_OK;
    for (int i = 0; i < files.count && status == DK_OK; i++) {
        const char *name = files.paths[i];
        if (strchr(name, '/') == NULL) {
            json_array_append_new(names, json_string(name));
        }
        if (strchr(name, '/') == NULL && dk_ends_with(name, ".safetensors")) {
            char *path = dk_path_join(folder, name);
            status = dk_tensor_list_add(&list, path, err);
            dk_free(path);
        }
    }
    json_object_set_new(object, "files", names);
    if (list.files > 0) {
        dk_tensor_list_report(object, &list);
    }
    dk_tensor_list_release(&list);
    dk_file_list_release(&files);
    return status;
}

static dk_status add_component(json_t *components, const char *name, const json_t *pair,
                               const char *folder, bool tensors, dk_error *err)
{
    json_t *object = json_object();
    char *path = dk_path_join(folder, name);
    dk_status status = DK_OK;
    json_object_set(object, "library", json_array_get(pair, 0));
    json_object_set(object, "class", json_array_get(pair, 1));
    if (!dk_path_is_folder(path)) {
        status = dk_fail(err, DK_NOT_FOUND,
                         "%s: model_index.json names this folder, but there is "
                         "none",
                         path);
    } else {
        json_object_set_new(object, "config", read_highlights(path));
        status = add_weights(object, path, tensors, err);
    }
    dk_free(path);
    json_object_set_new(components, name, object);
    return status;
}

static dk_status inspect_model(json_t *object, const char *folder, bool tensors, dk_error *err)
{
    dk_model_folder *model;
    const char *key;
    json_t *value, *components = json_object();
    json_object_set_new(object, "components", components);
    DK_TRY(dk_model_folder_open(&model, folder, err));
    json_object_set_new(object, "pipeline", json_string(dk_model_folder_class(model)));
    dk_status status = DK_OK;
    json_object_foreach((json_t *)dk_model_folder_index(model), key, value)
    {
        if (status == DK_OK && json_is_array(value) && dk_model_folder_has(model, key)) {
            status = add_component(components, key, value, folder, tensors, err);
        }
    }
    dk_model_folder_close(&model);
    return status;
}

static dk_status inspect_path(json_t *object, const char *path, bool tensors, dk_error *err)
{
    json_object_set_new(object, "path", json_string(path));
    if (!dk_path_is_folder(path)) {
        dk_tensor_list list = {.tensors = true};
        dk_status status = dk_tensor_list_add(&list, path, err);
        if (status == DK_OK) {
            dk_tensor_list_report(object, &list);
        }
        dk_tensor_list_release(&list);
        return status;
    }
    char *index = dk_path_join(path, "model_index.json");
    bool is_model = dk_path_exists(index);
    dk_free(index);
    if (is_model) {
        return inspect_model(object, path, tensors, err);
    }
    json_t *class_name = read_class(path);
    if (class_name != NULL) {
        json_object_set_new(object, "class", class_name);
    }
    json_object_set_new(object, "config", read_highlights(path));
    DK_TRY(add_weights(object, path, tensors, err));
    if (json_object_get(object, "tensor_count") == NULL) {
        return dk_fail(err, DK_NOT_FOUND,
                       "%s: neither a model_index.json nor a safetensors file is in it", path);
    }
    return DK_OK;
}

static void print_config(const json_t *config)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        dk_report_line("    %s %s", key, text != NULL ? text : "?");
        free(text);
    }
}

static void print_part(const char *name, const json_t *part)
{
    const char *class_name = json_string_value(json_object_get(part, "class"));
    if (name != NULL) {
        puts("");
        dk_report_line("  %s: %s", name, class_name != NULL ? class_name : "?");
    }
    print_config(json_object_get(part, "config"));
    dk_tensor_list_print(part);
}

static void print(const json_t *object)
{
    const char *pipeline = json_string_value(json_object_get(object, "pipeline")), *name;
    if (pipeline == NULL) {
        pipeline = json_string_value(json_object_get(object, "class"));
    }
    json_t *part;
    dk_report_line("%s%s%s", json_string_value(json_object_get(object, "path")),
                   pipeline != NULL ? ": " : "", pipeline != NULL ? pipeline : "");
    json_object_foreach(json_object_get(object, "components"), name, part)
    {
        print_part(name, part);
    }
    print_part(NULL, object);
}

static dk_status inspect(const dk_arguments *arguments, dk_error *err)
{
    inspect_options options = {0};
    dk_engine_setup setup;
    dk_progress progress;
    char *path = NULL;
    const char *given = arguments->positionals[0];
    json_t *object = json_object();
    dk_engine_setup_init(&setup);
    dk_interrupt_begin();
    dk_status status = dk_arguments_apply(arguments, &table, &options, err);
    if (status == DK_OK) {
        status = dk_arguments_apply(arguments, &dk_option_parameters, &setup.options, err);
    }
    dk_progress_init(&progress, setup.options.log_level);
    if (status == DK_OK && dk_path_exists(given) && !dk_path_is_folder(given)) {
        path = dk_strdup(given);
    } else if (status == DK_OK) {
        status = dk_engine_setup_folder(&path, &setup, given, &progress, err);
    }
    dk_progress_end(&progress);
    if (status == DK_OK) {
        status = inspect_path(object, path, options.tensors, err);
    }
    if (status == DK_OK && options.json) {
        dk_report_print(object);
    } else if (status == DK_OK) {
        print(object);
    }
    json_decref(object);
    dk_free(path);
    dk_engine_setup_release(&setup);
    return status;
}

static const char *const option_names[] = {"offline", "hub_cache", "log_level", NULL};
static const dk_flag_group groups[] = {
    {&table, NULL},
    {&dk_option_parameters, option_names},
    {0},
};

const dk_command dk_command_inspect = {
    .name = "inspect",
    .usage = "FOLDER|FILE [flags]",
    .summary = "Shows what a model folder or a safetensors file holds.",
    .text =
        "A model folder: its pipeline, components, settings, tensors by type. A component's "
        "folder or one file: its tensors. Hub names are taken from the cache or fetched.",
    .examples = "  darkroom inspect models/tiny-wan\n"
                "  darkroom inspect models/tiny-wan/vae --tensors\n"
                "  darkroom inspect model.safetensors --json\n",
    .positionals_min = 1,
    .positionals_max = 1,
    .groups = groups,
    .run = inspect,
};
