/* Sigma schedules of flow matching: Esser et al., "Scaling Rectified Flow Transformers" (2024)
   for the shift, as diffusers 0.42 computes it. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "samplers/sampler_kind.h"

dk_status dk_schedule_parse(dk_schedule *out, const json_t *config, const char *shift_key,
                            const dk_sampler_options *options, const char *where, dk_error *err)
{
    dk_schedule s = {.num_train_timesteps = 1000, .shift = 1, .mu = NAN, .terminal = NAN};
    bool dynamic = false;
    static const char *const types[] = {"exponential", "linear", NULL};
    int type = 0;
    DK_TRY(dk_json_double(config, "num_train_timesteps", 2, 1e9, 0, &s.num_train_timesteps,
                          where, err));
    DK_TRY(dk_json_double(config, shift_key, 1e-6, 1e6, 0, &s.shift, where, err));
    DK_TRY(dk_json_bool(config, "use_dynamic_shifting", 0, &dynamic, where, err));
    DK_TRY(dk_json_double(config, "shift_terminal", 0, 0.999999, DK_JSON_NULL_IS_ABSENT,
                          &s.terminal, where, err));
    DK_TRY(dk_sampler_choice(config, "time_shift_type", types, &type, where, err));
    s.linear_shift = type == 1;
    if (s.terminal == 0) {
        s.terminal = NAN;
    }
    if (!isnan(options->flow_shift)) {
        s.shift = options->flow_shift;
        dynamic = false;
    }
    if (dynamic && isnan(options->mu)) {
        return dk_fail(err, DK_INVALID,
                       "%s: use_dynamic_shifting is set, but the pipeline gives no mu", where);
    }
    s.mu = dynamic ? options->mu : NAN;
    *out = s;
    return DK_OK;
}

/* The result of one operation: rounding it to f32 gives what f32 arithmetic gives. */
static double rounded(const dk_schedule *schedule, double value)
{
    return schedule->single ? (double)(float)value : value;
}

double dk_linspace(double first, double last, int count, int i)
{
    double step = (last - first) / (count - 1);
    return i == count - 1 ? last : i * step + first;
}

double dk_schedule_shift(const dk_schedule *schedule, double sigma)
{
    const dk_schedule *s = schedule;
    sigma = rounded(s, sigma);
    if (isnan(s->mu)) {
        double above = rounded(s, s->shift * sigma);
        return rounded(s, above / rounded(s, 1 + rounded(s, (s->shift - 1) * sigma)));
    }
    double mu = s->linear_shift ? s->mu : exp(s->mu);
    double odds = rounded(s, rounded(s, 1 / sigma) - 1);
    return rounded(s, rounded(s, mu) / rounded(s, rounded(s, mu) + odds));
}

void dk_schedule_stretch(const dk_schedule *schedule, double *sigmas, int steps)
{
    if (!isnan(schedule->terminal)) {
        double last = rounded(schedule, 1 - sigmas[steps - 1]);
        double scale = rounded(schedule, last / rounded(schedule, 1 - schedule->terminal));
        for (int i = 0; i < steps; i++) {
            double part = rounded(schedule, rounded(schedule, 1 - sigmas[i]) / scale);
            sigmas[i] = rounded(schedule, 1 - part);
        }
    }
}

void dk_sampler_set(dk_sampler *sampler, const dk_schedule *schedule, const double *sigmas,
                    int steps, double last, bool truncate)
{
    sampler->steps = steps;
    sampler->timesteps = dk_alloc((size_t)steps * sizeof *sampler->timesteps);
    sampler->sigmas = dk_alloc(((size_t)steps + 1) * sizeof *sampler->sigmas);
    for (int i = 0; i < steps; i++) {
        sampler->sigmas[i] = (float)sigmas[i];
        sampler->timesteps[i] = truncate
                                    ? (float)trunc(sigmas[i] * schedule->num_train_timesteps)
                                    : sampler->sigmas[i] * (float)schedule->num_train_timesteps;
    }
    sampler->sigmas[steps] = (float)last;
}

dk_status dk_sampler_choice(const json_t *config, const char *key, const char *const *accepted,
                            int *index, const char *where, dk_error *err)
{
    const char *value = NULL;
    DK_TRY(dk_json_string(config, key, DK_JSON_NULL_IS_ABSENT, &value, where, err));
    for (int i = 0; value != NULL && accepted[i] != NULL; i++) {
        if (strcmp(value, accepted[i]) == 0) {
            *index = i;
            return DK_OK;
        }
    }
    if (value == NULL) {
        return DK_OK;
    }
    return dk_fail(err, DK_UNSUPPORTED, "%s: %s '%s' is not supported, accepted are '%s'%s%s%s",
                   where, key, value, accepted[0], accepted[1] != NULL ? ", '" : "",
                   accepted[1] != NULL ? accepted[1] : "", accepted[1] != NULL ? "'" : "");
}

dk_status dk_sampler_refuse(const json_t *config, const char *const *keys, const char *where,
                            dk_error *err)
{
    for (int i = 0; keys[i] != NULL; i++) {
        bool on = false;
        DK_TRY(dk_json_bool(config, keys[i], DK_JSON_NULL_IS_ABSENT, &on, where, err));
        if (on) {
            return dk_fail(err, DK_UNSUPPORTED, "%s: %s is not supported, accepted is false",
                           where, keys[i]);
        }
    }
    return DK_OK;
}
