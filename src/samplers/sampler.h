/* Samplers: from the model's predictions to the next latent. A sampler computes coefficients on
   the host and leaves all arithmetic on latents to the caller's `combine`, so that one sampler
   serves every device. Flow matching: x = (1 - sigma) x0 + sigma noise, the model predicts
   noise - x0. */
#ifndef DK_SAMPLERS_SAMPLER_H
#define DK_SAMPLERS_SAMPLER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dk_sampler dk_sampler;

typedef struct dk_sampler_options {
    const char *name;     /* "unipc", "euler", "dpm++"; NULL: the class that the config names */
    double flow_shift;    /* NAN: the config's */
    int steps;            /* 1.. */
    double mu;            /* of dynamic shifting; NAN: none */
    const double *sigmas; /* [steps] instead of the sampler's own, or NULL */
} dk_sampler_options;

/* Parses a scheduler_config.json; `where` names it in messages. Owned. */
DK_MUST_USE dk_status dk_sampler_create(dk_sampler **out, const json_t *config,
                                        const dk_sampler_options *options, const char *where,
                                        dk_error *err);
void dk_sampler_destroy(dk_sampler **sampler);

const char *dk_sampler_name(const dk_sampler *sampler);
int dk_sampler_steps(const dk_sampler *sampler);
const float *dk_sampler_timesteps(const dk_sampler *sampler); /* [steps], as the model sees */
const float *dk_sampler_sigmas(const dk_sampler *sampler);    /* [steps + 1] */
int dk_sampler_state_tensors(const dk_sampler *sampler); /* latent-sized buffers to provide */

/* dst = sum of coef[t] * src[t]; dst may be one of the sources; terms <= 8. */
typedef struct dk_sampler_math {
    void (*combine)(void *context, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count);
    void *context;
} dk_sampler_math;

/* Step i (in order, each once; from 0, or after a reset from any step): latent, at sigma i,
   becomes the latent at sigma i + 1. model_out is the (guided) prediction for it; state:
   dk_sampler_state_tensors buffers of `count` values, kept between steps. */
void dk_sampler_step(dk_sampler *sampler, const dk_sampler_math *math, int i,
                     const float *model_out, float *latent, float *const *state, int64_t count);

/* Back to before the first step, for the next generation with the same schedule. The next step
   may be any: what a method knows of earlier steps begins there. */
void dk_sampler_reset(dk_sampler *sampler);

/* What a sampler remembers between steps beside its state buffers, to go on elsewhere. */
typedef struct dk_sampler_memory {
    int warm;       /* steps taken, up to the order */
    int used_order; /* of the step before */
} dk_sampler_memory;
dk_sampler_memory dk_sampler_remember(const dk_sampler *sampler);
/* False, and nothing changed, for numbers that no sampler of this kind remembers. */
bool dk_sampler_recall(dk_sampler *sampler, dk_sampler_memory memory);

/* "euler, unipc, dpm++": the names that options.name takes. */
const char *dk_sampler_names(void);

#endif
