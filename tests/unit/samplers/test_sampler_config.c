/* Scheduler configurations: what is absent defaults, what is not supported is named, and what
   is no schedule is refused. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "samplers/sampler.h"

enum { STEPS = 5 };

static dk_status create(dk_sampler **out, const char *text, const dk_sampler_options *options,
                        dk_error *err)
{
    json_t *config;
    assert_ok(dk_json_parse(&config, text, strlen(text), "text", err), *err);
    dk_status status = dk_sampler_create(out, config, options, "test", err);
    json_decref(config);
    return status;
}

static void assert_schedule(const dk_sampler *sampler, int steps)
{
    const float *sigmas = dk_sampler_sigmas(sampler), *times = dk_sampler_timesteps(sampler);
    assert_int_equal(dk_sampler_steps(sampler), steps);
    for (int i = 0; i < steps; i++) {
        assert_true(isfinite(sigmas[i]) && sigmas[i] > sigmas[i + 1] && sigmas[i] <= 1);
        assert_true(isfinite(times[i]) && times[i] >= 0);
    }
    assert_true(sigmas[steps] >= 0);
}

static void test_defaults(void **state)
{
    (void)state;
    static const char *const names[] = {"euler", "unipc", "dpm++"};
    static const int counts[] = {1, 2, 3, 50, 999};
    dk_error err;
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            dk_sampler *sampler = NULL;
            const dk_sampler_options options = {
                .name = names[i], .flow_shift = 3, .mu = NAN, .steps = counts[k]};
            assert_ok(create(&sampler,
                             "{\"use_flow_sigmas\": true, \"prediction_type\": "
                             "\"flow_prediction\", \"beta_schedule\": \"x\"}",
                             &options, &err),
                      err);
            assert_string_equal(dk_sampler_name(sampler), names[i]);
            assert_schedule(sampler, counts[k]);
            dk_sampler_destroy(&sampler);
            assert_null(sampler);
        }
        assert_non_null(strstr(dk_sampler_names(), names[i]));
    }
}

static void test_published(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "tests/configs/wan2.1-t2v-1.3b/scheduler/scheduler_config.json",
        "tests/configs/wan2.1-t2v-14b/scheduler/scheduler_config.json"};
    dk_error err;
    for (int i = 0; i < 2; i++) {
        json_t *config;
        dk_sampler *sampler;
        const dk_sampler_options options = {.flow_shift = NAN, .mu = NAN, .steps = STEPS};
        assert_ok(dk_json_load(&config, paths[i], DK_JSON_CONFIG_BYTES, &err), err);
        assert_ok(dk_sampler_create(&sampler, config, &options, paths[i], &err), err);
        assert_string_equal(dk_sampler_name(sampler), "unipc");
        assert_schedule(sampler, STEPS);
        dk_sampler_destroy(&sampler);
        json_decref(config);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *config, *says;
        dk_status status;
    } cases[] = {
        {NULL, "{}", "_class_name '' is not supported", DK_UNSUPPORTED},
        {NULL, "{\"_class_name\": \"DDIM\"}", "accepted are FlowMatchEuler", DK_UNSUPPORTED},
        {NULL, "{\"_class_name\": 5}", "expected a string", DK_FORMAT},
        {NULL, "[]", "expected an object", DK_FORMAT},
        {"ddim", "{}", "accepted are euler, unipc, dpm++", DK_INVALID},
        {"euler", "{\"use_beta_sigmas\": true}", "use_beta_sigmas", DK_UNSUPPORTED},
        {"euler", "{\"stochastic_sampling\": true}", "stochastic_sampling", DK_UNSUPPORTED},
        {"euler", "{\"num_train_timesteps\": 0}", "accepted are 2 to", DK_FORMAT},
        {"euler", "{\"shift\": 0}", "'shift' is 0", DK_FORMAT},
        {"euler", "{\"shift\": -1}", "'shift' is -1", DK_FORMAT},
        {"euler", "{\"shift\": \"3\"}", "expected a number", DK_FORMAT},
        {"euler", "{\"shift_terminal\": 1}", "shift_terminal", DK_FORMAT},
        {"euler", "{\"time_shift_type\": \"cubic\"}", "'exponential', 'linear'",
         DK_UNSUPPORTED},
        {"unipc", "{\"use_flow_sigmas\": false}", "use_flow_sigmas", DK_UNSUPPORTED},
        {"unipc", "{\"use_flow_sigmas\": true, \"solver_order\": 9}", "solver_order",
         DK_FORMAT},
        {"unipc", "{\"use_flow_sigmas\": true, \"solver_type\": \"bh3\"}", "solver_type",
         DK_UNSUPPORTED},
        {"unipc", "{\"use_flow_sigmas\": true, \"prediction_type\": \"epsilon\"}",
         "prediction_type", DK_UNSUPPORTED},
        {"unipc", "{\"use_karras_sigmas\": true}", "use_karras_sigmas", DK_UNSUPPORTED},
        {"dpm++", "{\"use_flow_sigmas\": true, \"algorithm_type\": \"sde\"}", "algorithm_type",
         DK_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_error err = {0};
        dk_sampler *sampler = NULL;
        const dk_sampler_options options = {
            .name = cases[i].name, .flow_shift = NAN, .mu = NAN, .steps = STEPS};
        dk_status status = create(&sampler, cases[i].config, &options, &err);
        if (status != cases[i].status || strstr(err.message, cases[i].says) == NULL) {
            fail_msg("%s: %s: %s", cases[i].config, dk_status_text(status), err.message);
        }
        assert_null(sampler);
    }
}

static void test_options(void **state)
{
    (void)state;
    dk_error err;
    dk_sampler *sampler = NULL;
    const double values[] = {1, 0.75, 0.5, 0.25, 0.1};
    const dk_sampler_options bad[] = {
        {.name = "euler", .flow_shift = 3, .steps = 0},
        {.name = "euler", .flow_shift = 3, .steps = -1},
        {.name = "euler", .flow_shift = 3, .steps = 1 << 30},
        {.name = "euler", .flow_shift = 0, .steps = STEPS},
        {.name = "euler", .flow_shift = -2, .steps = STEPS},
        {.name = "euler", .flow_shift = INFINITY, .steps = STEPS},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(create(&sampler, "{}", &bad[i], &err), DK_INVALID);
        assert_null(sampler);
    }
    const dk_sampler_options given = {
        .name = "euler", .flow_shift = 1, .mu = NAN, .steps = STEPS, .sigmas = values};
    assert_ok(create(&sampler, "{}", &given, &err), err);
    for (int i = 0; i < STEPS; i++) {
        assert_true(dk_sampler_sigmas(sampler)[i] == (float)values[i]);
    }
    dk_sampler_destroy(&sampler);
    const dk_sampler_options dynamic = {
        .name = "euler", .flow_shift = NAN, .mu = NAN, .steps = STEPS};
    assert_int_equal(create(&sampler, "{\"use_dynamic_shifting\": true}", &dynamic, &err),
                     DK_INVALID);
    assert_null(sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
