/* Server-sent events: a job's progress, and OpenAI's stream of pictures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "media/media.h"
#include "server/api/state.h"
#include "server/service/still.h"

static bool send_json(dk_http_stream *stream, const char *event, json_t *value, bool droppable)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(9));
    bool sent = dk_http_stream_send(stream, event, text, droppable);
    free(text);
    json_decref(value);
    return sent;
}

/* RGB as base64 of a PNG. Owned; NULL: no memory for it. */
static char *png_base64(const uint8_t *rgb, int width, int height)
{
    dk_string png = DK_STRING_EMPTY;
    dk_error ignored;
    const dk_frames frames = {.count = 1, .height = height, .width = width, .rgb = rgb};
    char *text = NULL;
    if (dk_media_encode_png(&png, &frames, &ignored) == DK_OK) {
        text = dk_base64(png.data, png.length);
    }
    dk_string_release(&png);
    return text;
}

/* Of GET …/events: the job without outputs, over which each note puts how it stands. */
typedef struct job_stream {
    dk_api *api;
    dk_http_stream *stream;
    json_t *job;
    char *id;
} job_stream;

static json_t *preview_json(const dk_note *note)
{
    dk_string url = DK_STRING_EMPTY;
    char *text = png_base64(note->preview, note->width, note->height);
    dk_string_printf(&url, "data:image/png;base64,%s", text != NULL ? text : "");
    json_t *value = json_pack("{s:i, s:i, s:i, s:i, s:s}", "width", note->width, "height",
                              note->height, "index", note->progress.output, "step",
                              note->progress.step, "image", url.data);
    dk_free(text);
    dk_string_release(&url);
    return value;
}

static void end_job_stream(job_stream *s)
{
    dk_http_stream_end(&s->stream);
    json_decref(s->job);
    dk_free(s->id);
    dk_free(s);
}

static bool on_job_note(void *context, const dk_note *note)
{
    job_stream *s = context;
    bool goes_on = true;
    if (note->kind == DK_NOTE_PROGRESS) {
        dk_job_json_update(s->job, &note->progress);
        goes_on = send_json(s->stream, "progress", json_incref(s->job), true);
    } else if (note->kind == DK_NOTE_PREVIEW) {
        goes_on = send_json(s->stream, "preview", preview_json(note), true);
    } else {
        dk_job_record record = {0};
        dk_error ignored;
        if (dk_jobs_get(dk_service_jobs(s->api->service), s->id, NULL, &record, &ignored) ==
            DK_OK) {
            send_json(s->stream, "done", dk_api_job_json(s->api, &record), false);
            dk_job_record_release(&record);
        }
        goes_on = false;
    }
    if (!goes_on) {
        end_job_stream(s);
    }
    return goes_on;
}

static void stream_job(dk_api *api, dk_http_exchange *exchange, const char *kind)
{
    dk_job_record record = {0};
    if (!dk_api_find(api, exchange, kind, &record)) {
        return;
    }
    job_stream *s = dk_alloc(sizeof *s);
    *s = (job_stream){
        .api = api, .job = dk_api_job_json(api, &record), .id = dk_strdup(record.id)};
    dk_job_record_release(&record);
    json_object_del(s->job, "outputs");
    s->stream = dk_http_reply_events(exchange);
    send_json(s->stream, "progress", json_incref(s->job), true);
    dk_service_watch(api->service, s->id, on_job_note, s);
}

void dk_api_image_events(void *context, dk_http_exchange *exchange,
                         const dk_http_request *request)
{
    (void)request;
    stream_job(context, exchange, "image");
}

void dk_api_video_events(void *context, dk_http_exchange *exchange,
                         const dk_http_request *request)
{
    (void)request;
    stream_job(context, exchange, "video");
}

/* Of POST /v1/images/… with stream: previews at even distances, then the pictures. */
typedef struct image_stream {
    dk_api *api;
    dk_http_stream *stream;
    char *id, *format, *size;
    const char *prefix; /* "image_generation", "image_edit" */
    int wanted, sent;   /* partial pictures */
    int width, height;
} image_stream;

static json_t *image_event(const image_stream *s, const char *type, char *base64)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", s->prefix, type);
    json_t *event = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "type", name, "b64_json",
                              base64 != NULL ? base64 : "", "size", s->size, "quality", "auto",
                              "background", "opaque", "output_format", s->format, "created_at",
                              (json_int_t)time(NULL));
    dk_free(base64);
    return event;
}

/* A preview is small: it is shown at the picture's size, as OpenAI's partial pictures are. */
static bool send_partial(image_stream *s, const dk_note *note)
{
    const dk_progress_note *p = &note->progress;
    if (s->sent >= s->wanted || p->steps < 1 ||
        p->step * (s->wanted + 1) < (s->sent + 1) * p->steps) {
        return true;
    }
    uint8_t *rgb = dk_alloc((size_t)s->width * (size_t)s->height * 3);
    dk_still_scale(rgb, s->width, s->height, (size_t)s->width * 3, note->preview, note->width,
                   note->height);
    json_t *event = image_event(s, "partial_image", png_base64(rgb, s->width, s->height));
    json_object_set_new(event, "partial_image_index", json_integer(s->sent++));
    json_object_set_new(event, "output_format", json_string("png"));
    dk_free(rgb);
    char name[64];
    snprintf(name, sizeof name, "%s.partial_image", s->prefix);
    return send_json(s->stream, name, event, false);
}

static void send_failure(image_stream *s, const dk_job_record *record)
{
    json_t *error =
        json_pack("{s:s, s:{s:s, s:s?, s:s}}", "type", "error", "error", "type",
                  dk_job_state_name(record->state), "code", record->code, "message",
                  record->error != NULL ? record->error : "the job did not end well");
    send_json(s->stream, "error", error, false);
}

static void send_pictures(image_stream *s)
{
    dk_job_record record = {0};
    dk_error ignored;
    char name[64];
    if (dk_jobs_get(dk_service_jobs(s->api->service), s->id, NULL, &record, &ignored) !=
        DK_OK) {
        return;
    }
    snprintf(name, sizeof name, "%s.completed", s->prefix);
    if (record.state != DK_JOB_COMPLETED) {
        send_failure(s, &record);
    }
    for (int i = 0; i < record.output_count && record.state == DK_JOB_COMPLETED; i++) {
        char *text = NULL;
        if (dk_api_output_base64(s->api, &record, i, &text, &ignored) == DK_OK) {
            json_t *event = image_event(s, "completed", text);
            json_object_set_new(event, "usage",
                                json_pack("{s:i, s:i, s:i}", "total_tokens", 0, "input_tokens",
                                          0, "output_tokens", 0));
            send_json(s->stream, name, event, false);
        }
    }
    dk_job_record_release(&record);
}

static bool on_image_note(void *context, const dk_note *note)
{
    image_stream *s = context;
    bool goes_on = note->kind != DK_NOTE_END;
    if (note->kind == DK_NOTE_PREVIEW) {
        goes_on = send_partial(s, note);
    } else if (note->kind == DK_NOTE_END) {
        send_pictures(s);
    }
    if (!goes_on) {
        dk_http_stream_end(&s->stream);
        dk_free(s->id);
        dk_free(s->format);
        dk_free(s->size);
        dk_free(s);
    }
    return goes_on;
}

void dk_api_stream_images(dk_api *api, dk_http_exchange *exchange, const char *id,
                          const dk_order *order)
{
    image_stream *s = dk_alloc(sizeof *s);
    char size[64];
    int width = (int)json_integer_value(json_object_get(order->parameters, "width"));
    int height = (int)json_integer_value(json_object_get(order->parameters, "height"));
    bool edit = strstr(dk_http_request_of(exchange)->path, "edits") != NULL;
    const char *format = order->fields.output_format;
    snprintf(size, sizeof size, "%dx%d", width, height);
    *s = (image_stream){.api = api,
                        .id = dk_strdup(id),
                        .format = dk_strdup(format != NULL ? format : "png"),
                        .size = dk_strdup(size),
                        .prefix = edit ? "image_edit" : "image_generation",
                        .wanted = order->fields.partial_images,
                        .width = width,
                        .height = height};
    dk_http_add_header(exchange, "Darkroom-Job", id);
    s->stream = dk_http_reply_events(exchange);
    dk_service_watch(api->service, id, on_image_note, s);
}
