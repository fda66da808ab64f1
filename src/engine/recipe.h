/* Recipes: everything that made an output, as one JSON object, stored inside the file. */
#ifndef DK_ENGINE_RECIPE_H
#define DK_ENGINE_RECIPE_H

#include <jansson.h>

#include "base/error.h"
#include "darkroom/darkroom.h"

/* SHA-256 of every weight file, as an object path -> digits, paths relative to `folder`. A file
   in a hub cache whose blob is named by its checksum is not read. Owned. */
DK_MUST_USE dk_status dk_recipe_weights(json_t **out, const char *folder, char *const *files,
                                        dk_error *err);

typedef struct dk_recipe_facts {
    const dk_request *request; /* validated */
    const char *model, *pipeline, *dtype;
    const json_t *weights;
    uint64_t seed;      /* of this output */
    const uint8_t *rgb; /* its frames */
    size_t rgb_bytes;
} dk_recipe_facts;

/* Owned text. */
DK_MUST_USE dk_status dk_recipe_text(char **out, const dk_recipe_facts *facts, dk_error *err);

#endif
