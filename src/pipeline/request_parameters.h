/* The table of dk_request's fields. */
#ifndef DK_PIPELINE_REQUEST_PARAMETERS_H
#define DK_PIPELINE_REQUEST_PARAMETERS_H

#include "base/parameter.h"
#include "darkroom/darkroom.h"

extern const dk_parameter_table dk_request_parameters;

/* Every field that is set. Owned. */
json_t *dk_request_to_json(const dk_request *request);

/* Sets the fields that `object` has; others stay. Texts are borrowed from it. An unknown member
   is DK_INVALID. */
DK_MUST_USE dk_status dk_request_from_json(dk_request *request, const json_t *object,
                                           dk_error *err);

#endif
