/* Jobs of both kinds: create videos, look, list, cancel, delete, content. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "server/api/state.h"
#include "server/service/job_code.h"

void dk_api_reply_job(dk_api *api, dk_http_exchange *exchange, const char *id, int http_status)
{
    dk_job_record record = {0};
    dk_error error = {0};
    if (dk_jobs_get(dk_service_jobs(api->service), id, NULL, &record, &error) == DK_OK) {
        dk_http_reply_json(exchange, http_status, dk_api_job_json(api, &record));
    } else {
        dk_api_fail(exchange, &error, NULL, NULL);
    }
    dk_job_record_release(&record);
}

/* Where the time went, for load tests: waiting, computing. */
void dk_api_add_times(dk_http_exchange *exchange, const dk_job_record *record)
{
    char text[32];
    double engine_ms = 0;
    for (int i = 0; i < record->output_count; i++) {
        engine_ms += record->outputs[i].engine_ms;
    }
    snprintf(text, sizeof text, "%.3f", engine_ms);
    dk_http_add_header(exchange, "Darkroom-Engine-Ms", text);
    snprintf(text, sizeof text, "%lld",
             (long long)(record->started_ms > 0 ? record->started_ms - record->created_ms : 0));
    dk_http_add_header(exchange, "Darkroom-Queue-Ms", text);
}

void dk_api_fail_ended(dk_http_exchange *exchange, const dk_job_record *record)
{
    dk_error error = {0};
    if (record->state == DK_JOB_FAILED) {
        dk_fail(&error, dk_job_code_status(record->code), "%s",
                record->error != NULL ? record->error : "the job failed");
    } else if (record->state == DK_JOB_CANCELLED) {
        dk_fail(&error, DK_CANCELLED, "the job was cancelled");
    } else {
        dk_fail(&error, DK_MEMORY, "the server ends; job %s goes on when it is back",
                record->id);
    }
    dk_api_fail(exchange, &error, NULL, record->code);
}

static void reply_after(dk_api *api, dk_http_exchange *exchange, char *const *ids, int count)
{
    (void)count;
    dk_api_reply_job(api, exchange, ids[0], 200);
}

void dk_api_video_create(void *context, dk_http_exchange *exchange,
                         const dk_http_request *request)
{
    (void)request;
    dk_order order;
    char *id = dk_api_submit(context, exchange, "video", false, &order);
    if (id != NULL) {
        dk_api_reply_job(context, exchange, id, 200);
        dk_free(id);
    }
    dk_order_release(&order);
}

void dk_api_video_generations(void *context, dk_http_exchange *exchange,
                              const dk_http_request *request)
{
    (void)request;
    dk_order order;
    char *id = dk_api_submit(context, exchange, "video", false, &order);
    if (id != NULL && order.fields.async) {
        dk_api_reply_job(context, exchange, id, 202);
        dk_free(id);
    } else if (id != NULL) {
        char **ids = dk_alloc(sizeof *ids);
        ids[0] = id;
        dk_api_wait(context, exchange, ids, 1, reply_after);
    }
    dk_order_release(&order);
}

static void look(dk_api *api, dk_http_exchange *exchange, const char *kind)
{
    dk_job_record record = {0};
    if (dk_api_find(api, exchange, kind, &record)) {
        dk_http_reply_json(exchange, 200, dk_api_job_json(api, &record));
        dk_job_record_release(&record);
    }
}

static bool read_query(dk_http_exchange *exchange, dk_jobs_query *query)
{
    dk_error error;
    const char *order = dk_http_query(exchange, "order");
    const char *unfinished = dk_http_query(exchange, "unfinished");
    bool fine = dk_api_query_number(exchange, "limit", 1, 100, 20, &query->limit);
    if (!fine) {
        return false;
    }
    query->after = dk_http_query(exchange, "after");
    query->ascending = order != NULL && strcmp(order, "asc") == 0;
    query->unfinished = unfinished != NULL && strcmp(unfinished, "true") == 0;
    query->finished = unfinished != NULL && strcmp(unfinished, "false") == 0;
    const char *wrong =
        order != NULL && !query->ascending && strcmp(order, "desc") != 0 ? "order"
        : unfinished != NULL && !query->unfinished && !query->finished   ? "unfinished"
                                                                         : NULL;
    if (wrong != NULL) {
        dk_fail(&error, DK_INVALID, "%s is '%.40s', accepted are %s", wrong,
                dk_http_query(exchange, wrong),
                strcmp(wrong, "order") == 0 ? "asc, desc" : "true, false");
        dk_api_fail(exchange, &error, wrong, NULL);
    }
    return wrong == NULL;
}

static void list(dk_api *api, dk_http_exchange *exchange, const char *kind)
{
    dk_job_list found = {0};
    dk_error error = {0};
    dk_jobs_query query = {.kind = kind, .owner = dk_api_owner(dk_http_request_of(exchange))};
    if (!read_query(exchange, &query)) {
        return;
    }
    if (dk_jobs_list(dk_service_jobs(api->service), &query, &found, &error) != DK_OK) {
        dk_api_fail(exchange, &error, error.status == DK_NOT_FOUND ? "after" : NULL, NULL);
        return;
    }
    json_t *data = json_array();
    for (int i = 0; i < found.count; i++) {
        json_array_append_new(data, dk_api_job_json(api, &found.records[i]));
    }
    const char *first = found.count > 0 ? found.records[0].id : NULL;
    const char *last = found.count > 0 ? found.records[found.count - 1].id : NULL;
    dk_http_reply_json(exchange, 200,
                       json_pack("{s:s, s:o, s:b, s:s?, s:s?}", "object", "list", "data", data,
                                 "has_more", found.more, "first_id", first, "last_id", last));
    dk_job_list_release(&found);
}

static void cancel(dk_api *api, dk_http_exchange *exchange, const char *kind)
{
    dk_job_record record = {0};
    dk_error error = {0};
    bool ended;
    if (!dk_api_find(api, exchange, kind, &record)) {
        return;
    }
    if (dk_service_cancel(api->service, record.id, &ended, &error) == DK_OK) {
        dk_api_reply_job(api, exchange, record.id, 200);
    } else {
        dk_api_fail(exchange, &error, NULL, NULL);
    }
    dk_job_record_release(&record);
}

static void remove_job(dk_api *api, dk_http_exchange *exchange, const char *kind)
{
    dk_job_record record = {0};
    dk_error error = {0};
    char object[32];
    if (!dk_api_find(api, exchange, kind, &record)) {
        return;
    }
    snprintf(object, sizeof object, "%s.deleted", kind);
    if (dk_service_delete(api->service, record.id, &error) == DK_OK) {
        dk_http_reply_json(
            exchange, 200,
            json_pack("{s:s, s:s, s:b}", "id", record.id, "object", object, "deleted", 1));
    } else {
        dk_api_fail(exchange, &error, NULL, NULL);
    }
    dk_job_record_release(&record);
}

static const char *name_of_variant(const dk_job_record *record, int index, const char *variant)
{
    const dk_job_output *output = &record->outputs[index];
    if (variant == NULL || strcmp(variant, record->kind) == 0) {
        return output->file;
    }
    if (strcmp(variant, "thumbnail") == 0) {
        return output->thumbnail;
    }
    return strcmp(variant, "spritesheet") == 0 ? output->spritesheet : NULL;
}

/* OpenAI's clients say variant=video; SGLang's say variant=0 for the number of the output. */
static bool read_variant(dk_http_exchange *exchange, const dk_job_record *record, int *index,
                         const char **variant)
{
    dk_error error;
    *variant = dk_http_query(exchange, "variant");
    if (!dk_api_query_number(exchange, "index", 0, record->output_count - 1, 0, index)) {
        return false;
    }
    if (*variant != NULL && (*variant)[0] >= '0' && (*variant)[0] <= '9') {
        *variant = NULL;
        return dk_api_query_number(exchange, "variant", 0, record->output_count - 1, 0, index);
    }
    bool video = strcmp(record->kind, "video") == 0;
    if (*variant == NULL || strcmp(*variant, record->kind) == 0 ||
        strcmp(*variant, "thumbnail") == 0 || (video && strcmp(*variant, "spritesheet") == 0)) {
        return true;
    }
    dk_fail(&error, DK_INVALID, "variant is '%.40s', accepted are %s, thumbnail%s", *variant,
            record->kind, video ? ", spritesheet" : "");
    dk_api_fail(exchange, &error, "variant", NULL);
    return false;
}

static void content(dk_api *api, dk_http_exchange *exchange, const char *kind)
{
    dk_job_record record = {0};
    dk_error error = {0};
    int index;
    const char *variant;
    if (!dk_api_find(api, exchange, kind, &record)) {
        return;
    }
    if (!read_variant(exchange, &record, &index, &variant)) {
        dk_job_record_release(&record);
        return;
    }
    const char *name = name_of_variant(&record, index, variant);
    if (name == NULL) {
        bool ended = dk_job_state_is_final(record.state);
        dk_fail(&error, ended ? DK_NOT_FOUND : DK_MISMATCH,
                "%s is %s: it has no such content%s", record.id,
                dk_job_state_name(record.state), ended ? "" : " yet");
        dk_api_fail(exchange, &error, NULL, "not_ready");
    } else {
        char *path = dk_jobs_path(dk_service_jobs(api->service), record.id, name);
        char download[128];
        snprintf(download, sizeof download, "%s-%s", record.id, name);
        dk_http_reply_file(exchange, path, dk_media_type_of(name),
                           dk_http_query(exchange, "download") != NULL ? download : NULL);
        dk_free(path);
    }
    dk_job_record_release(&record);
}

void dk_api_jobs(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)request;
    list(context, exchange, NULL);
}

/* The two spellings of every route. */
#define ROUTES(handler, action)                                                                \
    void dk_api_##handler(void *context, dk_http_exchange *exchange,                           \
                          const dk_http_request *request)                                      \
    {                                                                                          \
        (void)request;                                                                         \
        action;                                                                                \
    }
ROUTES(images, list(context, exchange, "image"))
ROUTES(videos, list(context, exchange, "video"))
ROUTES(image, look(context, exchange, "image"))
ROUTES(video, look(context, exchange, "video"))
ROUTES(image_delete, remove_job(context, exchange, "image"))
ROUTES(video_delete, remove_job(context, exchange, "video"))
ROUTES(image_cancel, cancel(context, exchange, "image"))
ROUTES(video_cancel, cancel(context, exchange, "video"))
ROUTES(image_content, content(context, exchange, "image"))
ROUTES(video_content, content(context, exchange, "video"))
#undef ROUTES
