/* Requests on the wire. */
#include "server/wire/request.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "pipeline/request_parameters.h"

json_t *dk_request_to_json(const dk_request *request)
{
    json_t *object = json_object();
    for (int i = 0; i < dk_request_parameters.count; i++) {
        const dk_parameter *parameter = &dk_request_parameters.parameters[i];
        json_t *value = dk_parameter_get_json(parameter, request);
        if (json_is_null(value)) {
            json_decref(value);
        } else {
            json_object_set_new(object, parameter->name, value);
        }
    }
    return object;
}

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

dk_status dk_request_from_json(dk_request *request, const json_t *object, dk_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        const dk_parameter *parameter = dk_parameter_find(&dk_request_parameters, name);
        if (parameter == NULL) {
            return dk_fail(err, DK_INVALID, "'%.100s' is no parameter of a request", name);
        }
        DK_TRY(dk_parameter_set_json(parameter, request, value, name, err));
    }
    return DK_OK;
}
