/* The inside of the API, shared by its files. */
#ifndef DK_SERVER_API_STATE_H
#define DK_SERVER_API_STATE_H

#include "server/api/api.h"
#include "server/api/job_json.h"
#include "server/api/order.h"

struct dk_api {
    const dk_api_options *options;
    dk_service *service;
    dk_http_route *http_routes; /* [route_count], owned */
    int route_count;
};

typedef enum dk_api_body {
    DK_BODY_NONE,
    DK_BODY_IMAGE,
    DK_BODY_EDIT,
    DK_BODY_VIDEO,
    DK_BODY_VERTEX,
    DK_BODY_OTHER
} dk_api_body;

/* A route and what /openapi.json says of it. */
typedef struct dk_api_route {
    dk_http_route http;
    const char *id, *summary;
    dk_api_body body;
    const char *query; /* names of query parameters, by spaces; NULL: none */
    const char *reply; /* the schema in components, or a media type, or NULL: any object */
    int status;        /* of success */
} dk_api_route;
extern const dk_api_route dk_api_routes[];
extern const int dk_api_route_total;

dk_http_handler dk_api_image_generations, dk_api_image_edits, dk_api_images, dk_api_image,
    dk_api_image_delete, dk_api_image_cancel, dk_api_image_content, dk_api_image_events,
    dk_api_video_create, dk_api_video_generations, dk_api_videos, dk_api_video,
    dk_api_video_delete, dk_api_video_cancel, dk_api_video_content, dk_api_video_events,
    dk_api_jobs, dk_api_plan, dk_api_vertex, dk_api_lora, dk_api_models, dk_api_model,
    dk_api_health, dk_api_liveness, dk_api_server_info, dk_api_model_info, dk_api_parameters,
    dk_api_metrics, dk_api_openapi, dk_api_page;

/* replies.c: what many routes share. */
/* An error, with Retry-After where it helps. param and code may be NULL. */
void dk_api_fail(dk_http_exchange *exchange, const dk_error *error, const char *param,
                 const char *code);
/* Of whom jobs may be seen: NULL: all. */
const char *dk_api_owner(const dk_http_request *request);
/* The model's name; owned. Its defaults; owned; NULL: no worker was ready yet. */
char *dk_api_model_name(dk_api *api);
json_t *dk_api_defaults(dk_api *api);
/* Reads a job of the caller; answers the exchange itself and returns false when there is none.
   kind: "image", "video". Release the record. */
bool dk_api_find(dk_api *api, dk_http_exchange *exchange, const char *kind,
                 dk_job_record *record);
json_t *dk_api_job_json(dk_api *api, const dk_job_record *record);
/* A member of the query as a number in [min, max]; false: it is none, answered. */
bool dk_api_query_number(dk_http_exchange *exchange, const char *name, int min, int max,
                         int otherwise, int *out);

/* jobs.c */
void dk_api_reply_job(dk_api *api, dk_http_exchange *exchange, const char *id, int http_status);
/* For a job that ended without a result: its error. */
void dk_api_fail_ended(dk_http_exchange *exchange, const dk_job_record *record);
void dk_api_add_times(dk_http_exchange *exchange, const dk_job_record *record);

/* pictures.c: pictures of a body, decoded by a child, as PNG inputs of the job. */
typedef struct dk_pictures {
    dk_job_input inputs[2]; /* owned data */
    int count;
    int width, height; /* of the picture */
} dk_pictures;
DK_MUST_USE dk_status dk_pictures_read(dk_api *api, const dk_http_request *request,
                                       const json_t *body, bool required, dk_pictures *out,
                                       char *param, dk_error *err);
void dk_pictures_release(dk_pictures *pictures);

/* submit.c: an order that was read, checked and planned: all that can be said against it before
   it is stored. */
typedef struct dk_submission {
    dk_order order;
    dk_pictures pictures;
    json_t *plan;          /* owned */
    char *idempotency_key; /* owned; NULL: none */
    const json_t *said;    /* borrowed: what the client said, for the key; NULL: order.body */
} dk_submission;

/* body: NULL: the exchange's own. False: the exchange was answered with the failure. Release
   `out` either way. */
bool dk_api_prepare(dk_api *api, dk_http_exchange *exchange, const char *kind, bool edit,
                    const json_t *body, dk_submission *out);
/* The stored job's id (owned); *again: it came before. NULL: the exchange was answered. */
char *dk_api_store(dk_api *api, dk_http_exchange *exchange, dk_submission *submission,
                   bool *again);
/* In the reply: nothing new was made. */
void dk_api_note_replay(dk_http_exchange *exchange);
void dk_submission_release(dk_submission *submission);
/* Both for the exchange's own body. NULL as above; else the job's id (owned). `order` is
   released by the caller either way. */
char *dk_api_submit(dk_api *api, dk_http_exchange *exchange, const char *kind, bool edit,
                    dk_order *order);

/* A worker's message about a field begins with its name: that becomes order->param. */
void dk_api_guess_param(dk_order *order, const char *message);

/* waiting.c: answers the exchange when all jobs have ended. `reply` owns nothing of what it is
   given but the exchange. */
typedef void dk_api_reply_fn(dk_api *api, dk_http_exchange *exchange, char *const *ids,
                             int count);
void dk_api_wait(dk_api *api, dk_http_exchange *exchange, char **ids /* taken */, int count,
                 dk_api_reply_fn *reply);

/* events.c */
void dk_api_stream_images(dk_api *api, dk_http_exchange *exchange, const char *id,
                          const dk_order *order);

/* The file of an output as base64 (owned), or a failure. */
DK_MUST_USE dk_status dk_api_output_base64(dk_api *api, const dk_job_record *record, int index,
                                           char **out, dk_error *err);
char *dk_base64(const void *bytes, size_t size); /* owned */

#endif
