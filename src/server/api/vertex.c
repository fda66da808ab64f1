/* Vertex AI's spelling: a body of several orders, of which all are made or none. */
#include "base/alloc.h"
#include "base/json.h"
#include "base/string.h"
#include "server/api/state.h"

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

/* One key for all: a job of its own has its number behind it. The body as a whole is what comes
   again or does not. */
static bool prepare_instances(dk_api *api, dk_http_exchange *exchange, const json_t *body,
                              dk_submission *out, int count)
{
    bool fine = true;
    for (int i = 0; i < count && fine; i++) {
        json_t *one = order_of(json_array_get(json_object_get(body, "instances"), (size_t)i),
                               json_object_get(body, "parameters"));
        fine = dk_api_prepare(api, exchange, "image", false, one, &out[i]);
        char *key = out[i].idempotency_key;
        if (key != NULL) {
            dk_string numbered = DK_STRING_EMPTY;
            dk_string_printf(&numbered, "%s#%d", key, i);
            out[i].idempotency_key = dk_string_take(&numbered);
            dk_free(key);
        }
        out[i].said = body;
        json_decref(one);
    }
    return fine;
}

/* The ids of all, or NULL: the exchange was answered, and nothing new is left. */
static char **store_instances(dk_api *api, dk_http_exchange *exchange,
                              dk_submission *submissions, int count)
{
    char **ids = dk_alloc((size_t)count * sizeof *ids);
    bool again[MOST_INSTANCES], all = true;
    for (int made = 0; made < count; made++) {
        ids[made] = dk_api_store(api, exchange, &submissions[made], &again[made]);
        if (ids[made] != NULL) {
            all = all && again[made];
            continue;
        }
        for (int i = 0; i < made; i++) {
            dk_error ignored;
            if (!again[i] && dk_service_delete(api->service, ids[i], &ignored) != DK_OK) {
                /* It is gone, or goes when its time has come. */
            }
            dk_free(ids[i]);
        }
        dk_free(ids);
        return NULL;
    }
    if (all) {
        dk_api_note_replay(exchange);
    }
    return ids;
}

static void submit_instances(dk_api *api, dk_http_exchange *exchange, const json_t *body)
{
    int count = (int)json_array_size(json_object_get(body, "instances"));
    dk_submission submissions[MOST_INSTANCES] = {0};
    if (prepare_instances(api, exchange, body, submissions, count)) {
        char **ids = store_instances(api, exchange, submissions, count);
        if (ids != NULL) {
            dk_api_wait(api, exchange, ids, count, reply_predictions);
        }
    }
    for (int i = 0; i < count; i++) {
        dk_submission_release(&submissions[i]);
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
