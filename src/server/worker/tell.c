/* Messages of a worker. */
#include "server/worker/tell.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/process.h"
#include "server/wire/request.h"

static void tell(dk_pipe *pipe, dk_message *message)
{
    dk_error ignored;
    if (dk_pipe_send(pipe, message, &ignored) != DK_OK) {
        /* The scheduler is gone: the reading side ends the worker. */
    }
    dk_message_release(message);
}

void dk_tell_ready(dk_pipe *pipe, const dk_engine *engine, const char *model)
{
    dk_message message;
    dk_request defaults;
    dk_request_init(&defaults, engine);
    dk_message_pack(&message, "ready", "{s:s, s:s, s:s, s:s, s:s, s:o, s:s*, s:b}", "model",
                    model, "identity", dk_engine_identity(engine), "dtype",
                    dk_engine_dtype(engine), "device", dk_engine_device(engine), "pipeline",
                    dk_engine_pipeline(engine), "defaults", dk_request_to_json(&defaults),
                    "quantization", dk_engine_quantization(engine), "prepares",
                    dk_engine_prepares(engine));
    tell(pipe, &message);
}

void dk_tell_introduction(dk_pipe *pipe, const char *text)
{
    dk_message message;
    dk_message_pack(&message, "introduction", "{s:s}", "text", text);
    tell(pipe, &message);
}

static void pack_error(dk_message *message, const char *type, const dk_error *error)
{
    dk_message_pack(message, type, "{s:i, s:s}", "status", (int)error->status, "message",
                    error->message);
}

void dk_tell_failed(dk_pipe *pipe, const dk_error *error)
{
    dk_message message;
    pack_error(&message, "failed", error);
    tell(pipe, &message);
}

void dk_tell_alive(dk_pipe *pipe, const dk_engine *engine)
{
    dk_message message;
    dk_embedding_stats stats = {0};
    uint64_t pulse = 0;
    if (engine != NULL) {
        dk_engine_embedding_stats(engine, &stats);
        pulse = dk_engine_pulse(engine);
    }
    dk_message_pack(&message, "alive", "{s:b, s:I, s:f, s:{s:I, s:I, s:I, s:I, s:I, s:I}}",
                    "loading", engine == NULL, "pulse", (json_int_t)pulse, "resident_bytes",
                    dk_process_resident_bytes(), "embedding_cache", "hits",
                    (json_int_t)stats.hits, "disk_hits", (json_int_t)stats.disk_hits, "misses",
                    (json_int_t)stats.misses, "prepared", (json_int_t)stats.prepared, "entries",
                    (json_int_t)stats.entries, "bytes", (json_int_t)stats.bytes);
    tell(pipe, &message);
}

static void add_preview(dk_message *message, const dk_event *event)
{
    size_t bytes = (size_t)event->preview_width * (size_t)event->preview_height * 3;
    void *copy = dk_alloc(bytes);
    memcpy(copy, event->preview, bytes);
    dk_message_add_blob(message, copy, bytes);
    json_object_set_new(message->header, "width", json_integer(event->preview_width));
    json_object_set_new(message->header, "height", json_integer(event->preview_height));
}

void dk_tell_event(dk_pipe *pipe, const char *task, const dk_event *event)
{
    static const char *const kinds[] = {
        [DK_EVENT_STAGE_BEGIN] = "stage", [DK_EVENT_STAGE_END] = "stage_end",
        [DK_EVENT_STEP] = "step",         [DK_EVENT_WARNING] = "warning",
        [DK_EVENT_PREVIEW] = "preview",
    };
    dk_message message;
    dk_message_pack(&message, "event", "{s:s, s:s, s:s*, s:i, s:i, s:f, s:f, s:s*}", "task",
                    task, "kind", kinds[event->kind], "stage", event->stage, "step",
                    event->step, "steps", event->steps, "ms", event->ms, "eta_ms",
                    event->eta_ms, "message", event->message);
    if (event->kind == DK_EVENT_PREVIEW) {
        add_preview(&message, event);
    }
    tell(pipe, &message);
}

static json_t *timings_of(const dk_result *result)
{
    json_t *timings = json_array();
    for (int i = 0; i < result->timing_count; i++) {
        json_array_append_new(timings,
                              json_pack("{s:s, s:f}", "stage", result->timings[i].stage, "ms",
                                        result->timings[i].ms));
    }
    return timings;
}

static json_t *steps_of(const dk_result *result)
{
    json_t *steps = json_array();
    for (int i = 0; i < result->step_count; i++) {
        json_array_append_new(steps, json_real(result->step_ms[i]));
    }
    return steps;
}

/* Frames in shared memory, so that whoever encodes them maps them; -1 when there is no room. */
static int share(const void *bytes, size_t size)
{
    int fd = memfd_create("darkroom-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    for (size_t done = 0; fd >= 0 && done < size;) {
        ssize_t wrote = write(fd, (const char *)bytes + done, size - done);
        if (wrote <= 0) {
            close(fd);
            return -1;
        }
        done += (size_t)wrote;
    }
    return fd;
}

void dk_tell_result(dk_pipe *pipe, const char *task, const dk_result *result)
{
    dk_message message;
    size_t bytes = (size_t)result->frames * (size_t)result->height * (size_t)result->width * 3;
    dk_error error;
    int fd = share(result->rgb, bytes);
    if (fd < 0) {
        dk_fail(&error, DK_MEMORY, "no shared memory for %zu bytes of frames", bytes);
        dk_tell_error(pipe, task, &error);
        return;
    }
    dk_message_pack(&message, "result", "{s:s, s:i, s:i, s:i, s:f, s:s, s:o, s:o}", "task",
                    task, "frames", result->frames, "height", result->height, "width",
                    result->width, "fps", result->fps, "recipe", result->recipes[0], "timings",
                    timings_of(result), "step_ms", steps_of(result));
    message.fd = fd;
    tell(pipe, &message);
}

void dk_tell_error(dk_pipe *pipe, const char *task, const dk_error *error)
{
    dk_message message;
    pack_error(&message, "error", error);
    json_object_set_new(message.header, "task", json_string(task));
    tell(pipe, &message);
}

void dk_tell_idle(dk_pipe *pipe)
{
    dk_message message;
    dk_message_init(&message, "idle");
    tell(pipe, &message);
}

void dk_tell_plan(dk_pipe *pipe, const json_t *call, const dk_request *request, bool joins,
                  const dk_plan *plan)
{
    dk_message message;
    dk_message_pack(&message, "plan", "{s:O, s:f, s:f, s:f, s:f, s:f, s:f, s:b, s:i}", "call",
                    call, "weight_bytes", (double)plan->weight_bytes, "peak_bytes",
                    (double)plan->peak_bytes, "flops", plan->flops, "step_flops",
                    plan->step_flops, "seconds", plan->seconds, "step_seconds",
                    plan->step_seconds, "joins", joins, "num_frames", request->num_frames);
    tell(pipe, &message);
}

void dk_tell_no_plan(dk_pipe *pipe, const json_t *call, const dk_error *error)
{
    dk_message message;
    pack_error(&message, "plan", error);
    json_object_set(message.header, "call", (json_t *)(uintptr_t)call);
    tell(pipe, &message);
}
