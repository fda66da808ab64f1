/* POST /v1/images/generations and /v1/images/edits. */
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "server/api/state.h"

/* Picture `index` as OpenAI's data entry. */
static dk_status entry_of(dk_api *api, const dk_job_record *record, const json_t *job,
                          int index, bool as_url, json_t **out, dk_error *err)
{
    const json_t *output = json_array_get(json_object_get(job, "outputs"), (size_t)index);
    json_t *entry =
        json_pack("{s:n, s:O}", "revised_prompt", "seed", json_object_get(output, "seed"));
    if (as_url) {
        json_object_set(entry, "url", json_object_get(output, "absolute_url"));
    } else {
        char *text;
        dk_status status = dk_api_output_base64(api, record, index, &text, err);
        if (status != DK_OK) {
            json_decref(entry);
            return status;
        }
        json_object_set_new(entry, "b64_json", json_string(text));
        dk_free(text);
    }
    *out = entry;
    return DK_OK;
}

/* Links must work outside of the page: they name the host that the client asked. */
static void add_absolute_urls(dk_api *api, dk_http_exchange *exchange, json_t *job)
{
    size_t i;
    json_t *output;
    const char *host = dk_http_header(exchange, "Host");
    const char *scheme = dk_http_header(exchange, "X-Forwarded-Proto");
    const char *prefix = dk_http_header(exchange, "X-Forwarded-Prefix");
    if (scheme == NULL || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)) {
        scheme = api->options->with_tls ? "https" : "http";
    }
    json_array_foreach(json_object_get(job, "outputs"), i, output)
    {
        dk_string url = DK_STRING_EMPTY;
        if (host != NULL) {
            dk_string_printf(&url, "%s://%s%s", scheme, host, prefix != NULL ? prefix : "");
        }
        dk_string_puts(&url, json_string_value(json_object_get(output, "url")));
        json_object_set_new(output, "absolute_url", json_string(url.data));
        dk_string_release(&url);
    }
}

static json_t *head_of(const json_t *job)
{
    json_t *usage =
        json_pack("{s:i, s:i, s:i}", "total_tokens", 0, "input_tokens", 0, "output_tokens", 0);
    return json_pack("{s:O, s:O, s:O, s:O, s:s, s:s, s:O, s:o, s:[]}", "id",
                     json_object_get(job, "id"), "created", json_object_get(job, "created_at"),
                     "size", json_object_get(job, "size"), "output_format",
                     json_object_get(json_object_get(job, "parameters"), "output_format"),
                     "background", "opaque", "quality", "auto", "inference_time_s",
                     json_object_get(job, "inference_time_s"), "usage", usage, "data");
}

static void reply_pictures(dk_api *api, dk_http_exchange *exchange, const dk_job_record *record,
                           bool as_url)
{
    dk_error error;
    json_t *job = dk_api_job_json(api, record);
    add_absolute_urls(api, exchange, job);
    json_t *reply = head_of(job), *entry;
    dk_status status = DK_OK;
    for (int i = 0; i < record->output_count && status == DK_OK; i++) {
        status = entry_of(api, record, job, i, as_url, &entry, &error);
        if (status == DK_OK) {
            json_array_append_new(json_object_get(reply, "data"), entry);
        }
    }
    json_decref(job);
    if (status == DK_OK) {
        dk_api_add_times(exchange, record);
        dk_http_reply_json(exchange, 200, reply);
    } else {
        json_decref(reply);
        dk_api_fail(exchange, &error, NULL, NULL);
    }
}

static void reply_ended(dk_api *api, dk_http_exchange *exchange, const char *id, bool as_url)
{
    dk_job_record record = {0};
    dk_error error = {0};
    if (dk_jobs_get(dk_service_jobs(api->service), id, NULL, &record, &error) != DK_OK) {
        dk_api_fail(exchange, &error, NULL, NULL);
    } else if (record.state == DK_JOB_COMPLETED) {
        reply_pictures(api, exchange, &record, as_url);
    } else {
        dk_api_fail_ended(exchange, &record);
    }
    dk_job_record_release(&record);
}

static void reply_base64(dk_api *api, dk_http_exchange *exchange, char *const *ids, int count)
{
    (void)count;
    reply_ended(api, exchange, ids[0], false);
}

static void reply_urls(dk_api *api, dk_http_exchange *exchange, char *const *ids, int count)
{
    (void)count;
    reply_ended(api, exchange, ids[0], true);
}

static void make(dk_api *api, dk_http_exchange *exchange, bool edit)
{
    dk_order order;
    char *id = dk_api_submit(api, exchange, "image", edit, &order);
    if (id != NULL && order.fields.async) {
        dk_api_reply_job(api, exchange, id, 202);
        dk_free(id);
    } else if (id != NULL && order.fields.stream) {
        dk_api_stream_images(api, exchange, id, &order);
        dk_free(id);
    } else if (id != NULL) {
        const char *format = order.fields.response_format;
        bool as_url = format != NULL && strcmp(format, "url") == 0;
        char **ids = dk_alloc(sizeof *ids);
        ids[0] = id;
        dk_api_wait(api, exchange, ids, 1, as_url ? reply_urls : reply_base64);
    }
    dk_order_release(&order);
}

void dk_api_image_generations(void *context, dk_http_exchange *exchange,
                              const dk_http_request *request)
{
    (void)request;
    make(context, exchange, false);
}

void dk_api_image_edits(void *context, dk_http_exchange *exchange,
                        const dk_http_request *request)
{
    (void)request;
    make(context, exchange, true);
}
