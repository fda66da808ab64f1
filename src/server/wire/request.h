/* A dk_request as JSON and back, through the parameter table. */
#ifndef DK_SERVER_WIRE_REQUEST_H
#define DK_SERVER_WIRE_REQUEST_H

#include <jansson.h>

#include "base/error.h"
#include "darkroom/darkroom.h"

/* Every field that is set. Owned. */
json_t *dk_request_to_json(const dk_request *request);

/* All of a request but prompts and seed, as text: equal for requests that take the same work
   and may share a batch. Owned. */
char *dk_request_kind(const json_t *request);

/* Sets the fields that `object` has; others stay. Texts are borrowed from it. An unknown member
   is DK_INVALID. */
DK_MUST_USE dk_status dk_request_from_json(dk_request *request, const json_t *object,
                                           dk_error *err);

#endif
