/* What many routes share. */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "server/api/state.h"

void dk_api_fail(dk_http_exchange *exchange, const dk_error *error, const char *param,
                 const char *code)
{
    if (error->status == DK_BUSY || error->status == DK_NO_SPACE) {
        dk_http_add_header(exchange, "Retry-After", "5");
    }
    dk_http_reply_error(exchange, error->status, error->message,
                        param != NULL && param[0] != '\0' ? param : NULL, code);
}

const char *dk_api_owner(const dk_http_request *request)
{
    return request->key[0] != '\0' ? request->key : NULL;
}

char *dk_api_model_name(dk_api *api)
{
    if (api->options->served_model_name != NULL) {
        return dk_strdup(api->options->served_model_name);
    }
    json_t *model = dk_service_model(api->service);
    const char *name = json_string_value(json_object_get(model, "model"));
    char *copy = dk_strdup(name != NULL ? name : "");
    json_decref(model);
    return copy;
}

json_t *dk_api_defaults(dk_api *api)
{
    json_t *model = dk_service_model(api->service);
    json_t *defaults = json_incref(json_object_get(model, "defaults"));
    json_decref(model);
    return defaults;
}

json_t *dk_api_job_json(dk_api *api, const dk_job_record *record)
{
    dk_progress_note progress;
    bool flies = dk_service_progress(api->service, record->id, &progress);
    char *model = dk_api_model_name(api);
    json_t *job = dk_job_json(record, model, flies ? &progress : NULL);
    dk_free(model);
    return job;
}

bool dk_api_find(dk_api *api, dk_http_exchange *exchange, const char *kind,
                 dk_job_record *record)
{
    const dk_http_request *request = dk_http_request_of(exchange);
    const char *id = request->captures[0];
    dk_error error;
    dk_status status =
        dk_jobs_get(dk_service_jobs(api->service), id, dk_api_owner(request), record, &error);
    if (status == DK_OK && strcmp(record->kind, kind) != 0) {
        dk_job_record_release(record);
        status = dk_fail(&error, DK_NOT_FOUND, "there is no %s '%.80s'", kind, id);
    }
    if (status != DK_OK) {
        dk_api_fail(exchange, &error, NULL, status == DK_NOT_FOUND ? "not_found" : NULL);
    }
    return status == DK_OK;
}

bool dk_api_query_number(dk_http_exchange *exchange, const char *name, int min, int max,
                         int otherwise, int *out)
{
    const char *text = dk_http_query(exchange, name);
    char *end = NULL;
    *out = otherwise;
    if (text == NULL) {
        return true;
    }
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < min || value > max) {
        dk_error error;
        dk_fail(&error, DK_INVALID, "%s is '%.40s', accepted are %d to %d", name, text, min,
                max);
        dk_api_fail(exchange, &error, name, NULL);
        return false;
    }
    *out = (int)value;
    return true;
}

char *dk_base64(const void *bytes, size_t size)
{
    char *text = dk_alloc((size + 2) / 3 * 4 + 1);
    EVP_EncodeBlock((unsigned char *)text, bytes, (int)size);
    return text;
}

dk_status dk_api_output_base64(dk_api *api, const dk_job_record *record, int index, char **out,
                               dk_error *err)
{
    enum { MOST = 1 << 30 };
    char *bytes;
    size_t size;
    const char *name = record->outputs[index].file;
    char *path =
        dk_jobs_path(dk_service_jobs(api->service), record->id, name != NULL ? name : "output");
    dk_status status = dk_file_read(&bytes, &size, path, MOST, err);
    dk_free(path);
    if (status == DK_OK) {
        *out = dk_base64(bytes, size);
        dk_free(bytes);
    }
    return status;
}
