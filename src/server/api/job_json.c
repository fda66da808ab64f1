/* Jobs as JSON. */
#include "server/api/job_json.h"
#include "base/json.h"
#include "base/string.h"

#include <stdio.h>
#include <string.h>

const char *dk_media_type_of(const char *name)
{
    static const struct {
        const char *ending, *type;
    } types[] = {{".png", "image/png"}, {".jpg", "image/jpeg"}, {".webp", "image/webp"},
                 {".gif", "image/gif"}, {".mp4", "video/mp4"},  {".webm", "video/webm"}};
    for (size_t i = 0; name != NULL && i < sizeof types / sizeof *types; i++) {
        if (dk_ends_with(name, types[i].ending)) {
            return types[i].type;
        }
    }
    return "application/octet-stream";
}

void dk_job_content_url(dk_string *text, const dk_job_record *record, int index)
{
    dk_string_printf(text, "/v1/%ss/%s/content?index=%d", record->kind, record->id, index);
}

static json_t *seconds_or_null(int64_t ms)
{
    return ms > 0 ? json_integer(ms / 1000) : json_null();
}

static json_t *parse(const char *text)
{
    json_t *value = NULL;
    if (text != NULL && dk_json_parse(&value, text, strlen(text), "", NULL) != DK_OK) {
        value = NULL;
    }
    return value;
}

/* Beyond 2^53 a number would not survive JavaScript. */
static json_t *seed_json(uint64_t seed)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)seed);
    return seed < (1ull << 53) ? json_integer((json_int_t)seed) : json_string(digits);
}

static json_t *outputs_json(const dk_job_record *record, const char *format)
{
    json_t *outputs = json_array();
    for (int i = 0; i < record->output_count; i++) {
        const dk_job_output *output = &record->outputs[i];
        dk_string url = DK_STRING_EMPTY;
        json_t *recipe = parse(output->recipe);
        dk_job_content_url(&url, record, output->index);
        json_array_append_new(
            outputs,
            json_pack("{s:i, s:o, s:b, s:s, s:s, s:I, s:o, s:f}", "index", output->index,
                      "seed", seed_json(output->seed), "done", output->done, "url", url.data,
                      "format", format, "bytes", (json_int_t)output->bytes, "recipe",
                      recipe != NULL ? recipe : json_null(), "engine_ms", output->engine_ms));
        dk_string_release(&url);
    }
    return outputs;
}

/* What, sent back, makes the job again. */
static json_t *parameters_json(const dk_job_record *record, const json_t *order, json_t *seeds)
{
    json_t *parameters = json_deep_copy(json_object_get(order, "parameters"));
    const char *format = json_string_value(json_object_get(order, "output_format"));
    bool jpg = format != NULL && strcmp(format, "jpg") == 0;
    if (parameters == NULL) {
        parameters = json_object();
    }
    json_object_set_new(parameters, "output_format",
                        json_string(jpg              ? "jpeg"
                                    : format != NULL ? format
                                                     : ""));
    json_object_set(parameters, "seed",
                    record->output_count > 1 ? seeds : json_array_get(seeds, 0));
    return parameters;
}

static void set_error(json_t *job, const dk_job_record *record)
{
    json_object_set_new(job, "error",
                        record->error == NULL ? json_null()
                                              : json_pack("{s:s?, s:s}", "code", record->code,
                                                          "message", record->error));
}

static void set_request(json_t *job, const dk_job_record *record)
{
    json_t *order = parse(record->request), *seeds = json_array();
    const json_t *p = json_object_get(order, "parameters");
    double fps = json_number_value(json_object_get(p, "fps"));
    double frames = json_number_value(json_object_get(p, "num_frames"));
    const char *format = json_string_value(json_object_get(order, "output_format"));
    const char *prompt = json_string_value(json_object_get(p, "prompt"));
    char size[64], seconds[32];
    for (int i = 0; i < record->output_count; i++) {
        json_array_append_new(seeds, seed_json(record->outputs[i].seed));
    }
    snprintf(size, sizeof size, "%dx%d", (int)json_integer_value(json_object_get(p, "width")),
             (int)json_integer_value(json_object_get(p, "height")));
    snprintf(seconds, sizeof seconds, "%.4g", fps > 0 ? frames / fps : 0);
    json_object_set_new(job, "prompt", json_string(prompt != NULL ? prompt : ""));
    json_object_set_new(job, "size", json_string(size));
    if (strcmp(record->kind, "video") == 0) {
        json_object_set_new(job, "seconds", json_string(seconds));
    }
    json_object_set(job, "seed", json_array_get(seeds, 0));
    json_object_set(job, "seeds", seeds);
    json_object_set_new(job, "outputs", outputs_json(record, format != NULL ? format : ""));
    json_object_set_new(job, "parameters", parameters_json(record, order, seeds));
    json_decref(seeds);
    json_decref(order);
}

static double engine_seconds(const dk_job_record *record)
{
    double ms = 0;
    for (int i = 0; i < record->output_count; i++) {
        ms += record->outputs[i].engine_ms;
    }
    return ms / 1000.0;
}

void dk_job_json_update(json_t *job, const dk_progress_note *progress)
{
    json_object_set_new(
        job, "status",
        json_string(dk_job_state_name(progress->running ? DK_JOB_IN_PROGRESS : DK_JOB_QUEUED)));
    json_object_set_new(job, "progress", json_integer(progress->percent));
    json_object_set_new(job, "stage", json_string(progress->stage));
    json_object_set_new(job, "step", json_integer(progress->step));
    json_object_set_new(job, "steps", json_integer(progress->steps));
    json_object_set_new(job, "eta_s",
                        progress->eta_s >= 0 ? json_real(progress->eta_s) : json_null());
    json_object_set_new(job, "queue_position",
                        progress->queue_position >= 0 ? json_integer(progress->queue_position)
                                                      : json_null());
}

json_t *dk_job_json(const dk_job_record *record, const char *model,
                    const dk_progress_note *progress)
{
    bool completed = record->state == DK_JOB_COMPLETED;
    json_t *job = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:i}", "id", record->id,
                            "object", record->kind, "model", model, "status",
                            dk_job_state_name(record->state), "progress", completed ? 100 : 0,
                            "created_at", (json_int_t)(record->created_ms / 1000), "n",
                            record->output_count, "attempts", record->attempts);
    json_object_set_new(job, "started_at", seconds_or_null(record->started_ms));
    json_object_set_new(job, "completed_at", seconds_or_null(record->completed_ms));
    json_object_set_new(job, "expires_at", seconds_or_null(record->expires_ms));
    json_object_set_new(job, "inference_time_s",
                        completed ? json_real(engine_seconds(record)) : json_null());
    json_object_set_new(job, "eta_s", json_null());
    json_object_set_new(job, "queue_position", json_null());
    set_error(job, record);
    set_request(job, record);
    if (progress != NULL && !dk_job_state_is_final(record->state)) {
        dk_job_json_update(job, progress);
    }
    return job;
}
