/* One request on its way through the stages. Each stage fills in its part; docs/architecture.md
   draws the whole way. Jobs of the same sizes and settings can go the way together. */
#ifndef DK_PIPELINE_JOB_H
#define DK_PIPELINE_JOB_H

#include "base/log.h"
#include "darkroom/darkroom.h"
#include "nn/context.h"
#include "pipeline/checkpoint.h"
#include "pipeline/dump.h"
#include "pipeline/edit.h"
#include "pipeline/embedding_cache.h"
#include "pipeline/preview.h"
#include "samplers/sampler.h"
#include "tensor/random.h"

typedef struct dk_pipeline dk_pipeline;
typedef struct dk_rates dk_rates;
typedef struct dk_text_ahead dk_text_ahead;

/* Text embeddings in host memory: the real rows; the rest up to `padded` rows is zeros. */
typedef struct dk_text_embeds {
    float *values; /* [rows][width], owned */
    int64_t rows, padded, width;
} dk_text_embeds;

enum { DK_TILE_QUARTERS = 4 }; /* tiles of the decoder overlap by a quarter of their side */
enum { DK_JOBS_TOGETHER = 8 }; /* at most */

struct dk_job {
    const dk_pipeline *pipeline; /* borrowed */
    dk_nn *nn;                   /* borrowed */
    dk_request request;          /* validated copy */
    dk_event_fn *events;
    void *event_context;
    const dk_log *log;         /* borrowed, may be NULL */
    dk_nn *text_nn;            /* borrowed; prompts are encoded there; NULL: by nn */
    const atomic_bool *cancel; /* borrowed: ends this job alone; may be NULL */
    bool follows;              /* on a rank that does not lead: computes with the others, tells
                                  nobody */
    dk_dump *dump;             /* NULL: nothing is dumped */
    dk_checkpoint_options checkpoint;
    bool previews;                  /* tell previews */
    dk_embedding_cache *embeddings; /* borrowed, may be NULL */
    dk_text_ahead *ahead; /* borrowed: encodes prompts of later requests; may be NULL */
    dk_rates *rates;      /* borrowed, may be NULL: receives how fast the stages were */
    int output;           /* of the outputs, the one being made */

    bool guided; /* guidance is on: a second, unconditional call per step */
    int64_t latent_channels, latent_frames, latent_height, latent_width;
    dk_noise noise;

    dk_text_embeds prompt, negative; /* negative only when guided */
    float *given_latents;            /* [given_count][latent], owned; NULL: drawn */
    int64_t given_count;
    float *latent;        /* [channels][frames][height][width], host, owned */
    dk_edit edit;         /* of a request with a picture */
    dk_preview preview;   /* with previews */
    dk_sampler *sampler;  /* owned */
    dk_checkpoint *saved; /* owned; NULL: none is kept */
    bool resumes;         /* this output goes on from `saved` at first_step */
    int first_step; /* of this output: where the loop begins; all steps done: it does nothing */
    float *frames;  /* [frames][height][width][3] in 0..1, owned; only for a dump */
    dk_result *result; /* borrowed; frames go to rgb[output] */
    dk_status status;  /* how dk_jobs_run ended for this one */
    dk_error error;
    bool agreed; /* it failed, and all ranks that share the stage know: they go on without it */
};

/* Where prompts are encoded. */
static inline dk_nn *dk_job_text_nn(const dk_job *job)
{
    return job->text_nn != NULL ? job->text_nn : job->nn;
}

/* Elements of one latent. */
int64_t dk_job_latent_count(const dk_job *job);

void dk_job_emit(dk_job *job, const dk_event *event);
void dk_job_warn(dk_job *job, const char *format, ...) DK_PRINTF(2, 3);
/* Warns, and tells the log, that a part of a model gave what is not finite and is computed
   again. where: "step 3", "text encoding". */
void dk_job_warn_spoiled(dk_job *job, const char *where, dk_component component, int block);
void dk_job_release(dk_job *job);

/* The request against its ranges and the model: rounds num_frames and fills in the sizes of the
   latent and the given latents. */
DK_MUST_USE dk_status dk_job_check(dk_job *job, dk_error *err);

/* How many passes through the transformer gain by being one, of latents of so many tokens, and
   give the bits of single ones. */
int dk_jobs_pass_items(const dk_device *device, int64_t tokens);
/* How many requests of this size and guidance gain by going together; 1: none, or it has files
   of its own. From any thread. */
int dk_request_most_together(const dk_pipeline *pipeline, const dk_device *device,
                             const dk_request *request);
/* Equal in all but prompts and seed. */
bool dk_requests_are_alike(const dk_request *a, const dk_request *b);

/* Runs a pipeline's stages for jobs whose requests are alike (or one alone): the first ones
   once, the rest for every output. One that fails or is stopped leaves the others alone: each
   has its own status. */
void dk_jobs_run(dk_job *const *jobs, int count);

#endif
