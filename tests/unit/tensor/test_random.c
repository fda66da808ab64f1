/* Random numbers against torch's CPU generator and the published Philox values. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "golden/golden.h"
#include "tensor/convert.h"
#include "tensor/random.h"

enum { MOST = 1200 };

static uint64_t seed_of(const json_t *value)
{
    return strtoull(json_string_value(value), NULL, 10);
}

/* Tensors are named <dtype>.<count>: fresh draws of that many values. */
static void check_fresh(const dk_safetensors *file, uint64_t seed, const char *dtype_name,
                        dk_dtype dtype, double tolerance)
{
    static const int counts[] = {1, 7, 15, 16, 17, 1000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        float values[MOST];
        uint16_t halves[MOST];
        dk_generator generator;
        dk_generator_init(&generator, DK_NOISE_TORCH_CPU, seed);
        if (dtype == DK_F32) {
            dk_generator_randn(&generator, values, counts[i]);
        } else {
            dk_generator_randn_as(&generator, halves, dtype, counts[i]);
            dk_convert_to_f32(values, halves, dtype, counts[i]);
        }
        assert_close(dtype_name, values, golden_floats(file, "%s.%d", dtype_name, counts[i]),
                     counts[i], tolerance, dtype == DK_F32 ? 0 : tolerance);
    }
}

/* One generator, several calls: a small draw leaves half a pair for the next small draw. */
static void check_consecutive(const dk_safetensors *file, uint64_t seed)
{
    static const int counts[] = {3, 5, 16, 1, 40};
    dk_generator generator;
    dk_generator_init(&generator, DK_NOISE_TORCH_CPU, seed);
    for (int i = 0; i < 5; i++) {
        float values[MOST];
        dk_generator_randn(&generator, values, counts[i]);
        assert_close("consecutive", values,
                     golden_floats(file, "consecutive.%d.%d", i, counts[i]), counts[i], 1e-6,
                     0);
    }
}

static void equals_torch(void **state)
{
    (void)state;
    json_t *cases = golden_cases("torch-generator");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i);
        const json_t *seed = json_object_get(json_object_get(one, "inputs"), "seed");
        const char *name = json_string_value(json_object_get(one, "name"));
        if (seed == NULL || strncmp(name, "seed_", 5) != 0) {
            continue;
        }
        dk_safetensors *file =
            golden_open("torch-generator", json_string_value(json_object_get(one, "file")));
        check_fresh(file, seed_of(seed), "float32", DK_F32, 1e-6);
        /* One unit in the last place of the largest value, about 4. */
        check_fresh(file, seed_of(seed), "bfloat16", DK_BF16, 0x1p-8);
        check_fresh(file, seed_of(seed), "float16", DK_F16, 0x1p-11);
        check_consecutive(file, seed_of(seed));
        dk_safetensors_close(&file);
    }
    json_decref(cases);
}

static void whole_tensors_equal_torch(void **state)
{
    (void)state;
    float values[MOST];
    dk_generator generator;
    dk_safetensors *file = golden_open("torch-generator", "shape_5d.safetensors");
    dk_generator_init(&generator, DK_NOISE_TORCH_CPU, 42);
    dk_generator_randn(&generator, values, 16 * 3 * 4 * 6);
    assert_close("shape_5d", values, golden_floats(file, "sample"), 16 * 3 * 4 * 6, 1e-6, 0);
    dk_safetensors_close(&file);
    file = golden_open("torch-generator", "list_of_generators.safetensors");
    static const uint64_t seeds[] = {0, 42};
    for (int i = 0; i < 2; i++) {
        dk_generator_init(&generator, DK_NOISE_TORCH_CPU, seeds[i]);
        dk_generator_randn(&generator, values + i * 60, 60);
    }
    assert_close("list_of_generators", values, golden_floats(file, "sample"), 120, 1e-6, 0);
    dk_safetensors_close(&file);
}

/* Philox4x32-10 of counter 0 and key 0 begins 6627e8d5 e169c58d (Random123's known answers):
   the normal that these two words give. */
static void philox_known_answer(void **state)
{
    (void)state;
    float value;
    dk_generator generator;
    dk_generator_init(&generator, DK_NOISE_PHILOX, 0);
    dk_generator_randn(&generator, &value, 1);
    double u = ((double)0x6627e8d5u + 0.5) * 0x1p-32, v = ((double)0xe169c58du + 0.5) * 0x1p-32;
    double expected = sqrt(-2 * log(u)) * sin(2 * 3.14159265358979 * v);
    assert_true(fabs((double)value - expected) < 1e-5);
}

static void philox_is_normal(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    float *values = test_malloc(COUNT * sizeof *values);
    dk_generator generator;
    dk_generator_init(&generator, DK_NOISE_PHILOX, 1234567890123);
    dk_generator_randn(&generator, values, COUNT);
    double sum = 0, squares = 0;
    for (int i = 0; i < COUNT; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    assert_true(fabs(sum / COUNT) < 0.02 && fabs(squares / COUNT - 1) < 0.02);
    test_free(values);
}

static void names(void **state)
{
    (void)state;
    dk_noise noise;
    assert_true(dk_noise_from_name(&noise, "philox") && noise == DK_NOISE_PHILOX);
    assert_true(dk_noise_from_name(&noise, "torch-cpu") && noise == DK_NOISE_TORCH_CPU);
    assert_false(dk_noise_from_name(&noise, "torch"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_torch),
        cmocka_unit_test(whole_tensors_equal_torch),
        cmocka_unit_test(philox_known_answer),
        cmocka_unit_test(philox_is_normal),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
