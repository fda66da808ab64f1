/* From a body to a stored job. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/sha256.h"
#include "media/media.h"
#include "server/api/state.h"

static dk_status check_model(dk_api *api, dk_order *order, dk_error *err)
{
    const char *asked = order->fields.model;
    char *served = dk_api_model_name(api);
    dk_status status = DK_OK;
    if (asked != NULL && strcmp(asked, served) != 0) {
        snprintf(order->param, sizeof order->param, "model");
        status = dk_fail(err, DK_NOT_FOUND,
                         "model '%.100s' is not served, this server has '%s'", asked, served);
    }
    dk_free(served);
    return status;
}

static double member(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* The plan knows no picture; a job that starts from one leaves out its first steps. */
static dk_status check_strength(dk_order *order, dk_error *err)
{
    double steps = member(order->parameters, "num_inference_steps");
    double strength = member(order->parameters, "strength");
    if (steps * strength >= 1) {
        return DK_OK;
    }
    snprintf(order->param, sizeof order->param, "strength");
    return dk_fail(err, DK_INVALID,
                   "strength is %g: of %.0f steps none would be left, accepted is %.3g to 1",
                   strength, steps, 1.0 / steps);
}

/* What can be said before a worker is asked. */
static dk_status check_size(dk_api *api, dk_order *order, dk_error *err)
{
    const json_t *p = order->parameters;
    double pixels = member(p, "width") * member(p, "height") * member(p, "num_frames");
    if (pixels > api->options->max_pixels) {
        snprintf(order->param, sizeof order->param, "size");
        return dk_fail(err, DK_INVALID,
                       "%.0f x %.0f pixels and %.0f frames are %.0f in all, this server "
                       "accepts %.0f (--max-pixels)",
                       member(p, "width"), member(p, "height"), member(p, "num_frames"), pixels,
                       api->options->max_pixels);
    }
    return dk_media_format_check(order->extension, (int)member(p, "num_frames"), err);
}

void dk_api_guess_param(dk_order *order, const char *message)
{
    size_t length = strcspn(message, " :");
    if (order->param[0] == '\0' && length < sizeof order->param) {
        char word[DK_ORDER_PARAM_BYTES];
        memcpy(word, message, length);
        word[length] = '\0';
        if (json_object_get(order->parameters, word) != NULL) {
            memcpy(order->param, word, length + 1);
        }
    }
}

static dk_status check_plan(dk_api *api, dk_order *order, json_t **plan, dk_error *err)
{
    dk_status status = dk_service_plan(api->service, order->parameters, plan, err);
    if (status != DK_OK) {
        dk_api_guess_param(order, err->message);
        return status;
    }
    json_object_set(order->parameters, "num_frames", json_object_get(*plan, "num_frames"));
    if (!json_is_true(json_object_get(*plan, "fits"))) {
        snprintf(order->param, sizeof order->param, "size");
        return dk_fail(err, DK_INVALID,
                       "this request needs %.3f GB at its peak, there are %.3f GB for it "
                       "(weights %.3f GB, %.3g FLOP, %.1f s expected)",
                       member(*plan, "peak_bytes") / 1e9, member(*plan, "budget_bytes") / 1e9,
                       member(*plan, "weight_bytes") / 1e9, member(*plan, "flops"),
                       member(*plan, "seconds"));
    }
    return DK_OK;
}

/* Of what is asked for and what the client said, in whatever order its fields stand. */
static dk_status hash_body(char hex[DK_SHA256_HEX_BYTES], const dk_submission *submission,
                           dk_error *err)
{
    dk_digest digest;
    const dk_order *order = &submission->order;
    const dk_pictures *pictures = &submission->pictures;
    const json_t *said = submission->said != NULL ? submission->said : order->body;
    DK_TRY(dk_sha256_init(&digest, err));
    char *text = json_dumps(said, JSON_COMPACT | JSON_SORT_KEYS);
    dk_digest_update(&digest, order->kind, strlen(order->kind));
    dk_digest_update(&digest, text, strlen(text));
    free(text);
    for (int i = 0; i < pictures->count; i++) {
        dk_digest_update(&digest, pictures->inputs[i].data, pictures->inputs[i].size);
    }
    dk_digest_final(&digest, hex);
    return DK_OK;
}

static json_t *inputs_json(const dk_pictures *pictures)
{
    static const char *const fields[] = {"image_path", "mask_path"};
    json_t *inputs = json_object();
    for (int i = 0; i < pictures->count; i++) {
        json_object_set_new(inputs, fields[i], json_string(pictures->inputs[i].name));
    }
    return inputs;
}

static dk_status store(dk_api *api, dk_http_exchange *exchange, const dk_submission *submission,
                       char **id, bool *again, dk_error *err)
{
    char hex[DK_SHA256_HEX_BYTES];
    struct timespec now;
    const dk_order *order = &submission->order;
    const dk_pictures *pictures = &submission->pictures;
    const json_t *plan = submission->plan;
    DK_TRY(hash_body(hex, submission, err));
    clock_gettime(CLOCK_REALTIME, &now);
    double deadline = isnan(order->fields.timeout_s)
                          ? 0
                          : ((double)now.tv_sec + order->fields.timeout_s) * 1000.0 +
                                (double)now.tv_nsec * 1e-6;
    json_t *request = json_pack(
        "{s:O, s:s, s:i, s:o, s:{s:O*, s:O*, s:O*}, s:s?}", "parameters", order->parameters,
        "output_format", order->extension, "output_quality", order->quality, "inputs",
        inputs_json(pictures), "plan", "seconds", json_object_get(plan, "seconds"),
        "step_seconds", json_object_get(plan, "step_seconds"), "joins",
        json_object_get(plan, "joins"), "user", order->fields.user);
    char *text = json_dumps(request, JSON_COMPACT | JSON_REAL_PRECISION(17));
    const dk_job_order stored = {.kind = order->kind,
                                 .owner = dk_http_request_of(exchange)->key,
                                 .request = text,
                                 .priority = order->fields.priority,
                                 .deadline_ms = (int64_t)deadline,
                                 .seeds = order->seeds,
                                 .output_count = order->count,
                                 .inputs = pictures->inputs,
                                 .input_count = pictures->count,
                                 .idempotency_key = submission->idempotency_key,
                                 .body_sha256 = hex};
    dk_status status = dk_service_submit(api->service, &stored, id, again, err);
    json_decref(request);
    free(text);
    return status;
}

static dk_status prepare(dk_api *api, dk_http_exchange *exchange, bool edit,
                         const json_t *defaults, dk_submission *out, dk_error *err)
{
    dk_order *order = &out->order;
    dk_pictures *pictures = &out->pictures;
    DK_TRY(check_model(api, order, err));
    DK_TRY(dk_pictures_read(api, dk_http_request_of(exchange), order->body, edit, pictures,
                            order->param, err));
    if (pictures->count > 0) {
        dk_order_suit_picture(order, defaults, pictures->width, pictures->height);
        DK_TRY(check_strength(order, err));
    }
    DK_TRY(check_size(api, order, err));
    return check_plan(api, order, &out->plan, err);
}

static dk_status read_and_prepare(dk_api *api, dk_http_exchange *exchange, bool edit,
                                  const json_t *body, dk_submission *out, dk_error *err)
{
    dk_order *order = &out->order;
    json_t *defaults = dk_api_defaults(api);
    if (defaults == NULL) {
        dk_http_add_header(exchange, "Retry-After", "1");
        return dk_fail(err, DK_MEMORY, "the model is being loaded");
    }
    dk_status status =
        body != NULL
            ? dk_order_read_json(order, order->kind, defaults, body, err)
            : dk_order_read(order, order->kind, defaults, dk_http_request_of(exchange), err);
    if (status == DK_OK) {
        status = prepare(api, exchange, edit, defaults, out, err);
    }
    json_decref(defaults);
    return status;
}

static const char *code_of(const dk_error *error, const dk_order *order)
{
    if (error->status == DK_NOT_FOUND && strcmp(order->param, "model") == 0) {
        return "model_not_found";
    }
    return strncmp(error->message, "this request needs", 18) == 0 ? "does_not_fit" : NULL;
}

bool dk_api_prepare(dk_api *api, dk_http_exchange *exchange, const char *kind, bool edit,
                    const json_t *body, dk_submission *out)
{
    dk_error error = {0};
    const char *key = dk_http_header(exchange, "Idempotency-Key");
    *out = (dk_submission){.order.kind = kind,
                           .idempotency_key = key != NULL ? dk_strdup(key) : NULL};
    if (read_and_prepare(api, exchange, edit, body, out, &error) != DK_OK) {
        dk_api_fail(exchange, &error, out->order.param, code_of(&error, &out->order));
        return false;
    }
    return true;
}

char *dk_api_store(dk_api *api, dk_http_exchange *exchange, dk_submission *submission,
                   bool *again)
{
    dk_error error = {0};
    char *id = NULL;
    if (store(api, exchange, submission, &id, again, &error) != DK_OK) {
        dk_api_fail(exchange, &error, submission->order.param, NULL);
    }
    return id;
}

void dk_api_note_replay(dk_http_exchange *exchange)
{
    dk_http_add_header(exchange, "Idempotent-Replayed", "true");
}

void dk_submission_release(dk_submission *submission)
{
    dk_order_release(&submission->order);
    dk_pictures_release(&submission->pictures);
    json_decref(submission->plan);
    dk_free(submission->idempotency_key);
    *submission = (dk_submission){0};
}

char *dk_api_submit(dk_api *api, dk_http_exchange *exchange, const char *kind, bool edit,
                    dk_order *order)
{
    dk_submission submission;
    bool again;
    char *id = NULL;
    if (dk_api_prepare(api, exchange, kind, edit, NULL, &submission)) {
        id = dk_api_store(api, exchange, &submission, &again);
    }
    if (id != NULL && again) {
        dk_api_note_replay(exchange);
    }
    *order = submission.order;
    submission.order = (dk_order){0};
    dk_submission_release(&submission);
    return id;
}
