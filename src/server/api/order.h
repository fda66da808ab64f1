/* A request body, in JSON or as a form, becomes an order: what the engine is asked for, and how
   the reply is wanted. */
#ifndef DK_SERVER_API_ORDER_H
#define DK_SERVER_API_ORDER_H

#include "darkroom/darkroom.h"
#include "server/api/fields.h"
#include "server/http/http.h"

enum { DK_ORDER_MAX_OUTPUTS = 10, DK_ORDER_PARAM_BYTES = 64 };

typedef struct dk_order {
    const char *kind; /* "image", "video" */
    json_t *body;     /* owned: the fields; texts below are borrowed from it */
    dk_api_fields fields;
    json_t *parameters; /* owned: the engine's request, complete but for seeds and files */
    uint64_t seeds[DK_ORDER_MAX_OUTPUTS];
    int count;
    const char *extension; /* of the files */
    int quality;
    char param[DK_ORDER_PARAM_BYTES]; /* the field that a failure is about */
} dk_order;

/* Reads the fields of a body. An unknown one is DK_INVALID, with order->param set, as are
   values out of their range. `defaults`: the model's. Release also after a failure. */
DK_MUST_USE dk_status dk_order_read(dk_order *order, const char *kind, const json_t *defaults,
                                    const dk_http_request *request, dk_error *err);
/* The same for a body that is an object already (borrowed). */
DK_MUST_USE dk_status dk_order_read_json(dk_order *order, const char *kind,
                                         const json_t *defaults, const json_t *body,
                                         dk_error *err);
void dk_order_release(dk_order *order);

/* Where the body says no size: the picture's shape at about the model's default area, in
   multiples of 16. */
void dk_order_suit_picture(dk_order *order, const json_t *defaults, int width, int height);

/* Fields of a body that are pictures: read elsewhere. */
bool dk_order_is_picture(const char *name);

/* A body as an object: JSON as it is, a form's plain fields as texts. Owned. */
DK_MUST_USE dk_status dk_body_read(json_t **out, const dk_http_request *request, dk_error *err);

#endif
