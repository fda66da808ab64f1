/* What a request with a picture adds to a job: the picture at the output's size, its latent,
   and which of it may change. */
#ifndef DK_PIPELINE_EDIT_H
#define DK_PIPELINE_EDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/tensor.h"

typedef struct dk_job dk_job;

/* All owned. */
typedef struct dk_edit {
    uint8_t *picture;   /* [height][width][3]; NULL: the request has none */
    uint8_t *mask;      /* [height][width], 255: changes, 0: stays; NULL: all changes */
    float *latent_mask; /* [latent_height][latent_width] in 0..1; with mask */
    float *original;    /* the picture's latent, normalised, for all frames */
    float *noise;       /* of the output being made, like `original` */
    int begin_step;     /* the first step, by strength */
} dk_edit;

/* Reads and scales the request's picture and mask; the job knows its sizes. DK_INVALID: no step
   would be left, or a mask without a picture; DK_UNSUPPORTED: the model has no encoder. */
DK_MUST_USE dk_status dk_edit_load(dk_job *job, dk_error *err);
void dk_edit_release(dk_edit *edit);

/* job->latent = the picture's latent with the noise of the first step. */
void dk_edit_begin(dk_job *job);

/* After a step: what the mask keeps becomes the picture's latent again, with the noise of sigma
   `step`. latent: the device's. job->latent is overwritten. Nothing without a mask. */
void dk_edit_keep(dk_job *job, int step, const dk_tensor *latent);

/* Frames as they go out: what the mask keeps is the picture. rgb: [frames][height][width][3].
   Nothing without a mask. */
void dk_edit_blend(const dk_job *job, uint8_t *rgb, int64_t frames);

#endif
