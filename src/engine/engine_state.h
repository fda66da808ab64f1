/* The inside of dk_engine, for the files of this folder. */
#ifndef DK_ENGINE_ENGINE_STATE_H
#define DK_ENGINE_ENGINE_STATE_H

#include <jansson.h>

#include "base/sha256.h"
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

/* SHA-256 of all that decides a generation's bits, but for the content of weight files, which
   are told by path, size and time. */
DK_MUST_USE dk_status dk_generation_identity(char hex[DK_SHA256_HEX_BYTES], dk_engine *engine,
                                             const dk_request *request, dk_error *err);

#endif
