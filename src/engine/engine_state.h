/* The inside of dk_engine, for the files of this folder. */
#ifndef DK_ENGINE_ENGINE_STATE_H
#define DK_ENGINE_ENGINE_STATE_H

#include <jansson.h>

#include "base/sha256.h"
#include "darkroom/darkroom.h"
#include "engine/cancel.h"
#include "engine/ranks.h"
#include "nn/context.h"
#include "pipeline/pipeline.h"
#include "pipeline/planning.h"
#include "pipeline/text_ahead.h"

typedef struct dk_planner dk_planner;

enum { DK_WARM_SIZES = 16 };

/* Sizes of requests that found all prepared. */
typedef struct dk_warm_sizes {
    bool wanted; /* warmup_mode "request" */
    struct dk_warm_size {
        int width, height, num_frames;
    } sizes[DK_WARM_SIZES];
    int count; /* ever; the oldest make room */
} dk_warm_sizes;

struct dk_engine {
    dk_log log;
    dk_trace *trace;        /* owned; NULL: none is written */
    dk_ranks *ranks;        /* owned; NULL: this one alone */
    _Atomic uint64_t waits; /* times that it was found waiting for other ranks */
    dk_device *device;
    dk_pipeline *pipeline;
    dk_nn nn;
    dk_device *text_device; /* owned: where prompts are encoded; NULL: on `device` */
    dk_nn text_nn;
    dk_device *ahead_device; /* owned: the same device once more, for prompts of later requests;
                                NULL: none are encoded ahead */
    dk_nn ahead_nn;
    dk_text_ahead *ahead;
    dk_cancel *cancel;
    bool owns_cancel;
    char *model;  /* as the caller named it */
    char *folder; /* where it lies */
    char *dtype;
    char identity[DK_SHA256_HEX_BYTES]; /* of the model, see dk_model_identity */
    dk_quantization quantization;
    double max_error;               /* of quantised layers */
    dk_rates rates;                 /* of the stages that ran */
    dk_planner *planner;            /* owned */
    dk_embedding_cache *embeddings; /* owned; NULL: none are kept */
    dk_warm_sizes warm;
    json_t *weights; /* checksums, computed with the first result */
};

/* What dk_engine_plan works with, beside the engine's own device. Owned. */
dk_planner *dk_planner_create(void);
void dk_planner_destroy(dk_planner **planner);

/* Runs what the options ask for in advance, so that the first request finds all prepared. */
DK_MUST_USE dk_status dk_engine_warm_up(dk_engine *engine, const dk_engine_options *options,
                                        dk_error *err);
/* warmup_mode "request": the same for a request whose size is new, before it runs. What fails
   there is left to the request itself. */
void dk_engine_warm_up_for(dk_engine *engine, const dk_generation *generation);

/* Generations that join, or one; the other ranks are told. Each has its status. */
void dk_engine_run(dk_engine *engine, dk_generation *generations, int count);

/* SHA-256 of what all ranks and replicas of a server have in common: the model's files, by
   name, size and a piece of their content, dtype and quantization. */
DK_MUST_USE dk_status dk_model_identity(char hex[DK_SHA256_HEX_BYTES], const dk_engine *engine,
                                        dk_error *err);

/* SHA-256 of all that decides the bits of text embeddings, files told as below. */
DK_MUST_USE dk_status dk_text_identity(char hex[DK_SHA256_HEX_BYTES], const dk_engine *engine,
                                       dk_error *err);

/* SHA-256 of all that decides a generation's bits, but for the content of weight files, which
   are told by path, size and time. */
DK_MUST_USE dk_status dk_generation_identity(char hex[DK_SHA256_HEX_BYTES], dk_engine *engine,
                                             const dk_request *request, dk_error *err);

#endif
