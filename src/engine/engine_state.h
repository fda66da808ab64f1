/* The inside of dk_engine, for the files of this folder. */
#ifndef DK_ENGINE_ENGINE_STATE_H
#define DK_ENGINE_ENGINE_STATE_H

#include <jansson.h>

#include "darkroom/darkroom.h"
#include "engine/cancel.h"
#include "nn/context.h"
#include "pipeline/pipeline.h"

struct dk_engine {
    dk_log log;
    dk_device *device;
    dk_pipeline *pipeline;
    dk_nn nn;
    dk_cancel *cancel;
    bool owns_cancel;
    char *model;  /* as the caller named it */
    char *folder; /* where it lies */
    char *dtype;
    double max_error; /* of layers in int8 */
    json_t *weights;  /* checksums, computed with the first result */
};

#endif
