/* UniPC for flow prediction: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework"
   (2023), after diffusers' UniPCMultistepScheduler. Coefficients in f32, as there. */
#include <math.h>

#include "base/alloc.h"
#include "base/json.h"
#include "samplers/sampler_kind.h"

/* State buffers: the last sample, then a ring of predictions of x0. */
enum { LAST_SAMPLE, RING, RING_SIZE = DK_SAMPLER_MAX_ORDER + 1 };

static dk_status parse_correctors(dk_sampler *sampler, const json_t *config, const char *where,
                                  dk_error *err)
{
    int64_t off[DK_SAMPLER_MAX_STEPS];
    int count = 0;
    DK_TRY(dk_json_ints(config, "disable_corrector", 0, DK_SAMPLER_MAX_STEPS, 0,
                        DK_SAMPLER_MAX_STEPS - 1, DK_JSON_NULL_IS_ABSENT, off, &count, where,
                        err));
    for (int i = 0; i < count; i++) {
        sampler->corrector_off[off[i]] = true;
    }
    return DK_OK;
}

static dk_status parse(dk_sampler *sampler, const json_t *config, const char *where,
                       dk_error *err)
{
    static const char *const refused[] = {"use_karras_sigmas", "use_exponential_sigmas",
                                          "use_beta_sigmas", "thresholding", NULL};
    static const char *const predictions[] = {"flow_prediction", NULL};
    static const char *const types[] = {"bh2", "bh1", NULL};
    static const char *const finals[] = {"zero", "sigma_min", NULL};
    int64_t order = 2;
    int prediction = 0, type = 0, final = 0;
    bool flow = true, predict_x0 = true;
    sampler->lower_order_final = true;
    DK_TRY(dk_sampler_refuse(config, refused, where, err));
    DK_TRY(dk_sampler_choice(config, "prediction_type", predictions, &prediction, where, err));
    DK_TRY(dk_sampler_choice(config, "solver_type", types, &type, where, err));
    DK_TRY(dk_sampler_choice(config, "final_sigmas_type", finals, &final, where, err));
    DK_TRY(dk_json_int(config, "solver_order", 1, DK_SAMPLER_MAX_ORDER, 0, &order, where, err));
    DK_TRY(dk_json_bool(config, "use_flow_sigmas", 0, &flow, where, err));
    DK_TRY(dk_json_bool(config, "predict_x0", 0, &predict_x0, where, err));
    DK_TRY(
        dk_json_bool(config, "lower_order_final", 0, &sampler->lower_order_final, where, err));
    if (!flow || !predict_x0) {
        return dk_fail(
            err, DK_UNSUPPORTED,
            "%s: use_flow_sigmas and predict_x0 must be true, false is not supported", where);
    }
    sampler->order = (int)order;
    sampler->bh1 = type == 1;
    sampler->final_zero = final == 0;
    return parse_correctors(sampler, config, where, err);
}

static dk_status init(dk_sampler *sampler, const json_t *config,
                      const dk_sampler_options *options, const char *where, dk_error *err)
{
    static const double nearly_one = 1e-6; /* keeps log(1 - sigma) finite */
    dk_schedule schedule;
    DK_TRY(parse(sampler, config, where, err));
    DK_TRY(dk_schedule_parse(&schedule, config, "flow_shift", options, where, err));
    int steps = options->steps;
    double *sigmas = dk_alloc((size_t)steps * sizeof *sigmas);
    double end = 1 / schedule.num_train_timesteps;
    for (int i = 0; i < steps; i++) {
        double sigma =
            options->sigmas != NULL ? options->sigmas[i] : dk_linspace(1, end, steps + 1, i);
        sigmas[i] = dk_schedule_shift(&schedule, sigma);
    }
    dk_schedule_stretch(&schedule, sigmas, steps);
    if (fabs(sigmas[0] - 1) < nearly_one) {
        sigmas[0] -= nearly_one;
    }
    dk_sampler_set(sampler, &schedule, sigmas, steps,
                   sampler->final_zero ? 0 : sigmas[steps - 1], true);
    dk_free(sigmas);
    return DK_OK;
}

static float log_snr(float sigma)
{
    return logf(1.0f - sigma) - logf(sigma);
}

/* Solves the n x n system r x = b (n <= 3) by elimination with pivoting. */
static void solve(float r[3][3], float *b, int n, float *x)
{
    for (int k = 0; k < n; k++) {
        int pivot = k;
        for (int i = k + 1; i < n; i++) {
            pivot = fabsf(r[i][k]) > fabsf(r[pivot][k]) ? i : pivot;
        }
        for (int j = 0; j < n; j++) {
            float value = r[k][j];
            r[k][j] = r[pivot][j];
            r[pivot][j] = value;
        }
        float value = b[k];
        b[k] = b[pivot];
        b[pivot] = value;
        for (int i = k + 1; i < n; i++) {
            float factor = r[i][k] / r[k][k];
            for (int j = k; j < n; j++) {
                r[i][j] -= factor * r[k][j];
            }
            b[i] -= factor * b[k];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        x[i] = b[i];
        for (int j = i + 1; j < n; j++) {
            x[i] -= r[i][j] * x[j];
        }
        x[i] /= r[i][i];
    }
}

/* From sigma `from` to sigma `from + 1`: the factors of the sample, of the newest x0 prediction
   (m0), of the older ones behind it, and, for the corrector, of the one at the target. */
typedef struct update {
    float sample, m0, older[DK_SAMPLER_MAX_ORDER], target;
} update;

static update coefficients(const dk_sampler *sampler, int from, int order, bool corrector)
{
    float sigma_t = sampler->sigmas[from + 1], sigma_s = sampler->sigmas[from];
    float alpha_t = 1.0f - sigma_t, lambda_s = log_snr(sigma_s);
    float h = log_snr(sigma_t) - lambda_s, hh = -h;
    float h_phi_1 = expm1f(hh), big_h = sampler->bh1 && isfinite(hh) ? hh : h_phi_1;
    float rk[DK_SAMPLER_MAX_ORDER], rho[DK_SAMPLER_MAX_ORDER] = {0};
    for (int i = 1; i < order; i++) {
        rk[i - 1] = (log_snr(sampler->sigmas[from - i]) - lambda_s) / h;
    }
    rk[order - 1] = 1.0f;
    float r[3][3], b[3], h_phi_k = h_phi_1 / hh - 1.0f, factorial = 1.0f;
    for (int i = 0; i < order; i++) {
        for (int j = 0; j < order; j++) {
            r[i][j] = powf(rk[j], (float)i);
        }
        b[i] = h_phi_k * factorial / big_h;
        factorial *= (float)(i + 2);
        h_phi_k = h_phi_k / hh - 1.0f / factorial;
    }
    int unknowns = corrector ? order : order - 1;
    if (unknowns == 1) {
        rho[0] = 0.5f; /* order 1 corrector, order 2 predictor: the simplified form */
    } else if (unknowns > 1) {
        solve(r, b, unknowns, rho);
    }
    update u = {.sample = sigma_t / sigma_s, .m0 = -alpha_t * h_phi_1};
    float factor = alpha_t * big_h;
    for (int i = 0; i < order - 1; i++) {
        u.older[i] = -factor * rho[i] / rk[i];
        u.m0 += factor * rho[i] / rk[i];
    }
    if (corrector) {
        u.target = -factor * rho[order - 1];
        u.m0 += factor * rho[order - 1];
    }
    return u;
}

/* Ring slot of the prediction made at step i. */
static float *prediction(float *const *state, int i)
{
    return state[RING + i % RING_SIZE];
}

static void apply(const dk_sampler_math *math, const update *u, int order, int from,
                  const float *sample, const float *target, float *dst, float *const *state,
                  int64_t count)
{
    const float *terms[DK_SAMPLER_MAX_ORDER + 2] = {sample, prediction(state, from)};
    float coef[DK_SAMPLER_MAX_ORDER + 2] = {u->sample, u->m0};
    int n = 2;
    for (int i = 1; i < order; i++, n++) {
        terms[n] = prediction(state, from - i);
        coef[n] = u->older[i - 1];
    }
    if (target != NULL) {
        terms[n] = target;
        coef[n++] = u->target;
    }
    math->combine(math->context, dst, terms, coef, n, count);
}

static void step(dk_sampler *sampler, const dk_sampler_math *math, int i,
                 const float *model_out, float *latent, float *const *state, int64_t count)
{
    const float *flow[] = {latent, model_out};
    const float to_x0[] = {1.0f, -sampler->sigmas[i]}, one[] = {1.0f};
    float *newest = prediction(state, i);
    math->combine(math->context, newest, flow, to_x0, 2, count);
    if (i > 0 && sampler->memory.warm > 0 && !sampler->corrector_off[i - 1]) {
        update u = coefficients(sampler, i - 1, sampler->memory.used_order, true);
        apply(math, &u, sampler->memory.used_order, i - 1, state[LAST_SAMPLE], newest, latent,
              state, count);
    }
    int order = sampler->order;
    if (sampler->lower_order_final && sampler->steps - i < order) {
        order = sampler->steps - i;
    }
    order = sampler->memory.warm + 1 < order ? sampler->memory.warm + 1 : order;
    if (sampler->sigmas[i + 1] == 0) {
        order = 1; /* higher ones divide infinities: the reference gives no numbers there */
    }
    const float *sample[] = {latent};
    math->combine(math->context, state[LAST_SAMPLE], sample, one, 1, count);
    update u = coefficients(sampler, i, order, false);
    apply(math, &u, order, i, latent, NULL, latent, state, count);
    sampler->memory.used_order = order;
    sampler->memory.warm += sampler->memory.warm < sampler->order ? 1 : 0;
}

const dk_sampler_kind dk_sampler_unipc = {
    .name = "unipc",
    .class_name = "UniPCMultistepScheduler",
    .state_tensors = RING + RING_SIZE,
    .init = init,
    .step = step,
};
