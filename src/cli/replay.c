/* darkroom replay: a file is made again from its recipe, and compared. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/interrupt.h"
#include "cli/models.h"
#include "cli/output.h"
#include "cli/report.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "engine/ranks.h"
#include "engine/recipe.h"
#include "media/image.h"
#include "media/media.h"

typedef struct replay_options {
    const char *output_path;
    bool allow_other_weights, json;
} replay_options;

static const dk_parameter parameters[] = {
    {.name = "output_path",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(replay_options, output_path),
     .max = 4096,
     .unit = "FOLDER",
     .default_text = "none: nothing is written",
     .help = "write the new file there"},
    {.name = "allow_other_weights",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(replay_options, allow_other_weights),
     .default_text = "false",
     .help = "go on when weight files are not those of the recipe"},
    {.name = "json",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(replay_options, json),
     .default_text = "false",
     .help = "print the result as one JSON object, a failure too"},
};

static const dk_parameter_table table = {
    .title = "Replay",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

typedef struct replay {
    const dk_arguments *arguments;
    const char *path;
    replay_options options;
    dk_engine_setup setup;
    dk_progress progress;
    dk_recipe recipe;
    dk_engine *engine;
    dk_result result;
    char *written; /* path of the new file, owned */
    bool equal;
    bool counted; /* the next two are known */
    int64_t pixels, different;
    int largest;
} replay;

static dk_status read_recipe(replay *r, dk_error *err)
{
    char *text;
    DK_TRY(dk_media_read_recipe(&text, r->path, err));
    dk_status status = dk_recipe_parse(&r->recipe, text, r->path, err);
    dk_free(text);
    return status;
}

static void warn(replay *r, const char *format, const char *a, const char *b)
{
    dk_string line = DK_STRING_EMPTY;
    dk_string_printf(&line, format, a, b);
    if (r->setup.options.log_level >= DK_LOG_WARNING) {
        dk_progress_log(&r->progress, DK_LOG_WARNING, line.data);
    }
    dk_string_release(&line);
}

static const char *const rank_names[] = {"num_gpus", "ulysses_degree",      "ring_degree",
                                         "tp_size",  "enable_cfg_parallel", NULL};

/* As many ranks as made the file, as they shared it out, unless the command line names others.
 */
static dk_status choose_ranks(replay *r, dk_error *err)
{
    const dk_layout *made = &r->recipe.layout;
    dk_engine_options *options = &r->setup.options;
    dk_layout ours;
    bool named = false;
    for (int i = 0; rank_names[i] != NULL; i++) {
        named = named || dk_arguments_has(r->arguments, rank_names[i]);
    }
    if (!named) {
        options->num_gpus = dk_layout_replica_ranks(made);
        options->ulysses_degree = made->ulysses;
        options->ring_degree = made->ring;
        options->tp_size = made->tp;
        options->enable_cfg_parallel = made->cfg > 1;
        return DK_OK;
    }
    DK_TRY(dk_arguments_apply(r->arguments, &dk_rank_parameters, options, err));
    DK_TRY(dk_ranks_layout_alone(&ours, options, err));
    if (ours.tp != made->tp || ours.ulysses != made->ulysses || ours.ring != made->ring ||
        ours.cfg != made->cfg) {
        warn(r, "%s%s", "the file was made by ranks in another layout: pixels may differ", "");
    }
    return DK_OK;
}

/* The recipe's model, type, instruction set, attention and quantisation, unless the command
 * line says otherwise. */
static dk_status open_engine(replay *r, dk_error *err)
{
    dk_engine_options *options = &r->setup.options;
    options->model_path = r->recipe.model;
    options->dtype = r->recipe.dtype;
    options->cpu_level = r->recipe.cpu_level;
    options->attention_backend = r->recipe.attention;
    options->quantization = r->recipe.quantization;
    if (r->recipe.quantization_max_error > 0) {
        options->quantization_max_error = r->recipe.quantization_max_error;
    }
    DK_TRY(dk_arguments_apply(r->arguments, &dk_option_parameters, options, err));
    DK_TRY(choose_ranks(r, err));
    dk_status status = dk_engine_setup_open(&r->engine, &r->setup, &r->progress, err);
    if (status == DK_NOT_FOUND && !dk_arguments_has(r->arguments, "model_path")) {
        return dk_fail_in(err, status, "the recipe's model (--model-path names another place)");
    }
    DK_TRY(status);
    if (strcmp(r->recipe.engine, "darkroom " DK_VERSION) != 0) {
        warn(r, "the file was made by %s, this is %s", r->recipe.engine,
             "darkroom " DK_VERSION);
    }
    const char *level = dk_engine_cpu_level(r->engine);
    if (r->recipe.cpu_level != NULL && strcmp(level, r->recipe.cpu_level) != 0) {
        warn(r, "the file was made with %s instructions, this run uses %s: pixels may differ",
             r->recipe.cpu_level, level);
    }
    return DK_OK;
}

static dk_status check_weights(replay *r, dk_error *err)
{
    const json_t *weights;
    DK_TRY(dk_engine_weights(&weights, r->engine, err));
    dk_error difference = {0};
    dk_status status = dk_recipe_compare_weights(&r->recipe, weights, &difference);
    if (status != DK_OK && !r->options.allow_other_weights) {
        return dk_fail(err, status, "%s (--allow-other-weights goes on)", difference.message);
    }
    if (status != DK_OK) {
        warn(r, "%s%s", difference.message, "");
    }
    return dk_recipe_check_files(&r->recipe, err);
}

static bool is_png(const char *path)
{
    static const unsigned char magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    dk_mapping file;
    if (dk_mapping_open(&file, path, NULL) != DK_OK) {
        return false;
    }
    bool png = file.size >= sizeof magic && memcmp(file.data, magic, sizeof magic) == 0;
    dk_mapping_close(&file);
    return png;
}

/* A PNG holds the very pixels: count those that differ. */
static dk_status compare_pixels(replay *r, dk_error *err)
{
    dk_image image;
    const dk_result *result = &r->result;
    DK_TRY(dk_media_read_image(&image, r->path, NULL, err));
    if (image.height != result->height || image.width != result->width || result->frames != 1) {
        dk_status status =
            dk_fail(err, DK_MISMATCH, "%s: %d x %d pixels, the recipe makes %d x %d", r->path,
                    image.width, image.height, result->width, result->height);
        dk_image_release(&image);
        return status;
    }
    r->counted = true;
    r->pixels = (int64_t)image.height * image.width;
    for (int64_t i = 0; i < r->pixels; i++) {
        int most = 0;
        for (int64_t c = 3 * i; c < 3 * i + 3; c++) {
            int difference = abs((int)image.rgb[c] - (int)result->rgb[c]);
            most = difference > most ? difference : most;
        }
        r->different += most > 0 ? 1 : 0;
        r->largest = most > r->largest ? most : r->largest;
    }
    dk_image_release(&image);
    return DK_OK;
}

static dk_status compare(replay *r, dk_error *err)
{
    const dk_result *result = &r->result;
    char hex[DK_SHA256_HEX_BYTES];
    size_t bytes = (size_t)result->frames * (size_t)result->height * (size_t)result->width * 3;
    DK_TRY(dk_recipe_frames_sha256(hex, result->rgb, bytes, err));
    r->equal = strcmp(hex, r->recipe.frames_sha256) == 0;
    if (is_png(r->path)) {
        DK_TRY(compare_pixels(r, err));
        r->equal = r->equal && r->different == 0;
    }
    return DK_OK;
}

static dk_status save(replay *r, dk_error *err)
{
    if (r->options.output_path == NULL) {
        return DK_OK;
    }
    const char *dot = strrchr(dk_path_name(r->path), '.');
    const char *wanted = dot != NULL ? dot + 1 : "";
    bool fits = dk_media_format_check(wanted, r->result.frames, NULL) == DK_OK;
    dk_output_options output;
    dk_output_options_init(&output);
    output.output_path = r->options.output_path;
    output.output_format = fits ? wanted : NULL;
    return dk_output_save(&r->written, &output, &r->result, 0, r->recipe.request.prompt, 0, 1,
                          err);
}

static void print_result(const replay *r)
{
    if (r->options.json) {
        json_t *object = json_pack("{s:b, s:s?}", "equal", r->equal, "file", r->written);
        if (r->counted) {
            json_object_set_new(object, "pixels", json_integer(r->pixels));
            json_object_set_new(object, "different_pixels", json_integer(r->different));
            json_object_set_new(object, "largest_difference", json_integer(r->largest));
        }
        dk_report_print(object);
        json_decref(object);
        return;
    }
    if (r->written != NULL) {
        printf("%s\n", r->written);
    }
    if (r->equal) {
        printf("equal\n");
    } else if (r->counted && r->different > 0) {
        printf("differs: %lld of %lld pixels, largest difference %d\n", (long long)r->different,
               (long long)r->pixels, r->largest);
    } else {
        printf("differs: the frames' checksum is not the one of the recipe\n");
    }
}

static dk_status run_replay(replay *r, dk_error *err)
{
    DK_TRY(dk_arguments_apply(r->arguments, &table, &r->options, err));
    DK_TRY(read_recipe(r, err));
    DK_TRY(open_engine(r, err));
    DK_TRY(check_weights(r, err));
    DK_TRY(dk_generate(r->engine, &r->recipe.request, dk_progress_event, &r->progress,
                       &r->result, err));
    DK_TRY(dk_interrupt_check(err));
    DK_TRY(compare(r, err));
    DK_TRY(save(r, err));
    dk_progress_end(&r->progress);
    print_result(r);
    return DK_OK;
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    replay r = {.arguments = arguments, .path = arguments->positionals[0]};
    dk_engine_setup_init(&r.setup);
    dk_interrupt_begin();
    dk_status status =
        dk_arguments_apply(arguments, &dk_option_parameters, &r.setup.options, err);
    dk_progress_init(&r.progress, r.setup.options.log_level);
    if (status == DK_OK) {
        status = run_replay(&r, err);
    }
    dk_progress_end(&r.progress);
    /* The difference is the result, already printed: only the exit code is left to tell. */
    if (status == DK_OK && !r.equal) {
        status = DK_MISMATCH;
    }
    dk_result_release(&r.result);
    dk_engine_close(&r.engine);
    dk_recipe_release(&r.recipe);
    dk_engine_setup_release(&r.setup);
    dk_free(r.written);
    return status;
}

static const char *const option_names[] = {
    "model_path",        "device",      "dtype",   "quantization", "quantization_max_error",
    "attention_backend", "pin_threads", "threads", "cpu",          "offline",
    "hub_cache",         "log_level",   NULL};
static const dk_flag_group groups[] = {
    {&table, NULL},
    {&dk_option_parameters, option_names},
    {&dk_rank_parameters, rank_names},
    {0},
};

const dk_command dk_command_replay = {
    .name = "replay",
    .usage = "FILE [flags]",
    .summary =
        "Makes a file again from the recipe inside it and tells whether the pixels are equal.",
    .text =
        "The weights' checksums must be those of the recipe. Model, dtype, cpu and the ranks "
        "that share the work (--num-gpus 1: one) default to the recipe's. Prints 'equal', or "
        "how much differs and exits with 12.",
    .examples = "  darkroom replay outputs/a-red-star-1.png\n"
                "  darkroom replay clip.mp4 --output-path again --threads 8\n"
                "  darkroom replay old.png --model-path ./wan-1.3b --allow-other-weights\n",
    .positionals_min = 1,
    .positionals_max = 1,
    .groups = groups,
    .run = run,
};
