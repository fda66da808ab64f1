/* Darkroom's library: a model folder becomes an engine, a request becomes frames.

   Ownership in comments: "owned" is the caller's to release, "borrowed" belongs to somebody
   else. Functions that return dk_status leave their outputs untouched when they fail and put
   one line into err (which may be NULL). docs/example.c is a whole program. */
#ifndef DARKROOM_DARKROOM_H
#define DARKROOM_DARKROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "darkroom/error.h"
#include "darkroom/log.h"
#include "darkroom/options.h"

#ifdef __cplusplus
extern "C" {
#endif

const char *dk_version(void); /* "0.1.0" */

typedef struct dk_engine dk_engine;

/* Maps the weights and prepares them. Owned. */
dk_status dk_engine_open(dk_engine **out, const dk_engine_options *options, dk_error *err);
void dk_engine_close(dk_engine **engine);

/* Of several ranks: whether this one takes requests. The others call dk_engine_follow, which
   computes with the leader until it closes its engine (DK_OK) or something fails. */
bool dk_engine_leads(const dk_engine *engine);
dk_status dk_engine_follow(dk_engine *engine, dk_error *err);

/* What was quantised and how well, "int8: 240 layers, …"; NULL: nothing. Borrowed. */
const char *dk_engine_quantization(const dk_engine *engine);

/* What was chosen and why, a line each: the device, how attention is computed, what was
   quantised, what weights that come and go have cost, products that were found wrong. Owned,
   freed with dk_text_free. */
char *dk_engine_explain(const dk_engine *engine);
void dk_text_free(char *text);

/* Equal for engines that may take each other's requests: a sum of the model's files, dtype and
   quantization. Borrowed. */
const char *dk_engine_identity(const dk_engine *engine);
const char *dk_engine_dtype(const dk_engine *engine);

/* "cpu, avx2, 2 threads", and the pipeline's class; borrowed from the engine. */
const char *dk_engine_device(const dk_engine *engine);
const char *dk_engine_pipeline(const dk_engine *engine);

/* What to generate. dk_request_init fills in the model's defaults; set what differs. Strings
   are borrowed until dk_generate returns. */
typedef struct dk_request {
    const char *prompt;          /* required, may be "" */
    const char *negative_prompt; /* used when guidance_scale > 1 */
    int width, height;           /* pixels */
    int num_frames;              /* 1: a picture */
    int num_inference_steps;
    double guidance_scale;
    double flow_shift;   /* NAN: the scheduler file's */
    const char *sampler; /* "unipc", "euler", "dpm++"; NULL: the scheduler file's */
    uint64_t seed;       /* output i uses seed + i */
    const char *noise;   /* "torch-cpu" or "philox" */
    int num_outputs_per_prompt;
    double fps;                  /* goes into video files */
    const char *initial_latents; /* safetensors file with one F32 tensor, or NULL: drawn */
    int initial_latents_first;   /* output i starts from latent initial_latents_first + i */
    const char *image_path;      /* picture to start from, scaled to width x height; with
                                    initial_latents, those are the noise; NULL: none */
    const char *mask_path;       /* what of it may change: white; black stays; NULL: all */
    double strength;             /* how much of the picture may change, above 0 to 1 */
    int vae_tile_size;           /* pixels; decodes in tiles of this side, 0: whole frames */
    const char *dump_tensors;    /* writes intermediate tensors there, or NULL */
} dk_request;

void dk_request_init(dk_request *request, const dk_engine *engine);

typedef enum dk_event_kind {
    DK_EVENT_STAGE_BEGIN,
    DK_EVENT_STAGE_END, /* ms */
    DK_EVENT_STEP,      /* one denoising step ended: step of steps, ms of this one, eta_ms */
    DK_EVENT_WARNING,   /* message */
    DK_EVENT_PREVIEW,   /* a small picture of what the output will be, after some steps */
} dk_event_kind;

typedef struct dk_event {
    dk_event_kind kind;
    const char *stage; /* "text encoding", … */
    int output;        /* which of num_outputs_per_prompt, from 0 */
    int step, steps;
    double ms, eta_ms;
    const char *message;
    const uint8_t *preview; /* [preview_height][preview_width][3], borrowed */
    int preview_width, preview_height;
} dk_event;

/* Called from the thread that runs dk_generate; the event is borrowed for the call. */
typedef void dk_event_fn(void *context, const dk_event *event);

/* Checks a request against the model without computing anything, and rounds what the model
   rounds (num_frames; told as DK_EVENT_WARNING). dk_generate does the same first. */
dk_status dk_request_check(dk_request *request, dk_engine *engine, dk_event_fn *events,
                           void *context, dk_error *err);

typedef struct dk_timing {
    const char *stage; /* static text */
    int output;
    double ms;
} dk_timing;

typedef struct dk_result {
    int outputs, frames, height, width;
    uint8_t *rgb;    /* [outputs][frames][height][width][3] */
    uint64_t *seeds; /* [outputs] */
    double fps;
    dk_timing *timings; /* [timing_count]: stages in order */
    int timing_count;
    double *step_ms; /* [step_count]: all denoising steps in order */
    int step_count;
    char **recipes; /* [outputs] JSON: everything that made the output, and its checksum */
} dk_result;

/* Runs one request; events may be NULL. A result is owned: dk_result_release. */
dk_status dk_generate(dk_engine *engine, const dk_request *request, dk_event_fn *events,
                      void *context, dk_result *result, dk_error *err);
void dk_result_release(dk_result *result);

/* One of several generations that an engine makes together. */
typedef struct dk_generation {
    const dk_request *request;
    dk_event_fn *events; /* may be NULL */
    void *context;
    const dk_cancel *cancel;   /* ends this one alone; may be NULL */
    const char *checkpoint;    /* file: read first when it belongs to the same request and
                                  engine, then written now and then; NULL: none. A damaged
                                  or foreign one is told as DK_EVENT_WARNING and replaced. It
                                  stays: the caller removes it. Not with dump_tensors */
    double checkpoint_every_s; /* at most this much work is lost; 0: after every step */
    bool previews;             /* emit DK_EVENT_PREVIEW */
    /* What comes back: the result is owned when status is DK_OK. */
    dk_status status;
    dk_error error;
    dk_result result;
} dk_generation;

/* Whether two checked requests can share one pass through the model, and gain by it: equal in
   all but prompts and seeds. */
bool dk_request_joins(const dk_engine *engine, const dk_request *a, const dk_request *b);

/* Runs generations, together where dk_request_joins holds for all of them, else one after the
   other. Each gets the pixels that it would have got alone, and its own status: the failure or
   the cancellation of one is no other's. */
void dk_generate_together(dk_engine *engine, dk_generation *generations, int count);

/* What a request will take, without computing it. */
typedef struct dk_plan {
    uint64_t weight_bytes; /* of the opened model: mapped files and packed copies */
    uint64_t peak_bytes;   /* that the request needs beside, at its peak */
    double flops;          /* of all outputs */
    double step_flops;     /* of one denoising step */
    double seconds;        /* expected, by what was measured so far on this engine */
    double step_seconds;   /* of one denoising step */
} dk_plan;

/* May be called beside a running generation, from another thread. Checks the request and rounds
   it as dk_request_check does. */
dk_status dk_engine_plan(dk_engine *engine, dk_request *request, dk_plan *plan, dk_error *err);

/* Encodes the prompts of a request that will come, while another one is generated, and returns
   at once: for engines with a text_encoder_device of its own that keep embeddings, which
   dk_engine_prepares tells; others do nothing. The request itself finds what was made, waits
   for what is being made, and makes what is not. From any thread. */
bool dk_engine_prepares(const dk_engine *engine);
void dk_engine_prepare(dk_engine *engine, const dk_request *request);

/* A number that grows while the engine computes; from any thread. One that stands still for
   long belongs to an engine that hangs. */
uint64_t dk_engine_pulse(const dk_engine *engine);

/* Prompts whose embeddings were found in memory, on disk, or nowhere, those that were made
   ahead of their request, and what memory holds; from any thread. */
typedef struct dk_embedding_stats {
    uint64_t hits, disk_hits, misses, prepared, entries, bytes;
} dk_embedding_stats;
void dk_engine_embedding_stats(const dk_engine *engine, dk_embedding_stats *out);

/* Makes the running dk_generate (or the next one, when none runs) return DK_CANCELLED within
   one block of the model. May be called from any thread and from signal handlers. */
void dk_engine_cancel(dk_engine *engine);

/* Writes one output. The format follows the extension: png, jpg, webp for one frame, mp4, webm,
   gif for any number. quality: 1 to 100, or 0 for the format's default. The file appears whole
   or not at all and carries the recipe. */
dk_status dk_result_save(const dk_result *result, int output, const char *path, int quality,
                         dk_error *err);

#ifdef __cplusplus
}
#endif

#endif
