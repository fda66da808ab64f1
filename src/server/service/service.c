/* The service: its life, and what the API asks of it. */
#include "server/service/service.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "server/service/state.h"

dk_status dk_service_start(dk_service **out, const dk_service_options *options, dk_error *err)
{
    dk_service *service = dk_alloc(sizeof *service);
    service->options = *options;
    service->watch = dk_watch_create();
    service->metrics = dk_metrics_create();
    pthread_mutex_init(&service->lock, NULL);
    pthread_cond_init(&service->changed, NULL);
    pthread_cond_init(&service->finish_woken, NULL);
    dk_service_note_unfinished(service);
    dk_status status = dk_service_finish_start(service, err);
    if (status == DK_OK) {
        status = dk_service_link_start(service, err);
    }
    if (status != DK_OK) {
        atomic_store(&service->stopping, true);
        dk_service_finish_stop(service);
        dk_metrics_destroy(&service->metrics);
        dk_watch_destroy(&service->watch);
        dk_free(service);
        return status;
    }
    *out = service;
    return DK_OK;
}

static bool is_at_work(dk_service *service)
{
    size_t i;
    const json_t *worker;
    pthread_mutex_lock(&service->lock);
    bool busy = service->finishing > 0;
    json_array_foreach(json_object_get(service->report, "workers"), i, worker)
    {
        busy = busy || json_array_size(json_object_get(worker, "tasks")) > 0;
    }
    pthread_mutex_unlock(&service->lock);
    return busy;
}

void dk_service_drain(dk_service *service, double drain_ms, const volatile int *hurry)
{
    enum { LOOK_MS = 50, SETTLE_MS = 200 };
    dk_message message;
    double start = dk_now_ms();
    atomic_store(&service->draining, true);
    dk_message_pack(&message, "hold", "{s:b}", "on", 1);
    dk_service_post(service, &message);
    while (dk_now_ms() - start < SETTLE_MS ||
           (is_at_work(service) && dk_now_ms() - start < drain_ms)) {
        if (*hurry) {
            return;
        }
        usleep(LOOK_MS * 1000);
    }
}

void dk_service_end(dk_service *service)
{
    atomic_store(&service->draining, true);
    if (!atomic_load(&service->stopping)) {
        dk_service_link_stop(service);
        dk_service_finish_stop(service);
        dk_watch_end_all(service->watch);
    }
}

void dk_service_stop(dk_service **service)
{
    if (*service == NULL) {
        return;
    }
    dk_service *s = *service;
    dk_service_end(s);
    dk_watch_destroy(&s->watch);
    dk_metrics_destroy(&s->metrics);
    while (s->plans != NULL) {
        dk_plan_entry *entry = s->plans;
        s->plans = entry->next;
        dk_free(entry->key);
        json_decref(entry->plan);
        dk_free(entry);
    }
    json_decref(s->report);
    json_decref(s->model);
    pthread_cond_destroy(&s->changed);
    pthread_cond_destroy(&s->finish_woken);
    pthread_mutex_destroy(&s->lock);
    dk_free(s);
    *service = NULL;
}

dk_jobs *dk_service_jobs(const dk_service *service)
{
    return service->options.jobs;
}

dk_metrics *dk_service_metrics(dk_service *service)
{
    return service->metrics;
}

bool dk_service_is_ready(dk_service *service)
{
    size_t i;
    const json_t *worker;
    bool ready = false;
    pthread_mutex_lock(&service->lock);
    json_array_foreach(json_object_get(service->report, "workers"), i, worker)
    {
        const char *state = json_string_value(json_object_get(worker, "state"));
        ready = ready || strcmp(state, "idle") == 0 || strcmp(state, "busy") == 0;
    }
    pthread_mutex_unlock(&service->lock);
    return ready;
}

dk_status dk_service_fatal(dk_service *service, dk_error *err)
{
    pthread_mutex_lock(&service->lock);
    *err = service->fatal;
    pthread_mutex_unlock(&service->lock);
    return err->status;
}

json_t *dk_service_report(dk_service *service)
{
    pthread_mutex_lock(&service->lock);
    json_t *report = json_incref(service->report);
    pthread_mutex_unlock(&service->lock);
    return report;
}

json_t *dk_service_model(dk_service *service)
{
    pthread_mutex_lock(&service->lock);
    json_t *model = json_incref(service->model);
    pthread_mutex_unlock(&service->lock);
    return model;
}

/* The order as the store would give it back. */
static void submit_order(dk_service *service, const dk_job_order *order, char *id)
{
    dk_job_output *outputs = dk_alloc((size_t)order->output_count * sizeof *outputs);
    for (int i = 0; i < order->output_count; i++) {
        outputs[i] = (dk_job_output){.index = i, .seed = order->seeds[i]};
    }
    const dk_job_record record = {.id = id,
                                  .kind = (char *)(uintptr_t)order->kind,
                                  .owner = (char *)(uintptr_t)order->owner,
                                  .request = (char *)(uintptr_t)order->request,
                                  .priority = order->priority,
                                  .deadline_ms = order->deadline_ms,
                                  .output_count = order->output_count,
                                  .outputs = outputs};
    dk_service_submit_stored(service, &record);
    dk_free(outputs);
}

dk_status dk_service_submit(dk_service *service, const dk_job_order *order, char **id,
                            bool *again, dk_error *err)
{
    char labels[64];
    int waiting = dk_watch_count(service->watch);
    if (atomic_load(&service->draining)) {
        return dk_fail(err, DK_MEMORY, "the server is about to end");
    }
    if (waiting >= service->options.max_queue) {
        dk_metrics_add(service->metrics, "darkroom_jobs_refused_total", "reason=\"queue\"", 1);
        return dk_fail(err, DK_BUSY, "%d jobs wait, no more are accepted (--max-queue %d)",
                       waiting, service->options.max_queue);
    }
    DK_TRY(dk_jobs_create(service->options.jobs, order, id, again, err));
    if (*again) {
        return DK_OK;
    }
    snprintf(labels, sizeof labels, "kind=\"%s\"", order->kind);
    dk_metrics_add(service->metrics, "darkroom_jobs_accepted_total", labels, 1);
    submit_order(service, order, *id);
    return DK_OK;
}

dk_status dk_service_cancel(dk_service *service, const char *id, bool *ended, dk_error *err)
{
    dk_job_record record = {0};
    DK_TRY(dk_jobs_get(service->options.jobs, id, NULL, &record, err));
    dk_status status = dk_jobs_cancel(service->options.jobs, id, ended, err);
    if (status == DK_OK && *ended) {
        dk_service_cancel_tasks(service, id, record.output_count);
        dk_service_note_end(service, id, "cancelled");
    }
    dk_job_record_release(&record);
    return status;
}

dk_status dk_service_delete(dk_service *service, const char *id, dk_error *err)
{
    bool ended;
    DK_TRY(dk_service_cancel(service, id, &ended, err));
    return dk_jobs_delete(service->options.jobs, id, err);
}

void dk_service_watch(dk_service *service, const char *id, dk_watch_fn *fn, void *context)
{
    dk_watch_job(service->watch, id, fn, context);
}

bool dk_service_progress(dk_service *service, const char *id, dk_progress_note *out)
{
    return dk_watch_progress(service->watch, id, out);
}
