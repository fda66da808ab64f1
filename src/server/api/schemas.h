/* Schemas of replies for /openapi.json. */
#ifndef DK_SERVER_API_SCHEMAS_H
#define DK_SERVER_API_SCHEMAS_H

#include <jansson.h>

/* {"Job": {…}, "Error": {…}, …}. Owned. */
json_t *dk_api_reply_schemas(void);

#endif
