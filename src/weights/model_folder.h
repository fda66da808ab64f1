/* A model folder in diffusers layout: model_index.json and one folder per component. */
#ifndef DK_WEIGHTS_MODEL_FOLDER_H
#define DK_WEIGHTS_MODEL_FOLDER_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

typedef struct dk_model_folder dk_model_folder;

/* Owned. */
DK_MUST_USE dk_status dk_model_folder_open(dk_model_folder **out, const char *path,
                                           dk_error *err);
void dk_model_folder_close(dk_model_folder **folder);

const char *dk_model_folder_path(const dk_model_folder *folder);
const char *dk_model_folder_class(const dk_model_folder *folder); /* "WanPipeline" */
const json_t *dk_model_folder_index(const dk_model_folder *folder);

/* True when model_index.json names the component with a class ([null, null] and null mean
   absent). */
bool dk_model_folder_has(const dk_model_folder *folder, const char *component);

/* The component's folder (owned), when its class is one of `classes` (NULL-ended). */
DK_MUST_USE dk_status dk_model_folder_component(const dk_model_folder *folder,
                                                const char *component,
                                                const char *const *classes, char **path,
                                                dk_error *err);

/* Loads <component>/<file> as JSON (owned); *where (owned) names it in messages. */
DK_MUST_USE dk_status dk_model_folder_config(const dk_model_folder *folder,
                                             const char *component, const char *file,
                                             json_t **out, char **where, dk_error *err);

#endif
