/* Euler steps of the flow's ordinary differential equation, after diffusers'
   FlowMatchEulerDiscreteScheduler. */
#include <math.h>

#include "base/alloc.h"
#include "base/json.h"
#include "samplers/sampler_kind.h"

static const double KARRAS_RHO = 7.0; /* Karras et al., "Elucidating the Design Space" (2022) */

/* Respaces sigmas between the largest and the smallest. */
static void respace(double *sigmas, int steps, bool karras)
{
    double first = sigmas[0], last = sigmas[steps - 1];
    for (int i = 0; i < steps; i++) {
        double ramp = steps > 1 ? (double)i / (steps - 1) : 0;
        if (karras) {
            double high = pow(first, 1 / KARRAS_RHO), low = pow(last, 1 / KARRAS_RHO);
            sigmas[i] = pow(high + ramp * (low - high), KARRAS_RHO);
        } else {
            sigmas[i] = exp(log(first) + ramp * (log(last) - log(first)));
        }
    }
}

/* The range that the class derives from its configuration: already shifted once when the shift
   is static. */
static void default_sigmas(const dk_schedule *schedule, double *sigmas, int steps)
{
    double first = 1, last = 1 / schedule->num_train_timesteps;
    if (isnan(schedule->mu)) {
        first = (double)(float)dk_schedule_shift(schedule, first);
        last = (double)(float)dk_schedule_shift(schedule, (double)(float)last);
    }
    double trained = schedule->num_train_timesteps;
    for (int i = 0; i < steps; i++) {
        double t = steps > 1 ? dk_linspace(first * trained, last * trained, steps, i)
                             : first * trained;
        sigmas[i] = t / trained;
    }
}

static dk_status init(dk_sampler *sampler, const json_t *config,
                      const dk_sampler_options *options, const char *where, dk_error *err)
{
    static const char *const refused[] = {"use_beta_sigmas", "stochastic_sampling", NULL};
    bool karras = false, exponential = false, invert = false;
    dk_schedule schedule;
    DK_TRY(dk_sampler_refuse(config, refused, where, err));
    DK_TRY(
        dk_json_bool(config, "use_karras_sigmas", DK_JSON_NULL_IS_ABSENT, &karras, where, err));
    DK_TRY(dk_json_bool(config, "use_exponential_sigmas", DK_JSON_NULL_IS_ABSENT, &exponential,
                        where, err));
    DK_TRY(dk_json_bool(config, "invert_sigmas", DK_JSON_NULL_IS_ABSENT, &invert, where, err));
    /* UniPC's files carry the shift under their own name, for --sampler euler. */
    const char *key = json_object_get(config, "shift") != NULL ? "shift" : "flow_shift";
    DK_TRY(dk_schedule_parse(&schedule, config, key, options, where, err));
    int steps = options->steps;
    double *sigmas = dk_alloc((size_t)steps * sizeof *sigmas);
    default_sigmas(&schedule, sigmas, steps);
    schedule.single = options->sigmas != NULL;
    for (int i = 0; i < steps; i++) {
        double sigma = options->sigmas != NULL ? options->sigmas[i] : sigmas[i];
        sigmas[i] = dk_schedule_shift(&schedule, sigma);
    }
    dk_schedule_stretch(&schedule, sigmas, steps);
    if (karras || exponential) {
        respace(sigmas, steps, karras);
    }
    if (invert) {
        for (int i = 0; i < steps; i++) {
            sigmas[i] = (double)(1.0f - (float)sigmas[i]);
        }
    }
    dk_sampler_set(sampler, &schedule, sigmas, steps, invert ? 1 : 0, false);
    dk_free(sigmas);
    return DK_OK;
}

static void step(dk_sampler *sampler, const dk_sampler_math *math, int i,
                 const float *model_out, float *latent, float *const *state, int64_t count)
{
    (void)state;
    const float *terms[] = {latent, model_out};
    const float coef[] = {1.0f, sampler->sigmas[i + 1] - sampler->sigmas[i]};
    math->combine(math->context, latent, terms, coef, 2, count);
}

const dk_sampler_kind dk_sampler_euler = {
    .name = "euler",
    .class_name = "FlowMatchEulerDiscreteScheduler",
    .state_tensors = 0,
    .init = init,
    .step = step,
};
