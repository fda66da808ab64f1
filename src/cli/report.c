/* JSON reports. */
#include "cli/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/machine.h"

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, text != NULL ? json_string(text) : json_null());
}

/* Milliseconds with three digits behind the point. */
static json_t *rounded(double ms)
{
    return json_real((double)(long long)(ms * 1000 + 0.5) / 1000);
}

static json_t *report_output(const dk_result *result, int output, const char *file)
{
    json_t *object = json_object(), *recipe = NULL;
    char seed[32];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)result->seeds[output]);
    set_text(object, "file", file);
    set_text(object, "seed", seed); /* text: readers of JSON lose digits above 2^53 */
    const char *text = result->recipes[output];
    if (dk_json_parse(&recipe, text, strlen(text), "recipe", NULL) == DK_OK) {
        json_object_set(object, "frames_sha256", json_object_get(recipe, "frames_sha256"));
        json_object_set_new(object, "recipe", recipe);
    }
    return object;
}

json_t *dk_report_result(const char *prompt, const dk_result *result, char *const *files,
                         double ms)
{
    json_t *object = json_object(), *outputs = json_array(), *stages = json_array(),
           *steps = json_array();
    for (int i = 0; i < result->outputs; i++) {
        json_array_append_new(outputs, report_output(result, i, files[i]));
    }
    for (int i = 0; i < result->timing_count; i++) {
        const dk_timing *timing = &result->timings[i];
        json_t *stage =
            json_pack("{s:s, s:i}", "stage", timing->stage, "output", timing->output);
        json_object_set_new(stage, "ms", rounded(timing->ms));
        json_array_append_new(stages, stage);
    }
    for (int i = 0; i < result->step_count; i++) {
        json_array_append_new(steps, rounded(result->step_ms[i]));
    }
    set_text(object, "prompt", prompt);
    json_object_set_new(object, "width", json_integer(result->width));
    json_object_set_new(object, "height", json_integer(result->height));
    json_object_set_new(object, "num_frames", json_integer(result->frames));
    json_object_set_new(object, "fps", json_real(result->fps));
    json_object_set_new(object, "outputs", outputs);
    json_object_set_new(object, "stages", stages);
    json_object_set_new(object, "step_ms", steps);
    json_object_set_new(object, "total_ms", rounded(ms));
    return object;
}

static json_t *describe(const dk_run_facts *facts)
{
    json_t *object = json_object();
    set_text(object, "engine", "darkroom " DK_VERSION);
    set_text(object, "model_path", facts->model);
    set_text(object, "pipeline", facts->pipeline);
    set_text(object, "device", facts->device);
    set_text(object, "dtype", facts->dtype);
    if (facts->quantization != NULL) {
        set_text(object, "quantization", facts->quantization);
    }
    json_object_set_new(object, "load_ms", rounded(facts->load_ms));
    return object;
}

json_t *dk_report_run(const dk_run_facts *facts, const json_t *results)
{
    json_t *object = describe(facts), *files = json_array(), *result, *output;
    size_t i, k;
    json_array_foreach(results, i, result)
    {
        json_array_foreach(json_object_get(result, "outputs"), k, output)
        {
            json_array_append(files, json_object_get(output, "file"));
        }
    }
    json_object_set_new(object, "total_ms", rounded(facts->total_ms));
    json_object_set_new(object, "files", files);
    json_object_set(object, "results", (json_t *)results);
    return object;
}

static void append_steps(json_t *steps, json_t *denoising, const json_t *result, size_t prompt)
{
    json_t *stage, *ms;
    size_t i;
    json_array_foreach(json_object_get(result, "stages"), i, stage)
    {
        json_t *step = json_object();
        json_object_set(step, "name", json_object_get(stage, "stage"));
        json_object_set(step, "duration_ms", json_object_get(stage, "ms"));
        json_object_set_new(step, "prompt", json_integer((json_int_t)prompt));
        json_object_set(step, "output", json_object_get(stage, "output"));
        json_array_append_new(steps, step);
    }
    json_array_foreach(json_object_get(result, "step_ms"), i, ms)
    {
        json_t *step = json_object();
        json_object_set_new(step, "step", json_integer((json_int_t)json_array_size(denoising)));
        json_object_set(step, "duration_ms", ms);
        json_array_append_new(denoising, step);
    }
}

json_t *dk_report_perf(const dk_run_facts *facts, const json_t *results)
{
    json_t *object = describe(facts), *steps = json_array(), *denoising = json_array(), *result;
    size_t i;
    char stamp[40] = "";
    time_t now = time(NULL);
    struct tm utc;
    json_array_foreach(results, i, result)
    {
        append_steps(steps, denoising, result, i);
    }
    if (gmtime_r(&now, &utc) != NULL) {
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
    set_text(object, "timestamp", stamp);
    json_object_set_new(object, "total_duration_ms", rounded(facts->total_ms));
    json_object_set_new(object, "steps", steps);
    json_object_set_new(object, "denoise_steps_ms", denoising);
    json_object_set_new(object, "peak_memory_mb", json_real(dk_peak_memory_mb()));
    return object;
}

void dk_report_print(const json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text != NULL) {
        puts(text);
    }
    free(text);
}

void dk_report_line(const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *line = dk_alloc((size_t)(length > 0 ? length : 0) + 1);
    vsnprintf(line, (size_t)(length > 0 ? length : 0) + 1, format, again);
    va_end(again);
    dk_make_printable(line);
    puts(line);
    dk_free(line);
}
