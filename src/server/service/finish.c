/* The threads that finish outputs: encode, store, make a thumbnail. They hold no device. A full
   disk makes them wait, and nothing new is dispatched meanwhile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "server/service/state.h"
#include "server/service/still.h"

enum { RETRY_MS = 500 };

static void release_work(dk_finish_work **work)
{
    if ((*work)->mapped != NULL) {
        munmap((*work)->mapped, (*work)->bytes);
    }
    dk_message_release(&(*work)->message);
    dk_free((*work)->id);
    dk_free(*work);
    *work = NULL;
}

static dk_frames frames_of(const dk_finish_work *work)
{
    return (dk_frames){.count = (int)dk_message_number(&work->message, "frames", 0),
                       .height = (int)dk_message_number(&work->message, "height", 0),
                       .width = (int)dk_message_number(&work->message, "width", 0),
                       .rgb = work->frames};
}

/* What a format makes of a stored job: its file, and small pictures of it. */
typedef struct file_names {
    char file[64], thumbnail[64], spritesheet[64];
} file_names;

static dk_status write_file(dk_service *service, const dk_finish_work *work, const char *name,
                            const dk_frames *frames, const dk_media_options *options,
                            dk_error *err)
{
    char *path = dk_jobs_path(service->options.jobs, work->id, name);
    dk_status status = dk_media_write(path, frames, options, err);
    dk_free(path);
    return status == DK_OK ? dk_jobs_persist(service->options.jobs, work->id, name, err)
                           : status;
}

static dk_status write_small(dk_service *service, const dk_finish_work *work,
                             const file_names *names, dk_error *err)
{
    const dk_frames frames = frames_of(work);
    const dk_media_options plain = {.quality = 80};
    dk_still still;
    dk_still_thumbnail(&still, &frames);
    dk_status status = write_file(service, work, names->thumbnail, &still.frames, &plain, err);
    dk_still_release(&still);
    if (status == DK_OK && frames.count > 1) {
        dk_still_spritesheet(&still, &frames);
        status = write_file(service, work, names->spritesheet, &still.frames, &plain, err);
        dk_still_release(&still);
    }
    return status;
}

static dk_status write_all(dk_service *service, const dk_finish_work *work,
                           const file_names *names, int quality, dk_error *err)
{
    const dk_frames frames = frames_of(work);
    const dk_media_options options = {.quality = quality,
                                      .fps = dk_message_number(&work->message, "fps", 16),
                                      .recipe = dk_message_text(&work->message, "recipe")};
    DK_TRY(write_file(service, work, names->file, &frames, &options, err));
    return write_small(service, work, names, err);
}

static int64_t bytes_of(const dk_service *service, const char *id, const char *name)
{
    struct stat info;
    char *path = dk_jobs_path(service->options.jobs, id, name);
    int64_t bytes = path != NULL && stat(path, &info) == 0 ? (int64_t)info.st_size : 0;
    dk_free(path);
    return bytes;
}

static dk_status record_output(dk_service *service, const dk_finish_work *work,
                               const dk_job_record *record, file_names *names, bool *completed,
                               dk_error *err)
{
    dk_job_output output = {
        .index = work->output,
        .seed = record->outputs[work->output].seed,
        .done = true,
        .file = names->file,
        .thumbnail = names->thumbnail,
        .spritesheet = names->spritesheet[0] != '\0' ? names->spritesheet : NULL,
        .recipe = (char *)(uintptr_t)dk_message_text(&work->message, "recipe"),
        .bytes = bytes_of(service, work->id, names->file),
        .engine_ms = dk_message_number(&work->message, "engine_ms", 0)};
    return dk_jobs_output_done(service->options.jobs, work->id, &output, completed, err);
}

static dk_status store(dk_service *service, const dk_finish_work *work,
                       const dk_job_record *record, bool *completed, dk_error *err)
{
    json_t *order;
    const char *format = "png";
    int64_t quality = 0;
    file_names names = {0};
    DK_TRY(dk_json_parse(&order, record->request, strlen(record->request), record->id, err));
    dk_status status = dk_json_string(order, "output_format", 0, &format, work->id, err);
    if (status == DK_OK) {
        status = dk_json_int(order, "output_quality", 0, 100, 0, &quality, work->id, err);
    }
    if (status == DK_OK) {
        snprintf(names.file, sizeof names.file, "output-%d.%s", work->output, format);
        snprintf(names.thumbnail, sizeof names.thumbnail, "thumbnail-%d.jpg", work->output);
        if (dk_message_number(&work->message, "frames", 0) > 1) {
            snprintf(names.spritesheet, sizeof names.spritesheet, "spritesheet-%d.jpg",
                     work->output);
        }
        status = write_all(service, work, &names, (int)quality, err);
    }
    json_decref(order);
    return status == DK_OK ? record_output(service, work, record, &names, completed, err)
                           : status;
}

/* Not every library says why a write failed: where there is hardly any space, that is why. */
static bool is_for_space(const dk_service *service, const char *id, dk_status status)
{
    enum { HARDLY_ANY = 1024 * 1024 };
    struct statvfs space;
    char *path = dk_jobs_path(service->options.jobs, id, "output");
    char *slash = path != NULL ? strrchr(path, '/') : NULL;
    bool full = false;
    if (slash != NULL) {
        *slash = '\0';
        full = statvfs(path, &space) == 0 &&
               (double)space.f_bavail * (double)space.f_frsize < HARDLY_ANY;
    }
    dk_free(path);
    return status == DK_NO_SPACE || (status == DK_IO && full);
}

static void hold(dk_service *service, bool on)
{
    bool before = atomic_exchange(&service->full, on);
    if (before != on && !atomic_load(&service->draining)) {
        dk_message message;
        dk_message_pack(&message, "hold", "{s:b}", "on", on);
        dk_service_post(service, &message);
        dk_log_warn(service->options.log, on ? "the disk is full: outputs wait for space"
                                             : "there is space on the disk again");
    }
}

/* Where the time of an output went. */
static void observe(dk_service *service, const dk_message *message)
{
    size_t i;
    const json_t *entry;
    json_array_foreach(json_object_get(message->header, "timings"), i, entry)
    {
        char labels[96];
        snprintf(labels, sizeof labels, "stage=\"%.40s\"",
                 json_string_value(json_object_get(entry, "stage")));
        dk_metrics_observe(service->metrics, "darkroom_stage_seconds", labels,
                           json_number_value(json_object_get(entry, "ms")) / 1000.0);
    }
    json_array_foreach(json_object_get(message->header, "step_ms"), i, entry)
    {
        dk_metrics_observe(service->metrics, "darkroom_step_seconds", "",
                           json_number_value(entry) / 1000.0);
    }
}

/* True when the work is over; false: it must be tried again. */
static bool finish(dk_service *service, const dk_finish_work *work)
{
    dk_job_record record = {0};
    dk_error error = {0};
    bool completed = false, over = true;
    double start = dk_now_ms();
    dk_status status = dk_jobs_get(service->options.jobs, work->id, NULL, &record, &error);
    if (status == DK_NOT_FOUND || (status == DK_OK && (dk_job_state_is_final(record.state) ||
                                                       work->output >= record.output_count))) {
        dk_job_record_release(&record);
        return true; /* cancelled or deleted meanwhile */
    }
    if (status == DK_OK) {
        status = store(service, work, &record, &completed, &error);
    }
    /* Counted before anyone is told: who asks for the metrics next finds this output there. */
    if (status == DK_OK) {
        dk_metrics_observe(service->metrics, "darkroom_finish_seconds", "",
                           (dk_now_ms() - start) / 1000.0);
        observe(service, &work->message);
        dk_watch_output_done(service->watch, work->id, work->output);
        hold(service, false);
    } else if (is_for_space(service, work->id, status)) {
        hold(service, true);
        over = false;
    } else {
        observe(service, &work->message);
        dk_service_end_failed(service, work->id, status, error.message);
    }
    if (completed) {
        dk_service_note_end(service, work->id, "completed");
    }
    dk_job_record_release(&record);
    return over;
}

/* The next work. The entry stays in the list while it is worked on, so that a scheduler that
   starts again is not given the output once more. */
static dk_finish_work *next_work(dk_service *service)
{
    pthread_mutex_lock(&service->lock);
    dk_finish_work *work = NULL;
    while (work == NULL && !atomic_load(&service->stopping)) {
        for (work = service->finish; work != NULL && work->taken;) {
            work = work->next;
        }
        if (work == NULL) {
            pthread_cond_wait(&service->finish_woken, &service->lock);
        }
    }
    if (work != NULL) {
        work->taken = true;
    }
    pthread_mutex_unlock(&service->lock);
    return work;
}

static void put_away(dk_service *service, dk_finish_work *work)
{
    pthread_mutex_lock(&service->lock);
    dk_finish_work **at = &service->finish;
    while (*at != work) {
        at = &(*at)->next;
    }
    *at = work->next;
    dk_metrics_set(service->metrics, "darkroom_finishing", "", --service->finishing);
    pthread_cond_broadcast(&service->changed);
    pthread_mutex_unlock(&service->lock);
    release_work(&work);
}

static void *run(void *argument)
{
    dk_service *service = argument;
    for (dk_finish_work *work; (work = next_work(service)) != NULL;) {
        while (!finish(service, work) && !atomic_load(&service->stopping)) {
            usleep(RETRY_MS * 1000);
        }
        put_away(service, work);
    }
    return NULL;
}

/* Recipes go to clients: of the job's input files they tell the names, not where the store is.
 */
static void hide_folders(dk_message *message)
{
    static const char *const fields[] = {"image_path", "mask_path"};
    const char *text = dk_message_text(message, "recipe");
    json_t *recipe = NULL;
    bool changed = false;
    if (dk_json_parse(&recipe, text, strlen(text), "recipe", NULL) != DK_OK) {
        return;
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *path = json_string_value(json_object_get(recipe, fields[i]));
        const char *slash = path != NULL ? strrchr(path, '/') : NULL;
        if (slash != NULL) {
            json_object_set_new(recipe, fields[i], json_string(slash + 1));
            changed = true;
        }
    }
    if (changed) {
        char *hidden = json_dumps(recipe, JSON_COMPACT | JSON_REAL_PRECISION(17));
        json_object_set_new(message->header, "recipe", json_string(hidden));
        free(hidden);
    }
    json_decref(recipe);
}

void dk_service_finish_add(dk_service *service, dk_finish_work *work)
{
    hide_folders(&work->message);
    pthread_mutex_lock(&service->lock);
    dk_finish_work **at = &service->finish;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = work;
    dk_metrics_set(service->metrics, "darkroom_finishing", "", ++service->finishing);
    pthread_cond_signal(&service->finish_woken);
    pthread_mutex_unlock(&service->lock);
}

bool dk_service_is_finishing(dk_service *service, const char *id, int output)
{
    pthread_mutex_lock(&service->lock);
    const dk_finish_work *work = service->finish;
    while (work != NULL && (work->output != output || strcmp(work->id, id) != 0)) {
        work = work->next;
    }
    pthread_mutex_unlock(&service->lock);
    return work != NULL;
}

dk_status dk_service_finish_start(dk_service *service, dk_error *err)
{
    int count = service->options.finishing_threads;
    service->finishers = dk_alloc((size_t)count * sizeof *service->finishers);
    for (int i = 0; i < count; i++) {
        if (pthread_create(&service->finishers[i], NULL, run, service) != 0) {
            service->options.finishing_threads = i;
            return dk_fail(err, DK_MEMORY, "a finishing thread does not start");
        }
    }
    return DK_OK;
}

/* What could not be stored is made again when the server comes back. */
void dk_service_finish_stop(dk_service *service)
{
    pthread_mutex_lock(&service->lock);
    pthread_cond_broadcast(&service->finish_woken);
    pthread_mutex_unlock(&service->lock);
    for (int i = 0; i < service->options.finishing_threads; i++) {
        pthread_join(service->finishers[i], NULL);
    }
    while (service->finish != NULL) {
        dk_finish_work *work = service->finish;
        service->finish = work->next;
        release_work(&work);
    }
    dk_free(service->finishers);
    service->finishers = NULL;
}
