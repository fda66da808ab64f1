/* What the server is and how it is: models, health, parameters, metrics. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/process.h"
#include "darkroom/darkroom.h"
#include "pipeline/request_parameters.h"
#include "server/api/state.h"

static int gpus_of(const dk_api *api)
{
    return dk_layout_replica_ranks(&api->options->layout) * api->options->layout.dp;
}

static json_t *card_of(dk_api *api)
{
    char *name = dk_api_model_name(api);
    json_t *model = dk_service_model(api->service);
    json_t *card = json_pack("{s:s, s:s, s:i, s:s, s:i, s:O*, s:O*, s:s}", "id", name, "object",
                             "model", "created", 0, "owned_by", "darkroom", "num_gpus",
                             gpus_of(api), "pipeline_name", json_object_get(model, "pipeline"),
                             "device", json_object_get(model, "device"), "task_type", "T2V");
    dk_free(name);
    json_decref(model);
    return card;
}

void dk_api_models(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)request;
    json_t *data = json_array();
    json_array_append_new(data, card_of(context));
    dk_http_reply_json(exchange, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

/* Names of models hold slashes, which a client may send as they are. */
void dk_api_model(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    dk_error error;
    char *name = dk_api_model_name(context);
    if (strcmp(request->captures[0], name) == 0) {
        dk_http_reply_json(exchange, 200, card_of(context));
    } else {
        dk_fail(&error, DK_NOT_FOUND, "model '%.100s' is not served, this server has '%s'",
                request->captures[0], name);
        dk_api_fail(exchange, &error, "model", "model_not_found");
    }
    dk_free(name);
}

void dk_api_health(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)request;
    dk_api *api = context;
    bool ready = dk_service_is_ready(api->service);
    const dk_layout *layout = &api->options->layout;
    json_t *model = dk_service_model(api->service);
    const char *device = json_string_value(json_object_get(model, "device"));
    bool xpu = device != NULL && strncmp(device, "xpu", 3) == 0;
    dk_http_reply_json(exchange, ready ? 200 : 503,
                       json_pack("{s:s, s:i, s:i, s:i, s:s}", "status",
                                 ready ? "ready" : "loading", "num_gpus", gpus_of(api),
                                 "dp_size", layout->dp, "sp_degree", dk_layout_sp(layout),
                                 "platform", xpu ? "xpu" : "cpu"));
    json_decref(model);
}

void dk_api_liveness(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)context;
    (void)request;
    dk_http_reply_json(exchange, 200, json_pack("{s:s}", "status", "alive"));
}

void dk_api_server_info(void *context, dk_http_exchange *exchange,
                        const dk_http_request *request)
{
    (void)request;
    dk_api *api = context;
    const dk_layout *layout = &api->options->layout;
    char *name = dk_api_model_name(api);
    json_t *report = dk_service_report(api->service);
    json_t *info = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:b, s:i, s:i, s:O*, s:O*, s:O*, s:O*}",
        "version", dk_version(), "model_path", name, "served_model_name", name, "num_gpus",
        gpus_of(api), "dp_size", layout->dp, "sp_degree", dk_layout_sp(layout),
        "ulysses_degree", layout->ulysses, "ring_degree", layout->ring, "enable_cfg_parallel",
        layout->cfg > 1, "tp_size", layout->tp, "pid", (int)getpid(), "workers",
        json_object_get(report, "workers"), "queued", json_object_get(report, "depth"),
        "scheduler_pid", json_object_get(report, "pid"), "on_hold",
        json_object_get(report, "on_hold"));
    dk_http_reply_json(exchange, 200, info);
    dk_free(name);
    json_decref(report);
}

void dk_api_model_info(void *context, dk_http_exchange *exchange,
                       const dk_http_request *request)
{
    (void)request;
    char *name = dk_api_model_name(context);
    json_t *model = dk_service_model(((dk_api *)context)->service);
    dk_http_reply_json(exchange, 200,
                       json_pack("{s:s, s:b, s:s, s:[O*], s:s, s:b, s:O*, s:O*, s:O*}",
                                 "model_path", name, "is_generation", 1, "model_type",
                                 "diffusion", "architectures",
                                 json_object_get(model, "pipeline"), "task_type", "T2V",
                                 "is_image_gen", 1, "device", json_object_get(model, "device"),
                                 "quantization", json_object_get(model, "quantization"),
                                 "defaults", json_object_get(model, "defaults")));
    dk_free(name);
    json_decref(model);
}

static json_t *parameter_json(const dk_parameter *parameter, const json_t *defaults,
                              const char *kind)
{
    static const char *const types[] = {
        [DK_PARAMETER_TEXT] = "text",    [DK_PARAMETER_CHOICE] = "choice",
        [DK_PARAMETER_LEVEL] = "choice", [DK_PARAMETER_INT] = "int",
        [DK_PARAMETER_REAL] = "real",    [DK_PARAMETER_SEED] = "seed",
        [DK_PARAMETER_BOOL] = "bool"};
    json_t *value = json_object_get(defaults, parameter->name);
    return json_pack("{s:s, s:s, s:f, s:f, s:o, s:O, s:s?, s:s, s:s, s:s?}", "name",
                     parameter->name, "type", types[parameter->type], "min", parameter->min,
                     "max", parameter->max, "choices", dk_parameter_choices_json(parameter),
                     "default", value != NULL ? value : json_null(), "default_text",
                     parameter->default_text, "help", parameter->help, "unit",
                     dk_parameter_unit(parameter), "kind", kind);
}

static void append_table(json_t *list, const dk_parameter_table *table, const json_t *defaults,
                         const char *kind)
{
    for (int i = 0; i < table->count; i++) {
        json_array_append_new(list, parameter_json(&table->parameters[i], defaults, kind));
    }
}

/* What the page makes its form from. */
void dk_api_parameters(void *context, dk_http_exchange *exchange,
                       const dk_http_request *request)
{
    (void)request;
    json_t *list = json_array(), *defaults = dk_api_defaults(context);
    char *name = dk_api_model_name(context);
    for (int i = 0; i < dk_request_parameters.count; i++) {
        const dk_parameter *parameter = &dk_request_parameters.parameters[i];
        if (dk_api_takes_parameter(parameter) ||
            strcmp(parameter->name, "num_outputs_per_prompt") == 0) {
            json_array_append_new(list, parameter_json(parameter, defaults, NULL));
        }
    }
    append_table(list, &dk_api_image_fields, defaults, "image");
    append_table(list, &dk_api_video_fields, defaults, "video");
    dk_http_reply_json(
        exchange, 200,
        json_pack("{s:o, s:s, s:O*}", "parameters", list, "model", name, "defaults", defaults));
    json_decref(defaults);
    dk_free(name);
}

static double number_at(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void set_worker_metrics(dk_metrics *metrics, const json_t *worker)
{
    char labels[48], place[96];
    const json_t *alive = json_object_get(worker, "alive");
    const json_t *cache = json_object_get(alive, "embedding_cache");
    const char *state = json_string_value(json_object_get(worker, "state"));
    bool up = state != NULL && (strcmp(state, "idle") == 0 || strcmp(state, "busy") == 0);
    double seconds = number_at(worker, "seconds");
    snprintf(labels, sizeof labels, "worker=\"%d\"", (int)number_at(worker, "index"));
    dk_metrics_set(metrics, "darkroom_worker_up", labels, up);
    dk_metrics_set(metrics, "darkroom_worker_busy_ratio", labels,
                   seconds > 0 ? number_at(worker, "busy_seconds") / seconds : 0);
    dk_metrics_set(metrics, "darkroom_worker_memory_bytes", labels,
                   number_at(alive, "resident_bytes"));
    dk_metrics_set(metrics, "darkroom_worker_restarts_total", labels,
                   number_at(worker, "restarts"));
    dk_metrics_set(metrics, "darkroom_worker_watchdog_kills_total", labels,
                   number_at(worker, "watchdog_kills"));
    snprintf(place, sizeof place, "%s,place=\"memory\"", labels);
    dk_metrics_set(metrics, "darkroom_embedding_cache_hits_total", place,
                   number_at(cache, "hits"));
    snprintf(place, sizeof place, "%s,place=\"disk\"", labels);
    dk_metrics_set(metrics, "darkroom_embedding_cache_hits_total", place,
                   number_at(cache, "disk_hits"));
    dk_metrics_set(metrics, "darkroom_embedding_cache_misses_total", labels,
                   number_at(cache, "misses"));
    dk_metrics_set(metrics, "darkroom_embedding_cache_prepared_total", labels,
                   number_at(cache, "prepared"));
    dk_metrics_set(metrics, "darkroom_embedding_cache_bytes", labels,
                   number_at(cache, "bytes"));
}

static void set_store_metrics(dk_api *api, dk_metrics *metrics)
{
    dk_jobs_usage usage;
    dk_error ignored;
    if (dk_jobs_usage_get(dk_service_jobs(api->service), &usage, &ignored) != DK_OK) {
        return;
    }
    for (int state = 0; state <= DK_JOB_CANCELLED; state++) {
        char labels[48];
        snprintf(labels, sizeof labels, "status=\"%s\"",
                 dk_job_state_name((dk_job_state)state));
        dk_metrics_set(metrics, "darkroom_jobs_stored", labels, (double)usage.count[state]);
    }
    dk_metrics_set(metrics, "darkroom_store_bytes", "", (double)usage.bytes);
}

void dk_api_metrics(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)request;
    dk_api *api = context;
    dk_metrics *metrics = dk_service_metrics(api->service);
    dk_string text = DK_STRING_EMPTY;
    json_t *report = dk_service_report(api->service);
    size_t i;
    const json_t *worker;
    json_array_foreach(json_object_get(report, "workers"), i, worker)
    {
        set_worker_metrics(metrics, worker);
    }
    dk_metrics_set(metrics, "darkroom_queue_depth", "", number_at(report, "depth"));
    dk_metrics_set(metrics, "darkroom_memory_bytes", "", dk_process_resident_bytes());
    dk_metrics_set(metrics, "darkroom_http_connections", "",
                   dk_http_server_connections(*api->options->http));
    set_store_metrics(api, metrics);
    dk_metrics_text(metrics, &text);
    json_decref(report);
    size_t size = text.length;
    dk_http_reply_bytes(exchange, 200, "text/plain; version=0.0.4; charset=utf-8",
                        dk_string_take(&text), size);
}
