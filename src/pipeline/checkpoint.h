/* How far a job is, in a file, so that another process can go on: the latents of finished
   outputs, the one being made, and what its sampler remembers. What goes on from it gives the
   bits of an undisturbed run.

   The file is safetensors: "position" (I32, see checkpoint.c), "finished" [outputs][latent],
   "latent", "state.N", and the identity of what may go on from it. A file that is damaged or
   belongs to something else is told as a warning and written anew. */
#ifndef DK_PIPELINE_CHECKPOINT_H
#define DK_PIPELINE_CHECKPOINT_H

#include <stdint.h>

#include "base/error.h"
#include "nn/context.h"

typedef struct dk_job dk_job;
typedef struct dk_checkpoint dk_checkpoint;

typedef struct dk_checkpoint_options {
    const char *path;     /* borrowed; NULL: none is kept */
    const char *identity; /* borrowed: of the request and the engine, a text */
    double every_s;       /* 0: after every step */
} dk_checkpoint_options;

/* Reads job->checkpoint.path when it is there. The job knows its latent's size and its sampler.
   Owned. */
DK_MUST_USE dk_status dk_checkpoint_open(dk_checkpoint **out, dk_job *job, dk_error *err);
void dk_checkpoint_close(dk_checkpoint **checkpoint);

/* Steps of job->output that need not be made. All of them: job->latent receives the last
   latent. */
int dk_checkpoint_begin(dk_checkpoint *checkpoint, dk_job *job);

/* Where the output goes on: the device's latent and the sampler's states and memory. */
void dk_checkpoint_restore(const dk_checkpoint *checkpoint, dk_job *job, float *latent,
                           float *const *state);

/* After `steps` steps of job->output: writes when it is time. Allocates nothing. What cannot be
   written is warned of, once; an error is a failure of the device. */
DK_MUST_USE dk_status dk_checkpoint_step(dk_checkpoint *checkpoint, dk_job *job, int steps,
                                         const float *latent, float *const *state,
                                         dk_error *err);

/* The output's last latent is job->latent. */
void dk_checkpoint_end(dk_checkpoint *checkpoint, const dk_job *job);

#endif
