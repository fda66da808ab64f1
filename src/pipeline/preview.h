/* Previews: what the output will look like, from a prediction of its latent in the middle of
   the step loop. A linear map takes the channels of a latent pixel to a colour; it is fitted to
   the model's own VAE, once per engine. */
#ifndef DK_PIPELINE_PREVIEW_H
#define DK_PIPELINE_PREVIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "models/wan/vae.h"
#include "tensor/tensor.h"

typedef struct dk_job dk_job;

enum { DK_PREVIEW_INTERVAL_MS = 40 }; /* from one to the next, at least */

/* Colour = weight[rgb][0..channels) * latent pixel + weight[rgb][channels], in 0..1. */
typedef struct dk_projection {
    bool fitted;
    float weight[3][DK_WAN_VAE_MAX_CHANNELS + 1];
} dk_projection;

/* latent: [channels][pixels] of one frame; rgb: [pixels][3]; planes: [3][pixels], scratch. */
void dk_projection_apply(const dk_projection *projection, int64_t channels, int64_t pixels,
                         const float *latent, float *planes, uint8_t *rgb);

/* One job's previews. All owned. */
typedef struct dk_preview {
    float *latent, *velocity; /* [channels][pixels] of the frame shown */
    float *planes;            /* [3][pixels] */
    uint8_t *rgb;             /* [pixels][3] */
    double told_ms;           /* when the last one was told */
    bool due;                 /* rgb is waiting to be told */
} dk_preview;

void dk_preview_release(dk_preview *preview);

/* Before step i is taken: the latent, and what the model predicts for it. Nothing when no
   preview is due: at the last step, or soon after the one before. Allocates nothing. */
void dk_preview_look(dk_job *job, int i, const dk_tensor *latent, const dk_tensor *velocity);
/* After it: the event, when there is one. */
void dk_preview_tell(dk_job *job, int i);

#endif
