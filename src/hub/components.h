/* What a folder in diffusers layout consists of: the components that model_index.json names,
   and the files without which each of them cannot be loaded. */
#ifndef DK_HUB_COMPONENTS_H
#define DK_HUB_COMPONENTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

typedef enum dk_hub_component_kind {
    DK_HUB_MODEL, /* config.json and weights */
    DK_HUB_TOKENIZER,
    DK_HUB_SCHEDULER,
    DK_HUB_PROCESSOR /* of pictures: image_processor, feature_extractor, processor */
} dk_hub_component_kind;

typedef struct dk_hub_component {
    char *name; /* owned: the folder */
    dk_hub_component_kind kind;
} dk_hub_component;

typedef struct dk_hub_components {
    dk_hub_component *items; /* owned */
    size_t count;
} dk_hub_components;

/* Reads model_index.json at `path`. Entries that are null, settings or private are left out. */
DK_MUST_USE dk_status dk_hub_components_load(dk_hub_components *out, const char *path,
                                             dk_error *err);
void dk_hub_components_release(dk_hub_components *components);
const dk_hub_component *dk_hub_components_find(const dk_hub_components *components,
                                               const char *name, size_t name_length);

/* The names of weights without their ending, in order of preference; NULL ends the list. A
   sharded set (<stem>.safetensors.index.json) is preferred to a single file. */
extern const char *const dk_hub_weight_stems[];

/* DK_OK when `folder` has everything that its model_index.json asks for; otherwise
   DK_NOT_FOUND (or DK_FORMAT) with the first file that is missing (or broken). */
DK_MUST_USE dk_status dk_hub_check_folder(const char *folder, dk_error *err);

#endif
