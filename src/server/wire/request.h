/* What the scheduler compares of requests, which travel as JSON. */
#ifndef DK_SERVER_WIRE_REQUEST_H
#define DK_SERVER_WIRE_REQUEST_H

#include <jansson.h>

#include "pipeline/request_parameters.h"

/* All of a request but prompts and seed, as text: equal for requests that take the same work
   and may share a batch. Owned. */
char *dk_request_kind(const json_t *request);

#endif
