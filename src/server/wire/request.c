/* Requests on the wire. */
#include "server/wire/request.h"

#include <stdlib.h>

#include "base/alloc.h"

char *dk_request_kind(const json_t *request)
{
    json_t *rest = json_copy((json_t *)(uintptr_t)request);
    json_object_del(rest, "prompt");
    json_object_del(rest, "negative_prompt");
    json_object_del(rest, "seed");
    char *text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS), *copy = dk_strdup(text);
    json_decref(rest);
    free(text);
    return copy;
}
