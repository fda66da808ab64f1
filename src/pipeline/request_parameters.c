/* dk_request as a parameter table. */
#include "pipeline/request_parameters.h"

#include "darkroom/darkroom.h"

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
