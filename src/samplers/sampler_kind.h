/* What one sampler is, and what all of them share. */
#ifndef DK_SAMPLERS_SAMPLER_KIND_H
#define DK_SAMPLERS_SAMPLER_KIND_H

#include <stdbool.h>

#include "samplers/sampler.h"

typedef struct dk_sampler_kind {
    const char *name;       /* "unipc" */
    const char *class_name; /* of scheduler_config.json */
    int state_tensors;
    /* Reads the config, fills timesteps and sigmas. */
    dk_status (*init)(dk_sampler *sampler, const json_t *config,
                      const dk_sampler_options *options, const char *where, dk_error *err);
    void (*step)(dk_sampler *sampler, const dk_sampler_math *math, int i,
                 const float *model_out, float *latent, float *const *state, int64_t count);
} dk_sampler_kind;

#define DK_SAMPLER(name) extern const dk_sampler_kind dk_sampler_##name;
#include "samplers/samplers.def"
#undef DK_SAMPLER

enum { DK_SAMPLER_MAX_ORDER = 3, DK_SAMPLER_MAX_STEPS = 1000 };

struct dk_sampler {
    const dk_sampler_kind *kind;
    int steps;
    float *timesteps, *sigmas; /* owned: [steps], [steps + 1] */

    /* of the multistep samplers */
    int order; /* of the solver */
    dk_sampler_memory memory;
    bool bh1, heun; /* solver types */
    bool lower_order_final, euler_at_final, final_zero;
    bool corrector_off[DK_SAMPLER_MAX_STEPS]; /* after step i */
};

/* Common schedule parts; values in float64 as the reference's numpy code has them. */
typedef struct dk_schedule {
    double num_train_timesteps, shift, mu; /* mu NAN: static shift */
    bool linear_shift;                     /* of mu, instead of exponential */
    double terminal;                       /* shift_terminal; NAN: none */
    bool single; /* every operation is rounded to f32: sigmas that a pipeline gives */
} dk_schedule;

DK_MUST_USE dk_status dk_schedule_parse(dk_schedule *out, const json_t *config,
                                        const char *shift_key,
                                        const dk_sampler_options *options, const char *where,
                                        dk_error *err);
/* Value i of numpy.linspace(first, last, count), count > 1, rounded as numpy rounds it:
   truncated timesteps depend on the last bit. */
double dk_linspace(double first, double last, int count, int i);
double dk_schedule_shift(const dk_schedule *schedule, double sigma);
/* Stretches sigmas so that the last one becomes the terminal value, if there is one. */
void dk_schedule_stretch(const dk_schedule *schedule, double *sigmas, int steps);

/* Allocates and fills timesteps (whole numbers when `truncate`) and sigmas from float64. */
void dk_sampler_set(dk_sampler *sampler, const dk_schedule *schedule, const double *sigmas,
                    int steps, double last, bool truncate);

/* Checks that config[key] is one of the accepted values (NULL-ended); absent is fine. *index
   receives which. */
DK_MUST_USE dk_status dk_sampler_choice(const json_t *config, const char *key,
                                        const char *const *accepted, int *index,
                                        const char *where, dk_error *err);
/* Refuses options that are switched on: bools named in keys (NULL-ended). */
DK_MUST_USE dk_status dk_sampler_refuse(const json_t *config, const char *const *keys,
                                        const char *where, dk_error *err);

#endif
