/* What the scheduler tells, and what it is given. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "server/service/job_code.h"
#include "server/service/state.h"

char *dk_service_task_job(const char *task, int *output)
{
    const char *slash = strrchr(task, '/');
    *output = slash != NULL ? (int)strtol(slash + 1, NULL, 10) : 0;
    return slash != NULL ? dk_strndup(task, (size_t)(slash - task)) : dk_strdup(task);
}

/* The engine's request of one output: the order's parameters, its seed, its input files. */
static json_t *engine_request(const dk_service *service, const dk_job_record *record,
                              const json_t *order, const dk_job_output *output)
{
    char digits[32];
    const char *field;
    json_t *name;
    json_t *request = json_copy(json_object_get(order, "parameters"));
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)output->seed);
    json_object_set_new(request, "seed", json_string(digits));
    json_object_foreach(json_object_get(order, "inputs"), field, name)
    {
        char *path = dk_jobs_path(service->options.jobs, record->id, json_string_value(name));
        json_object_set_new(request, field, json_string(path));
        dk_free(path);
    }
    return request;
}

static void submit_output(dk_service *service, const dk_job_record *record, const json_t *order,
                          const dk_job_output *output)
{
    dk_message message;
    char task[128], name[32];
    const json_t *plan = json_object_get(order, "plan");
    snprintf(task, sizeof task, "%s/%d", record->id, output->index);
    snprintf(name, sizeof name, "checkpoint-%d", output->index);
    char *checkpoint = dk_jobs_path(service->options.jobs, record->id, name);
    dk_message_pack(&message, "submit", "{s:s, s:o, s:s, s:i, s:f, s:s, s:f, s:b, s:i}", "task",
                    task, "request", engine_request(service, record, order, output), "owner",
                    record->owner, "priority", record->priority, "deadline_ms",
                    (double)record->deadline_ms, "checkpoint", checkpoint, "step_seconds",
                    json_number_value(json_object_get(plan, "step_seconds")), "joins",
                    json_is_true(json_object_get(plan, "joins")), "attempts", record->attempts);
    dk_service_post(service, &message);
    dk_free(checkpoint);
}

/* Notes a stored job as in flight; its order is owned by the caller, NULL: it is damaged. */
static json_t *note_flight(dk_service *service, const dk_job_record *record)
{
    json_t *order = NULL;
    dk_error error;
    if (dk_json_parse(&order, record->request, strlen(record->request), record->id, &error) !=
        DK_OK) {
        dk_service_end_failed(service, record->id, DK_INTERNAL, error.message);
        return NULL;
    }
    const json_t *parameters = json_object_get(order, "parameters");
    int steps = (int)json_integer_value(json_object_get(parameters, "num_inference_steps"));
    double seconds =
        json_number_value(json_object_get(json_object_get(order, "plan"), "seconds"));
    dk_watch_add(service->watch, record->id, record->output_count, steps, seconds);
    return order;
}

static void submit_order(dk_service *service, const dk_job_record *record, const json_t *order)
{
    for (int i = 0; i < record->output_count; i++) {
        if (record->outputs[i].done) {
            dk_watch_output_done(service->watch, record->id, i);
        } else if (!dk_service_is_finishing(service, record->id, i)) {
            submit_output(service, record, order, &record->outputs[i]);
        }
    }
}

void dk_service_submit_stored(dk_service *service, const dk_job_record *record)
{
    json_t *order = note_flight(service, record);
    if (order != NULL) {
        submit_order(service, record, order);
        json_decref(order);
    }
}

static void note_stored(dk_service *service, const dk_job_record *record)
{
    json_decref(note_flight(service, record));
}

/* Calls fn for all jobs that have not ended, the oldest first. */
static void for_unfinished(dk_service *service,
                           void (*fn)(dk_service *service, const dk_job_record *record))
{
    enum { PAGE = 100 };
    char *after = NULL;
    for (bool more = true; more;) {
        dk_job_list list = {0};
        dk_error error;
        const dk_jobs_query query = {
            .after = after, .limit = PAGE, .ascending = true, .unfinished = true};
        if (dk_jobs_list(service->options.jobs, &query, &list, &error) != DK_OK) {
            dk_log_warn(service->options.log, "%s", error.message);
            break;
        }
        for (int i = 0; i < list.count; i++) {
            fn(service, &list.records[i]);
        }
        dk_free(after);
        after = list.count > 0 ? dk_strdup(list.records[list.count - 1].id) : NULL;
        more = list.more && list.count > 0;
        dk_job_list_release(&list);
    }
    dk_free(after);
}

void dk_service_note_unfinished(dk_service *service)
{
    for_unfinished(service, note_stored);
}

/* A scheduler that has just started knows nothing. */
void dk_service_submit_unfinished(dk_service *service)
{
    for_unfinished(service, dk_service_submit_stored);
}

void dk_service_note_end(dk_service *service, const char *id, const char *state)
{
    char labels[96];
    snprintf(labels, sizeof labels, "kind=\"%.*s\",status=\"%s\"", (int)strcspn(id, "_"), id,
             state);
    dk_metrics_add(service->metrics, "darkroom_jobs_total", labels, 1);
    dk_watch_end(service->watch, id);
}

void dk_service_end_failed(dk_service *service, const char *id, dk_status status,
                           const char *message)
{
    bool ended = false;
    dk_error error;
    char code[DK_JOB_CODE_BYTES], labels[96];
    dk_job_code(code, status);
    dk_status stored =
        status == DK_CANCELLED
            ? dk_jobs_cancel(service->options.jobs, id, &ended, &error)
            : dk_jobs_fail(service->options.jobs, id, code, message, &ended, &error);
    if (stored != DK_OK && stored != DK_NOT_FOUND) {
        dk_log_warn(service->options.log, "%s: %s", id, error.message);
    }
    if (status != DK_CANCELLED) {
        snprintf(labels, sizeof labels, "status=\"%s\"", code);
        dk_metrics_add(service->metrics, "darkroom_errors_total", labels, 1);
    }
    dk_service_note_end(service, id, status == DK_CANCELLED ? "cancelled" : "failed");
}

void dk_service_cancel_tasks(dk_service *service, const char *id, int outputs)
{
    for (int i = 0; i < outputs; i++) {
        char task[128];
        dk_message message;
        snprintf(task, sizeof task, "%s/%d", id, i);
        dk_message_pack(&message, "cancel", "{s:s}", "task", task);
        dk_service_post(service, &message);
    }
}

/* One output's end without a result ends the job: its other outputs are not wanted any more. */
static void take_error(dk_service *service, const dk_message *message)
{
    int output;
    char *id = dk_service_task_job(dk_message_text(message, "task"), &output);
    dk_job_record record = {0};
    bool fatal = json_is_true(json_object_get(message->header, "fatal"));
    if (dk_watch_has(service->watch, id) && !fatal) {
        if (dk_jobs_get(service->options.jobs, id, NULL, &record, NULL) == DK_OK) {
            dk_service_cancel_tasks(service, id, record.output_count);
        }
        dk_service_end_failed(service, id,
                              (dk_status)dk_message_number(message, "status", DK_INTERNAL),
                              dk_message_text(message, "message"));
    }
    dk_job_record_release(&record);
    dk_free(id);
}

static void take_event(dk_service *service, const dk_message *message)
{
    int output;
    char *id = dk_service_task_job(dk_message_text(message, "task"), &output);
    const char *kind = dk_message_text(message, "kind");
    if (strcmp(kind, "step") == 0 || strcmp(kind, "stage") == 0) {
        dk_watch_step(service->watch, id, output, dk_message_text(message, "stage"),
                      (int)dk_message_number(message, "step", 0),
                      (int)dk_message_number(message, "steps", 0),
                      dk_message_number(message, "eta_ms", 0));
    } else if (strcmp(kind, "preview") == 0 && message->blob_count == 1) {
        int width = (int)dk_message_number(message, "width", 0);
        int height = (int)dk_message_number(message, "height", 0);
        if (width > 0 && height > 0 &&
            (size_t)width * (size_t)height * 3 == message->blobs[0].size) {
            dk_watch_preview(service->watch, id, output, message->blobs[0].data, width, height);
        }
    } else if (strcmp(kind, "warning") == 0) {
        dk_log_info(service->options.log, "%s: %s", id, dk_message_text(message, "message"));
    }
    dk_free(id);
}

static void take_started(dk_service *service, const dk_message *message, bool lost)
{
    int output, attempts;
    dk_error error;
    char *id = dk_service_task_job(dk_message_text(message, "task"), &output);
    dk_status status;
    if (lost) {
        status = dk_jobs_retry(service->options.jobs, id, &attempts, &error);
        dk_metrics_add(service->metrics, "darkroom_retries_total", "", 1);
    } else {
        status = dk_jobs_start(service->options.jobs, id, &error);
        dk_watch_step(service->watch, id, output, "", 0, 0, 0);
        dk_metrics_observe(service->metrics, "darkroom_queue_wait_seconds", "",
                           dk_message_number(message, "waited_ms", 0) / 1000.0);
    }
    /* DK_MISMATCH, DK_NOT_FOUND: it was cancelled or deleted while it was about to start. */
    if (status != DK_OK && status != DK_NOT_FOUND && status != DK_MISMATCH) {
        dk_log_warn(service->options.log, "%s: %s", id, error.message);
    }
    dk_free(id);
}

static void *map_frames(const dk_message *message, size_t *bytes)
{
    struct stat info;
    double size = dk_message_number(message, "frames", 0) *
                  dk_message_number(message, "height", 0) *
                  dk_message_number(message, "width", 0) * 3;
    int fd = open(dk_message_text(message, "frames_path"), O_RDONLY | O_CLOEXEC);
    void *frames = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &info) == 0 && size > 0 && (double)info.st_size >= size) {
        *bytes = (size_t)size;
        frames = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    return frames != MAP_FAILED ? frames : NULL;
}

static void take_result(dk_service *service, dk_message *message)
{
    dk_finish_work *work = dk_alloc(sizeof *work);
    dk_message taken;
    work->id = dk_service_task_job(dk_message_text(message, "task"), &work->output);
    if (message->blob_count == 1 &&
        (double)message->blobs[0].size >= dk_message_number(message, "frames", 0) *
                                              dk_message_number(message, "height", 0) *
                                              dk_message_number(message, "width", 0) * 3) {
        work->frames = message->blobs[0].data; /* the message's */
    } else {
        work->mapped = work->frames = map_frames(message, &work->bytes);
    }
    dk_message_pack(&taken, "taken", "{s:s}", "task", dk_message_text(message, "task"));
    dk_service_post(service, &taken);
    if (work->frames == NULL) {
        dk_service_end_failed(service, work->id, DK_INTERNAL, "the frames could not be read");
        dk_free(work->id);
        dk_free(work);
        return;
    }
    work->message = *message;
    *message = (dk_message){.fd = -1};
    dk_service_finish_add(service, work);
}

static void note_positions(dk_service *service, const dk_message *message)
{
    size_t i, workers = json_array_size(json_object_get(message->header, "workers"));
    const json_t *task;
    json_array_foreach(json_object_get(message->header, "queue"), i, task)
    {
        int output;
        char *id = dk_service_task_job(json_string_value(task), &output);
        if (output == 0) {
            dk_watch_queued(service->watch, id, (int)i, (int)workers);
        }
        dk_free(id);
    }
}

static void take_report(dk_service *service, const dk_message *message)
{
    const json_t *fatal = json_object_get(message->header, "fatal");
    size_t i;
    const json_t *worker;
    pthread_mutex_lock(&service->lock);
    json_decref(service->report);
    service->report = json_incref(message->header);
    json_array_foreach(json_object_get(message->header, "workers"), i, worker)
    {
        const json_t *ready = json_object_get(worker, "ready");
        if (ready != NULL) {
            json_decref(service->model);
            service->model = json_incref((json_t *)(uintptr_t)ready);
        }
    }
    if (fatal != NULL && service->fatal.status == DK_OK) {
        service->fatal.status = (dk_status)json_integer_value(json_object_get(fatal, "status"));
        snprintf(service->fatal.message, sizeof service->fatal.message, "%s",
                 json_string_value(json_object_get(fatal, "message")));
    }
    pthread_cond_broadcast(&service->changed);
    pthread_mutex_unlock(&service->lock);
    if (!service->greeted) {
        service->greeted = service->ever_greeted = true;
        dk_service_submit_unfinished(service);
    }
    note_positions(service, message);
}

void dk_service_take_message(dk_service *service, dk_message *message)
{
    const char *type = dk_message_type(message);
    if (strcmp(type, "report") == 0) {
        take_report(service, message);
    } else if (strcmp(type, "event") == 0) {
        take_event(service, message);
    } else if (strcmp(type, "result") == 0) {
        take_result(service, message);
    } else if (strcmp(type, "error") == 0) {
        take_error(service, message);
    } else if (strcmp(type, "started") == 0 || strcmp(type, "lost") == 0) {
        take_started(service, message, type[0] == 'l');
    } else if (strcmp(type, "plan") == 0) {
        dk_service_plan_answer(service, message);
    }
}
