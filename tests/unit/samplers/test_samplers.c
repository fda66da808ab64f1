/* Samplers against diffusers' schedulers on a toy model: schedules, and every stored step. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden/golden.h"
#include "samplers/sampler.h"

enum { MOST_STATES = 8, MOST_STEPS = 50 };

static void combine(void *context, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count)
{
    (void)context;
    for (int64_t i = 0; i < count; i++) {
        float sum = 0;
        for (int t = 0; t < terms; t++) {
            sum += coef[t] * src[t][i];
        }
        dst[i] = sum;
    }
}

/* "v = sin(2 x) * (0.5 + t / 1000) + 0.3 cos(x)" */
static void toy_model(float *v, const float *x, float t, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        v[i] = sinf(2.0f * x[i]) * (0.5f + t / 1000.0f) + 0.3f * cosf(x[i]);
    }
}

static bool unsupported(const json_t *config)
{
    return json_is_true(json_object_get(config, "use_beta_sigmas")) ||
           json_is_true(json_object_get(config, "use_karras_sigmas"));
}

static void check_schedule(const char *name, const dk_sampler *sampler,
                           const dk_safetensors *file)
{
    int steps = dk_sampler_steps(sampler);
    const dk_tensor *timesteps = golden_tensor(file, "timesteps");
    assert_int_equal(dk_tensor_count(timesteps), steps);
    for (int i = 0; i < steps; i++) {
        float actual = dk_sampler_timesteps(sampler)[i];
        if (timesteps->dtype == DK_F32) {
            float expected = ((const float *)timesteps->data)[i];
            if (!(fabsf(actual - expected) <= 1e-6f * fabsf(expected))) {
                fail_msg("%s: timestep %d is %.9g, expected %.9g", name, i, (double)actual,
                         (double)expected);
            }
        } else {
            assert_int_equal(timesteps->dtype, DK_I32);
            assert_int_equal((int)actual, ((const int32_t *)timesteps->data)[i]);
        }
    }
    assert_close(name, dk_sampler_sigmas(sampler), golden_floats(file, "sigmas"), steps + 1, 0,
                 1e-6);
}

static int run_steps(const char *name, dk_sampler *sampler, const dk_safetensors *file)
{
    const dk_tensor *start = golden_tensor(file, "sample");
    int64_t count = dk_tensor_count(start);
    float *latent = test_calloc((size_t)count, sizeof *latent);
    float *model_out = test_calloc((size_t)count, sizeof *model_out);
    float *state[MOST_STATES];
    const dk_sampler_math math = {.combine = combine};
    int states = dk_sampler_state_tensors(sampler), compared = 0;
    assert_in_range(states, 0, MOST_STATES);
    for (int i = 0; i < states; i++) {
        state[i] = test_calloc((size_t)count, sizeof **state);
    }
    memcpy(latent, start->data, dk_tensor_bytes(start));
    for (int i = 0; i < dk_sampler_steps(sampler); i++) {
        char key[32];
        toy_model(model_out, latent, dk_sampler_timesteps(sampler)[i], count);
        dk_sampler_step(sampler, &math, i, model_out, latent, state, count);
        snprintf(key, sizeof key, "step.%d", i);
        if (dk_safetensors_find(file, key) != NULL) {
            /* The toy model amplifies rounding over 50 steps; a wrong term is off by 1e-2. */
            assert_close(name, latent, golden_floats(file, "%s", key), count, 1e-5, 1e-5);
            compared++;
        }
        for (int64_t k = 0; k < count; k++) {
            assert_true(isfinite(latent[k]));
        }
    }
    for (int i = 0; i < states; i++) {
        test_free(state[i]);
    }
    test_free(model_out);
    test_free(latent);
    return compared;
}

static void check_case(const json_t *one)
{
    const json_t *inputs = json_object_get(one, "inputs");
    const json_t *set = json_object_get(inputs, "set_timesteps");
    const char *name = json_string_value(json_object_get(one, "name"));
    json_t *config = json_deep_copy(json_object_get(inputs, "config"));
    json_object_set(config, "_class_name", json_object_get(inputs, "class"));
    double sigmas[MOST_STEPS];
    const json_t *given = json_object_get(set, "sigmas"), *mu = json_object_get(set, "mu");
    for (size_t i = 0; i < json_array_size(given); i++) {
        sigmas[i] = json_number_value(json_array_get(given, i));
    }
    dk_sampler_options options = {
        .flow_shift = NAN,
        .mu = mu != NULL ? json_number_value(mu) : NAN,
        .sigmas = given != NULL ? sigmas : NULL,
        .steps = (int)json_integer_value(json_object_get(inputs, "num_inference_steps"))};
    dk_error err;
    dk_sampler *sampler = NULL;
    dk_status status = dk_sampler_create(&sampler, config, &options, name, &err);
    if (unsupported(config) && status != DK_OK) {
        assert_int_equal(status, DK_UNSUPPORTED);
    } else {
        assert_ok(status, err);
        dk_safetensors *file =
            golden_open("schedulers", json_string_value(json_object_get(one, "file")));
        check_schedule(name, sampler, file);
        assert_true(run_steps(name, sampler, file) > 0);
        dk_sampler_reset(sampler);
        assert_true(run_steps(name, sampler, file) > 0);
        dk_safetensors_close(&file);
    }
    dk_sampler_destroy(&sampler);
    json_decref(config);
}

static void equal_the_reference(void **state)
{
    (void)state;
    json_t *cases = golden_cases("schedulers");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_case(json_array_get(cases, i));
    }
    json_decref(cases);
}

/* For many step counts and shifts: a timestep is truncated, so the last bit of its sigma
   decides. */
static void timesteps_equal_the_reference(void **state)
{
    (void)state;
    json_error_t problem;
    json_t *rows = json_load_file("tests/golden/schedulers/timesteps.json", 0, &problem);
    assert_non_null(rows);
    assert_true(json_array_size(rows) > 400);
    json_t *config = json_pack("{s:s, s:s, s:b}", "_class_name", "UniPCMultistepScheduler",
                               "prediction_type", "flow_prediction", "use_flow_sigmas", 1);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *expected = json_array_get(row, 2);
        int steps = (int)json_array_size(expected);
        const dk_sampler_options options = {.name = json_string_value(json_array_get(row, 0)),
                                            .flow_shift =
                                                json_real_value(json_array_get(row, 1)),
                                            .steps = steps,
                                            .mu = NAN};
        dk_error err;
        dk_sampler *sampler = NULL;
        assert_ok(dk_sampler_create(&sampler, config, &options, "timesteps", &err), err);
        for (int k = 0; k < steps; k++) {
            int actual = (int)dk_sampler_timesteps(sampler)[k];
            int wanted = (int)json_integer_value(json_array_get(expected, (size_t)k));
            if (actual != wanted) {
                fail_msg("%s, shift %g, %d steps: timestep %d is %d, expected %d", options.name,
                         options.flow_shift, steps, k, actual, wanted);
            }
        }
        dk_sampler_destroy(&sampler);
    }
    json_decref(config);
    json_decref(rows);
}

static void bad_input(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        dk_sampler_options options;
        dk_status status;
        const char *text;
    } cases[] = {
        {"{\"_class_name\": \"DDIMScheduler\"}",
         {NULL, NAN, 4, NAN, NULL},
         DK_UNSUPPORTED,
         "DDIMScheduler"},
        {"{\"_class_name\": \"UniPCMultistepScheduler\"}",
         {NULL, NAN, 0, NAN, NULL},
         DK_INVALID,
         "num_inference_steps"},
        {"{\"_class_name\": \"UniPCMultistepScheduler\"}",
         {NULL, -1, 4, NAN, NULL},
         DK_INVALID,
         "flow_shift"},
        {"{\"_class_name\": \"UniPCMultistepScheduler\"}",
         {"ddim", NAN, 4, NAN, NULL},
         DK_INVALID,
         "accepted are euler"},
        {"{\"_class_name\": \"UniPCMultistepScheduler\", \"prediction_type\": \"epsilon\"}",
         {NULL, NAN, 4, NAN, NULL},
         DK_UNSUPPORTED,
         "prediction_type"},
        {"{\"_class_name\": \"UniPCMultistepScheduler\", \"solver_order\": 9}",
         {NULL, NAN, 4, NAN, NULL},
         DK_FORMAT,
         "solver_order"},
        {"{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"shift\": 0}",
         {NULL, NAN, 4, NAN, NULL},
         DK_FORMAT,
         "shift"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_error err;
        dk_sampler *sampler = NULL;
        json_t *config = json_loads(cases[i].config, 0, NULL);
        dk_status status = dk_sampler_create(&sampler, config, &cases[i].options,
                                             "scheduler_config.json", &err);
        assert_int_equal(status, cases[i].status);
        assert_non_null(strstr(err.message, cases[i].text));
        assert_null(sampler);
        json_decref(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_the_reference),
        cmocka_unit_test(timesteps_equal_the_reference),
        cmocka_unit_test(bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
