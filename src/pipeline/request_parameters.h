/* The table of dk_request's fields. */
#ifndef DK_PIPELINE_REQUEST_PARAMETERS_H
#define DK_PIPELINE_REQUEST_PARAMETERS_H

#include "base/parameter.h"

extern const dk_parameter_table dk_request_parameters;

#endif
