/* dk_request as a parameter table. */
#include "pipeline/request_parameters.h"

static const dk_parameter parameters[] = {
#define FIELD(field, kind, low, high, words, what, usual, line)                                \
    {.name = #field,                                                                           \
     .type = DK_PARAMETER_##kind,                                                              \
     .offset = offsetof(dk_request, field),                                                    \
     .min = (low),                                                                             \
     .max = (high),                                                                            \
     .choices = (words),                                                                       \
     .unit = (what),                                                                           \
     .default_text = (usual),                                                                  \
     .help = (line)},
#include "pipeline/request_parameters.def"
#undef FIELD
};

const dk_parameter_table dk_request_parameters = {
    .title = "What to generate",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

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
