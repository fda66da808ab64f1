/* Plans: asked of a worker once per kind of request, then kept. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/topology.h"
#include "server/service/state.h"
#include "server/wire/request.h"

enum { WAIT_S = 20, KEPT = 512, PATIENCE_MS = 5000, AGAIN_MS = 100, FRESH_MS = 60000 };

/* With the lock held. The expected seconds change as the engine learns: a plan is kept for a
   while only. */
static json_t *kept_plan(const dk_service *service, const char *key)
{
    const dk_plan_entry *entry = service->plans;
    while (entry != NULL && strcmp(entry->key, key) != 0) {
        entry = entry->next;
    }
    bool fresh = entry != NULL && dk_now_ms() - entry->made_ms < FRESH_MS;
    return fresh ? json_deep_copy(entry->plan) : NULL;
}

/* With the lock held. The oldest go first. */
static void keep_plan(dk_service *service, const char *key, json_t *plan)
{
    dk_plan_entry *entry = dk_alloc(sizeof *entry);
    *entry = (dk_plan_entry){.key = dk_strdup(key),
                             .plan = json_deep_copy(plan),
                             .made_ms = dk_now_ms(),
                             .next = service->plans};
    service->plans = entry;
    service->plan_count++;
    dk_plan_entry **at = &service->plans;
    for (int i = 0; i < KEPT && *at != NULL; i++) {
        at = &(*at)->next;
    }
    while (*at != NULL) {
        dk_plan_entry *old = *at;
        *at = old->next;
        dk_free(old->key);
        json_decref(old->plan);
        dk_free(old);
        service->plan_count--;
    }
}

static void judge(const dk_service *service, json_t *plan)
{
    double budget = service->options.max_memory_gb * 1e9;
    double peak = json_number_value(json_object_get(plan, "peak_bytes"));
    double weights = json_number_value(json_object_get(plan, "weight_bytes"));
    double room = budget > 0 ? budget - weights : (double)dk_available_memory_bytes();
    bool fits = peak <= room;
    json_object_set_new(plan, "budget_bytes", json_real(budget > 0 ? budget : room));
    json_object_set_new(plan, "fits", json_boolean(fits));
}

static json_t *ask(dk_service *service, const json_t *parameters)
{
    dk_plan_call call = {0};
    dk_message message;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&service->lock);
    call.number = ++service->next_call;
    call.next = service->calls;
    service->calls = &call;
    pthread_mutex_unlock(&service->lock);
    dk_message_pack(&message, "plan", "{s:I, s:o}", "call", (json_int_t)call.number, "request",
                    json_deep_copy(parameters));
    dk_service_post(service, &message);
    pthread_mutex_lock(&service->lock);
    int waited = 0;
    while (call.answer == NULL && waited == 0) {
        waited = pthread_cond_timedwait(&service->changed, &service->lock, &until);
    }
    dk_plan_call **at = &service->calls;
    while (*at != &call) {
        at = &(*at)->next;
    }
    *at = call.next;
    pthread_mutex_unlock(&service->lock);
    return call.answer;
}

void dk_service_plan_answer(dk_service *service, dk_message *message)
{
    long number = (long)dk_message_number(message, "call", 0);
    pthread_mutex_lock(&service->lock);
    for (dk_plan_call *call = service->calls; call != NULL; call = call->next) {
        if (call->number == number && call->answer == NULL) {
            call->answer = json_deep_copy(message->header); /* another thread frees it */
        }
    }
    pthread_cond_broadcast(&service->changed);
    pthread_mutex_unlock(&service->lock);
}

static json_t *busy(const char *why)
{
    return json_pack("{s:i, s:s}", "status", (int)DK_BUSY, "message", why);
}

void dk_service_plan_lost(dk_service *service)
{
    pthread_mutex_lock(&service->lock);
    for (dk_plan_call *call = service->calls; call != NULL; call = call->next) {
        if (call->answer == NULL) {
            call->answer = busy("the scheduler that was asked has ended");
        }
    }
    pthread_cond_broadcast(&service->changed);
    pthread_mutex_unlock(&service->lock);
}

static bool is_busy(const json_t *answer)
{
    const json_t *code = json_object_get(answer, "status");
    return code != NULL && json_integer_value(code) == DK_BUSY;
}

/* Workers that are started again are waited for a while. */
static json_t *ask_patiently(dk_service *service, const json_t *parameters)
{
    json_t *answer = ask(service, parameters);
    double end = dk_now_ms() + PATIENCE_MS;
    while (is_busy(answer) && dk_now_ms() < end && !atomic_load(&service->draining)) {
        json_decref(answer);
        usleep(AGAIN_MS * 1000);
        answer = ask(service, parameters);
    }
    if (answer == NULL) {
        answer = busy("no worker answers, try again later");
    }
    if (is_busy(answer)) { /* 503, not 429: it is not the client's fault */
        json_object_set_new(answer, "status", json_integer(DK_MEMORY));
    }
    return answer;
}

dk_status dk_service_plan(dk_service *service, const json_t *parameters, json_t **plan,
                          dk_error *err)
{
    char *key = dk_request_kind(parameters);
    pthread_mutex_lock(&service->lock);
    json_t *found = kept_plan(service, key);
    pthread_mutex_unlock(&service->lock);
    dk_status status = DK_OK;
    if (found == NULL) {
        found = ask_patiently(service, parameters);
        const json_t *code = json_object_get(found, "status");
        if (code != NULL) {
            status = dk_fail(err, (dk_status)json_integer_value(code), "%s",
                             json_string_value(json_object_get(found, "message")));
        } else {
            json_object_del(found, "v");
            json_object_del(found, "type");
            json_object_del(found, "call");
            pthread_mutex_lock(&service->lock);
            keep_plan(service, key, found);
            pthread_mutex_unlock(&service->lock);
        }
    }
    dk_free(key);
    if (status != DK_OK) {
        json_decref(found);
        return status;
    }
    judge(service, found);
    *plan = found;
    return DK_OK;
}
