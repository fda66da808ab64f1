/* Plans, Vertex AI's spelling, LoRA's refusal, the page. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "server/api/state.h"
#include "server/web/web.h"

void dk_api_plan(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    dk_api *api = context;
    dk_order order = {0};
    dk_error error = {0};
    json_t *plan = NULL, *defaults = dk_api_defaults(api);
    dk_status status = defaults == NULL
                           ? dk_fail(&error, DK_MEMORY, "the model is being loaded")
                           : dk_order_read(&order, "video", defaults, request, &error);
    if (status == DK_OK) {
        status = dk_service_plan(api->service, order.parameters, &plan, &error);
    }
    if (status == DK_OK) {
        json_object_set_new(plan, "outputs", json_integer(order.count));
        json_object_set_new(
            plan, "total_seconds",
            json_real(order.count * json_number_value(json_object_get(plan, "seconds"))));
        dk_http_reply_json(exchange, 200, plan);
    } else {
        dk_api_guess_param(&order, error.message);
        dk_api_fail(exchange, &error, order.param, NULL);
    }
    json_decref(defaults);
    dk_order_release(&order);
}

void dk_api_lora(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)context;
    (void)request;
    dk_http_reply_error(exchange, DK_UNSUPPORTED,
                        "LoRA adapters are not supported yet: the engine runs a model's own "
                        "weights only",
                        NULL, "lora_not_supported");
}

/* {"instances": [{"prompt": …}], "parameters": {…}}: each instance with the parameters is an
   order of pictures. */
enum { MOST_INSTANCES = 8 };

static json_t *order_of(const json_t *instance, const json_t *parameters)
{
    json_t *order =
        json_is_object(parameters) ? json_copy((json_t *)(uintptr_t)parameters) : json_object();
    json_object_update(order, (json_t *)(uintptr_t)instance);
    json_t *text = json_object_get(order, "text");
    if (text != NULL && json_object_get(order, "prompt") == NULL) {
        json_object_set(order, "prompt", text);
    }
    json_object_del(order, "text");
    return order;
}

static json_t *prediction_of(dk_api *api, const char *id)
{
    dk_job_record record = {0};
    dk_error error = {0};
    json_t *images = json_array();
    if (dk_jobs_get(dk_service_jobs(api->service), id, NULL, &record, &error) != DK_OK) {
        json_decref(images);
        return json_pack("{s:s, s:s}", "id", id, "error", error.message);
    }
    for (int i = 0; i < record.output_count && record.state == DK_JOB_COMPLETED; i++) {
        char *text;
        if (dk_api_output_base64(api, &record, i, &text, &error) == DK_OK) {
            json_array_append_new(images, json_pack("{s:s, s:s}", "bytesBase64Encoded", text,
                                                    "mimeType",
                                                    dk_media_type_of(record.outputs[i].file)));
            dk_free(text);
        }
    }
    json_t *prediction =
        json_pack("{s:s, s:s, s:o, s:s?}", "id", id, "status", dk_job_state_name(record.state),
                  "images", images, "error", record.error);
    dk_job_record_release(&record);
    return prediction;
}

static void reply_predictions(dk_api *api, dk_http_exchange *exchange, char *const *ids,
                              int count)
{
    json_t *predictions = json_array();
    for (int i = 0; i < count; i++) {
        json_array_append_new(predictions, prediction_of(api, ids[i]));
    }
    dk_http_reply_json(exchange, 200, json_pack("{s:o}", "predictions", predictions));
}

static void drop_ids(dk_api *api, char **ids, int count)
{
    for (int i = 0; i < count; i++) {
        bool ended;
        dk_error ignored;
        if (dk_service_cancel(api->service, ids[i], &ended, &ignored) != DK_OK) {
            /* It ended already, or is gone. */
        }
        dk_free(ids[i]);
    }
    dk_free(ids);
}

static void submit_instances(dk_api *api, dk_http_exchange *exchange, const json_t *body)
{
    const json_t *instances = json_object_get(body, "instances");
    int count = (int)json_array_size(instances), made = 0;
    char **ids = dk_alloc((size_t)count * sizeof *ids);
    for (bool fine = true; fine && made < count;) {
        dk_order order;
        json_t *one = order_of(json_array_get(instances, (size_t)made),
                               json_object_get(body, "parameters"));
        char *id = dk_api_submit_json(api, exchange, "image", one, &order);
        fine = id != NULL;
        if (fine) {
            ids[made++] = id;
        }
        dk_order_release(&order);
        json_decref(one);
    }
    if (made == count) {
        dk_api_wait(api, exchange, ids, count, reply_predictions);
    } else {
        drop_ids(api, ids, made); /* the exchange was answered with the failure */
    }
}

static dk_status check_instances(const json_t *body, dk_error *err)
{
    const json_t *instances = json_object_get(body, "instances");
    size_t i;
    const json_t *instance;
    if (!json_is_array(instances) || json_array_size(instances) < 1 ||
        json_array_size(instances) > MOST_INSTANCES) {
        return dk_fail(err, DK_INVALID, "instances is no list of 1 to %d objects",
                       MOST_INSTANCES);
    }
    json_array_foreach(instances, i, instance)
    {
        if (!json_is_object(instance)) {
            return dk_fail(err, DK_INVALID, "instances[%zu] is %s, expected an object", i,
                           dk_json_type_name(instance));
        }
    }
    return DK_OK;
}

void dk_api_vertex(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    json_t *body = NULL;
    dk_error error = {0};
    dk_status status = dk_body_read(&body, request, &error);
    if (status == DK_OK) {
        status = check_instances(body, &error);
    }
    if (status == DK_OK) {
        submit_instances(context, exchange, body);
    } else {
        dk_api_fail(exchange, &error, status == DK_INVALID ? "instances" : NULL, NULL);
    }
    json_decref(body);
}

void dk_api_page(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)context;
    const char *name = request->captures[0] != NULL ? request->captures[0] : "index.html";
    const dk_web_file *file = dk_web_find(name);
    if (file == NULL) {
        dk_http_reply_error(exchange, DK_NOT_FOUND, "there is nothing here", NULL, NULL);
        return;
    }
    dk_http_add_header(
        exchange, "Content-Security-Policy",
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'");
    dk_http_add_header(exchange, "Referrer-Policy", "no-referrer");
    dk_http_add_header(exchange, "Cache-Control", "no-cache");
    dk_http_reply_static(exchange, file->type, file->bytes, file->size);
}
