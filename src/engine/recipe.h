/* Recipes: everything that made an output, as one JSON object, stored inside the file. */
#ifndef DK_ENGINE_RECIPE_H
#define DK_ENGINE_RECIPE_H

#include <jansson.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/sha256.h"
#include "comm/groups.h"
#include "darkroom/darkroom.h"

/* SHA-256 of every weight file, as an object path -> digits, paths relative to `folder`. A file
   in a hub cache whose blob is named by its checksum is not read. `cancel` (may be NULL) stops
   the reading of large files. Owned. */
DK_MUST_USE dk_status dk_recipe_weights(json_t **out, const char *folder, char *const *files,
                                        const atomic_bool *cancel, dk_error *err);

/* SHA-256 of frames. */
DK_MUST_USE dk_status dk_recipe_frames_sha256(char hex[DK_SHA256_HEX_BYTES], const uint8_t *rgb,
                                              size_t bytes, dk_error *err);

/* SHA-256 of the files that a request names; "": it names none. */
typedef struct dk_file_sums {
    char latents[DK_SHA256_HEX_BYTES], image[DK_SHA256_HEX_BYTES], mask[DK_SHA256_HEX_BYTES];
} dk_file_sums;
DK_MUST_USE dk_status dk_file_sums_read(dk_file_sums *out, const dk_request *request,
                                        dk_error *err);

typedef struct dk_recipe_facts {
    const dk_request *request; /* validated */
    const char *model, *pipeline, *dtype, *cpu_level, *attention, *quantization;
    double quantization_max_error; /* told with int8 */
    const dk_layout *layout;       /* of the ranks that made it together; NULL: one did */
    const json_t *weights;
    const dk_file_sums *sums; /* of the files that the request names */
    int output;               /* its seed is the request's plus this */
    const uint8_t *rgb;       /* its frames */
    size_t rgb_bytes;
} dk_recipe_facts;

/* Owned text. */
DK_MUST_USE dk_status dk_recipe_text(char **out, const dk_recipe_facts *facts, dk_error *err);

/* A recipe that was read, of this or an older version. */
typedef struct dk_recipe {
    json_t *json; /* owned; every text below is borrowed from it */
    dk_request request;
    const char *engine, *model, *pipeline, *dtype;    /* "darkroom 0.1.0", … */
    const char *cpu_level, *attention, *quantization; /* NULL: not told */
    double quantization_max_error;                    /* 0: not told */
    dk_layout layout;      /* of the ranks that made it together; dp is 0 */
    const json_t *weights; /* path -> SHA-256 */
    const char *latents_sha256, *image_sha256, *mask_sha256; /* NULL: none */
    const char *frames_sha256;
} dk_recipe;

/* Reads a recipe's text. `where` names it in messages. The request
   is complete but for dump_tensors, which is never taken from a recipe: it may come from
   strangers. Owned: dk_recipe_release. */
DK_MUST_USE dk_status dk_recipe_parse(dk_recipe *out, const char *text, const char *where,
                                      dk_error *err);
void dk_recipe_release(dk_recipe *recipe); /* also fine for a zeroed one */

/* DK_MISMATCH when a file that the recipe names is not the one that it was made from. */
DK_MUST_USE dk_status dk_recipe_check_files(const dk_recipe *recipe, dk_error *err);

/* DK_MISMATCH naming the first weight file whose checksum differs or is missing. */
DK_MUST_USE dk_status dk_recipe_compare_weights(const dk_recipe *recipe, const json_t *weights,
                                                dk_error *err);

/* For the commands: the engine's checksums (borrowed; read at the first call), and the
   instruction set that its kernels use. */
DK_MUST_USE dk_status dk_engine_weights(const json_t **out, dk_engine *engine, dk_error *err);
const char *dk_engine_cpu_level(const dk_engine *engine);

#endif
