/* DPM-Solver++ for flow prediction: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling"
   (2022), after diffusers' DPMSolverMultistepScheduler. */
#include <math.h>

#include "base/alloc.h"
#include "base/json.h"
#include "samplers/sampler_kind.h"

enum { RING_SIZE = DK_SAMPLER_MAX_ORDER, SHORT_RUN = 15 }; /* steps below which orders drop */

static dk_status parse(dk_sampler *sampler, const json_t *config, double *last,
                       const char *where, dk_error *err)
{
    static const char *const refused[] = {"use_karras_sigmas", "use_exponential_sigmas",
                                          "use_beta_sigmas",   "use_lu_lambdas",
                                          "thresholding",      NULL};
    static const char *const algorithms[] = {"dpmsolver++", NULL};
    static const char *const predictions[] = {"flow_prediction", NULL};
    static const char *const types[] = {"midpoint", "heun", "bh1", "bh2", NULL};
    static const char *const finals[] = {"zero", "sigma_min", NULL};
    int64_t order = 2;
    double beta = 0.0001;
    int algorithm = 0, prediction = 0, type = 0, final = 0;
    bool flow = true;
    sampler->lower_order_final = true;
    DK_TRY(dk_sampler_refuse(config, refused, where, err));
    DK_TRY(dk_sampler_choice(config, "algorithm_type", algorithms, &algorithm, where, err));
    DK_TRY(dk_sampler_choice(config, "prediction_type", predictions, &prediction, where, err));
    DK_TRY(dk_sampler_choice(config, "solver_type", types, &type, where, err));
    DK_TRY(dk_sampler_choice(config, "final_sigmas_type", finals, &final, where, err));
    DK_TRY(dk_json_int(config, "solver_order", 1, DK_SAMPLER_MAX_ORDER, 0, &order, where, err));
    DK_TRY(dk_json_double(config, "beta_start", 1e-12, 0.999, 0, &beta, where, err));
    DK_TRY(dk_json_bool(config, "use_flow_sigmas", 0, &flow, where, err));
    DK_TRY(
        dk_json_bool(config, "lower_order_final", 0, &sampler->lower_order_final, where, err));
    DK_TRY(dk_json_bool(config, "euler_at_final", 0, &sampler->euler_at_final, where, err));
    if (!flow) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: use_flow_sigmas must be true, false is not supported", where);
    }
    sampler->order = (int)order;
    sampler->heun = type == 1; /* bh1 and bh2, from UniPC's files, mean midpoint here */
    sampler->final_zero = final == 0;
    *last = sampler->final_zero ? 0 : sqrt(beta / (1 - beta));
    return DK_OK;
}

static dk_status init(dk_sampler *sampler, const json_t *config,
                      const dk_sampler_options *options, const char *where, dk_error *err)
{
    dk_schedule schedule;
    double last = 0;
    DK_TRY(parse(sampler, config, &last, where, err));
    DK_TRY(dk_schedule_parse(&schedule, config, "flow_shift", options, where, err));
    if (options->sigmas != NULL) {
        return dk_fail(err, DK_INVALID, "%s: this sampler takes no sigmas from outside", where);
    }
    int steps = options->steps;
    double *sigmas = dk_alloc((size_t)steps * sizeof *sigmas);
    double end = 1 / schedule.num_train_timesteps;
    for (int i = 0; i < steps; i++) {
        double alpha = dk_linspace(1, end, steps + 1, steps - i);
        sigmas[i] = dk_schedule_shift(&schedule, 1 - alpha);
    }
    dk_sampler_set(sampler, &schedule, sigmas, steps, last, true);
    dk_free(sigmas);
    return DK_OK;
}

static float log_snr(float sigma)
{
    return logf(1.0f - sigma) - logf(sigma);
}

static int order_of(const dk_sampler *sampler, int i)
{
    bool short_run = sampler->lower_order_final && sampler->steps < SHORT_RUN;
    bool at_end = i == sampler->steps - 1;
    int order = sampler->order;
    if (at_end && (sampler->euler_at_final || short_run || sampler->final_zero)) {
        order = 1;
    } else if (i == sampler->steps - 2 && short_run && order > 2) {
        order = 2;
    }
    return order < sampler->memory.warm + 1 ? order : sampler->memory.warm + 1;
}

/* Factors of x0 predictions m0 (newest), m1, m2 for a step of the given order. */
static void coefficients(const dk_sampler *sampler, int i, int order, float m[3])
{
    const float *sigma = sampler->sigmas;
    float lambda = log_snr(sigma[i]), h = log_snr(sigma[i + 1]) - lambda;
    float alpha = 1.0f - sigma[i + 1], decay = expf(-h) - 1.0f;
    m[0] = -alpha * decay;
    m[1] = m[2] = 0;
    if (order == 1) {
        return;
    }
    float r0 = (lambda - log_snr(sigma[i - 1])) / h;
    float first =
        sampler->heun || order == 3 ? alpha * (decay / h + 1.0f) : -0.5f * alpha * decay;
    if (order == 2) {
        m[0] += first / r0;
        m[1] -= first / r0;
        return;
    }
    /* d1 = d10 + w (d10 - d11), d2 = (d10 - d11) / (r0 + r1), d10 = (m0 - m1) / r0,
       d11 = (m1 - m2) / r1 */
    float r1 = (log_snr(sigma[i - 1]) - log_snr(sigma[i - 2])) / h, sum = r0 + r1;
    float second = -alpha * ((decay + h) / (h * h) - 0.5f);
    float d10 = first * (1.0f + r0 / sum) + second / sum,
          d11 = -(first * r0 / sum + second / sum);
    m[0] += d10 / r0;
    m[1] += d11 / r1 - d10 / r0;
    m[2] -= d11 / r1;
}

static void step(dk_sampler *sampler, const dk_sampler_math *math, int i,
                 const float *model_out, float *latent, float *const *state, int64_t count)
{
    const float *flow[] = {latent, model_out};
    const float to_x0[] = {1.0f, -sampler->sigmas[i]};
    math->combine(math->context, state[i % RING_SIZE], flow, to_x0, 2, count);
    int order = order_of(sampler, i);
    float coef[DK_SAMPLER_MAX_ORDER + 1] = {sampler->sigmas[i + 1] / sampler->sigmas[i]};
    coefficients(sampler, i, order, coef + 1);
    const float *terms[DK_SAMPLER_MAX_ORDER + 1] = {latent};
    for (int k = 0; k < order; k++) {
        terms[k + 1] = state[(i - k) % RING_SIZE];
    }
    math->combine(math->context, latent, terms, coef, order + 1, count);
    sampler->memory.warm += sampler->memory.warm < sampler->order ? 1 : 0;
}

const dk_sampler_kind dk_sampler_dpm_solver = {
    .name = "dpm++",
    .class_name = "DPMSolverMultistepScheduler",
    .state_tensors = RING_SIZE,
    .init = init,
    .step = step,
};
