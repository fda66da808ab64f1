/* darkroom generate: prompts become files. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/interrupt.h"
#include "cli/models.h"
#include "cli/output.h"
#include "cli/report.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "pipeline/request_parameters.h"

enum { PROMPT_FILE_BYTES = 64 * 1024 * 1024 };

/* One run of the command. */
typedef struct run {
    const dk_arguments *arguments;
    dk_output_options output;
    dk_engine_setup setup;
    dk_engine *engine;
    dk_progress progress;
    char *prompt_text;    /* the prompt file's content, cut into lines; owned */
    const char **prompts; /* [prompt_count] */
    int prompt_count;
    int files;       /* saved so far */
    json_t *results; /* array */
    double start_ms, load_ms;
} run;

/* One prompt per line; empty lines are passed over. */
static dk_status read_prompts(run *r, const char *path, dk_error *err)
{
    size_t size;
    DK_TRY(dk_file_read(&r->prompt_text, &size, path, PROMPT_FILE_BYTES, err));
    if (strlen(r->prompt_text) != size) {
        return dk_fail(err, DK_FORMAT, "%s: the file holds NUL characters", path);
    }
    for (char *line = r->prompt_text; line != NULL;) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end++ = '\0';
        }
        line[strcspn(line, "\r")] = '\0';
        if (line[strspn(line, " \t")] != '\0') {
            size_t count = (size_t)r->prompt_count + 1;
            r->prompts = dk_realloc(r->prompts, count * sizeof *r->prompts);
            r->prompts[r->prompt_count++] = line;
        }
        line = end;
    }
    if (r->prompt_count == 0) {
        return dk_fail(err, DK_INVALID, "%s: no prompts, expected one per line", path);
    }
    return DK_OK;
}

static dk_status find_prompts(run *r, const dk_request *given, dk_error *err)
{
    const char *path = r->output.prompt_file_path;
    if (given->prompt != NULL && path != NULL) {
        return dk_fail(err, DK_INVALID, "--prompt and --prompt-file-path exclude each other");
    }
    if (path != NULL) {
        DK_TRY(read_prompts(r, path, err));
        if (r->prompt_count > 1 && given->dump_tensors != NULL) {
            return dk_fail(err, DK_INVALID, "--dump-tensors takes one prompt, %s has %d", path,
                           r->prompt_count);
        }
        return DK_OK;
    }
    if (given->prompt == NULL) {
        return dk_fail(err, DK_INVALID,
                       "--prompt is missing (or --prompt-file-path), see darkroom generate "
                       "--help");
    }
    r->prompts = dk_alloc(sizeof *r->prompts);
    r->prompts[r->prompt_count++] = given->prompt;
    return DK_OK;
}

/* Everything about the arguments that needs no model. */
static dk_status read_arguments(run *r, dk_error *err)
{
    dk_request given = {0};
    DK_TRY(dk_arguments_apply(r->arguments, &dk_output_parameters, &r->output, err));
    DK_TRY(dk_arguments_apply(r->arguments, &dk_option_parameters, &r->setup.options, err));
    DK_TRY(dk_arguments_apply(r->arguments, &dk_rank_parameters, &r->setup.options, err));
    DK_TRY(dk_arguments_apply(r->arguments, &dk_request_parameters, &given, err));
    DK_TRY(find_prompts(r, &given, err));
    if (given.dump_tensors != NULL) {
        DK_TRY(dk_output_check_file("--dump-tensors", given.dump_tensors, err));
    }
    /* How many frames there will be, the model tells: every format takes one. */
    return dk_output_check(&r->output, 1, 1, err);
}

/* The request of one prompt, checked against the model and the output format. */
static dk_status prepare(run *r, dk_request *request, const char *prompt, bool tell,
                         dk_error *err)
{
    dk_request_init(request, r->engine);
    DK_TRY(dk_arguments_apply(r->arguments, &dk_request_parameters, request, err));
    request->prompt = prompt;
    DK_TRY(dk_request_check(request, r->engine, tell ? dk_progress_event : NULL, &r->progress,
                            err));
    return dk_output_check(&r->output, request->num_frames, request->fps, err);
}

static dk_status save(run *r, const dk_result *result, const char *prompt, char **files,
                      dk_error *err)
{
    dk_status status = DK_OK;
    int count = r->prompt_count * result->outputs;
    for (int i = 0; r->output.save_output && i < result->outputs && status == DK_OK; i++) {
        status = dk_output_save(&files[i], &r->output, result, i, prompt, r->files, count, err);
        r->files++;
        if (status == DK_OK && !r->output.json) {
            dk_progress_end(&r->progress);
            printf("%s\n", files[i]);
            fflush(stdout);
        }
    }
    return status;
}

static dk_status generate_one(run *r, const char *prompt, dk_error *err)
{
    dk_request request;
    dk_result result = {0};
    double start = dk_now_ms();
    DK_TRY(prepare(r, &request, prompt, false, err));
    DK_TRY(dk_generate(r->engine, &request, dk_progress_event, &r->progress, &result, err));
    char **files = dk_alloc((size_t)result.outputs * sizeof *files);
    dk_status status = dk_interrupt_check(err);
    if (status == DK_OK) {
        status = save(r, &result, prompt, files, err);
    }
    if (status == DK_OK) {
        json_array_append_new(r->results,
                              dk_report_result(prompt, &result, files, dk_now_ms() - start));
    }
    for (int i = 0; i < result.outputs; i++) {
        dk_free(files[i]);
    }
    dk_free(files);
    dk_result_release(&result);
    return status;
}

static dk_status generate_all(run *r, dk_error *err)
{
    dk_request request;
    for (int i = 0; i < r->prompt_count; i++) { /* no prompt is refused after hours of others */
        DK_TRY(prepare(r, &request, r->prompts[i], i == 0, err));
    }
    for (int i = 0; i < r->prompt_count; i++) {
        if (r->prompt_count > 1) {
            snprintf(r->progress.prefix, sizeof r->progress.prefix, "prompt %d/%d: ", i + 1,
                     r->prompt_count);
        }
        DK_TRY(dk_interrupt_check(err));
        DK_TRY(generate_one(r, r->prompts[i], err));
    }
    return DK_OK;
}

static dk_status report(run *r, dk_error *err)
{
    const dk_engine_options *options = &r->setup.options;
    const dk_run_facts facts = {.model = options->model_name != NULL ? options->model_name
                                                                     : options->model_path,
                                .pipeline = dk_engine_pipeline(r->engine),
                                .device = dk_engine_device(r->engine),
                                .dtype = options->dtype,
                                .quantization = dk_engine_quantization(r->engine),
                                .load_ms = r->load_ms,
                                .total_ms = dk_now_ms() - r->start_ms};
    if (r->output.explain) {
        char *text = dk_engine_explain(r->engine);
        fputs(text, stderr);
        dk_text_free(text);
    }
    if (r->output.perf_dump_path != NULL) {
        json_t *perf = dk_report_perf(&facts, r->results);
        char *text = json_dumps(perf, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
        dk_status status =
            dk_file_write(r->output.perf_dump_path, text, text != NULL ? strlen(text) : 0, err);
        free(text);
        json_decref(perf);
        DK_TRY(status);
    }
    if (r->output.json) {
        json_t *object = dk_report_run(&facts, r->results);
        dk_report_print(object);
        json_decref(object);
    }
    return DK_OK;
}

/* Needs no prompt. */
static dk_status draw_topology(bool *drawn, const dk_arguments *arguments, dk_error *err)
{
    dk_engine_options options;
    dk_layout layout;
    *drawn = false;
    if (!dk_arguments_has(arguments, "print_topology")) {
        return DK_OK;
    }
    dk_engine_options_init(&options);
    DK_TRY(dk_arguments_apply(arguments, &dk_rank_parameters, &options, err));
    DK_TRY(dk_ranks_layout_alone(&layout, &options, err));
    return dk_ranks_topology(drawn, arguments, &layout, &options, err);
}

static dk_status generate(const dk_arguments *arguments, dk_error *err)
{
    bool drawn;
    DK_TRY(draw_topology(&drawn, arguments, err));
    if (drawn) {
        return DK_OK;
    }
    run r = {.arguments = arguments, .start_ms = dk_now_ms(), .results = json_array()};
    dk_output_options_init(&r.output);
    dk_engine_setup_init(&r.setup);
    dk_interrupt_begin();
    dk_status status = read_arguments(&r, err);
    dk_progress_init(&r.progress, r.setup.options.log_level);
    if (status == DK_OK) {
        status = dk_engine_setup_open(&r.engine, &r.setup, &r.progress, err);
        r.load_ms = dk_now_ms() - r.start_ms;
    }
    bool leads = status == DK_OK && dk_engine_leads(r.engine);
    if (status == DK_OK) {
        status = leads ? generate_all(&r, err) : dk_engine_follow(r.engine, err);
    }
    dk_progress_end(&r.progress);
    if (status == DK_OK && leads) {
        status = report(&r, err);
    }
    dk_engine_close(&r.engine);
    dk_engine_setup_release(&r.setup);
    json_decref(r.results);
    dk_free(r.prompts);
    dk_free(r.prompt_text);
    return status;
}

static const dk_flag_group groups[] = {
    {&dk_request_parameters, NULL},  {&dk_output_parameters, NULL},
    {&dk_option_parameters, NULL},   {&dk_rank_parameters, NULL},
    {&dk_topology_parameters, NULL}, {0},
};

const dk_command dk_command_generate = {
    .name = "generate",
    .usage = "--prompt TEXT [flags]",
    .summary = "Makes videos, and pictures with --num-frames 1, and prints their paths.",
    .text =
        "Files are named after the prompt and the seed and carry the recipe that made them; "
        "no file is replaced unless you name it. Ctrl-C stops within one block of the model "
        "and leaves no partial file.",
    .examples =
        "  darkroom generate --prompt \"a red star on a blue background\" --num-frames 1\n"
        "  darkroom generate --prompt \"a small green ball moving left over the sea\" --seed 7 "
        "\\\n"
        "      --output-path clips --output-format webm\n"
        "  darkroom generate --config night.yaml --prompt-file-path prompts.txt --json\n",
    .groups = groups,
    .run = generate,
};
