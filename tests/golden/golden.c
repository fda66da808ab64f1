/* Reading and comparing reference tensors. */
#include "golden/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "kernels/cpu_flags.h"

dk_safetensors *golden_open(const char *family, const char *name)
{
    char path[512];
    dk_error err;
    dk_safetensors *file = NULL;
    snprintf(path, sizeof path, "tests/golden/%s/%s", family, name);
    assert_ok(dk_safetensors_open(&file, path, &err), err);
    return file;
}

json_t *golden_cases(const char *family)
{
    char path[512];
    dk_error err;
    json_t *all = NULL;
    snprintf(path, sizeof path, "tests/golden/%s/cases.json", family);
    assert_ok(dk_json_load(&all, path, DK_JSON_CONFIG_BYTES, &err), err);
    json_t *cases =
        json_is_array(all) ? json_incref(all) : json_incref(json_object_get(all, "cases"));
    json_decref(all);
    assert_true(json_array_size(cases) > 0);
    return cases;
}

static const dk_tensor *find(const dk_safetensors *file, const char *name)
{
    const dk_weight *weight = dk_safetensors_find(file, name);
    if (weight == NULL) {
        fail_msg("no tensor '%s' in the reference", name);
    }
    return &weight->tensor;
}

const dk_tensor *golden_tensor(const dk_safetensors *file, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return find(file, name);
}

const float *golden_floats(const dk_safetensors *file, const char *format, ...)
{
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const dk_tensor *tensor = find(file, name);
    assert_int_equal(tensor->dtype, DK_F32);
    return tensor->data;
}

double assert_close(const char *what, const float *actual, const float *expected, int64_t count,
                    double absolute, double relative)
{
    double largest = 0, worst = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        double difference = fabs((double)actual[i] - (double)expected[i]);
        if (!(difference <= worst)) {
            worst = difference;
            at = i;
        }
    }
    if (!(worst <= absolute + relative * largest)) {
        fail_msg("%s: value %lld of %lld is %.9g, expected %.9g (off by %.3g, allowed %.3g)",
                 what, (long long)at, (long long)count, (double)actual[at],
                 (double)expected[at], worst, absolute + relative * largest);
    }
    return worst;
}

double golden_rms(const float *actual, const float *expected, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = (double)actual[i] - (double)expected[i];
        sum += difference * difference;
    }
    return sqrt(sum / (double)count);
}

const char *golden_cpu_level(void)
{
    return getenv("DK_TEST_CPU");
}

const char *golden_device_name(void)
{
    const char *name = getenv("DK_TEST_DEVICE");
    return name != NULL && name[0] != '\0' ? name : "cpu";
}

dk_device *golden_device(bool exact)
{
    const dk_device_options options = {.name = golden_device_name(),
                                       .threads = 2,
                                       .level = golden_cpu_level(),
                                       .exact = exact};
    dk_device *device = NULL;
    dk_error err;
    assert_ok(dk_device_open(&device, &options, &err), err);
    return device;
}

float *golden_read(dk_device *device, const void *data, int64_t count)
{
    dk_error err;
    float *values = test_malloc((size_t)count * sizeof *values);
    dk_device_read(device, values, data, (size_t)count * sizeof *values);
    assert_ok(dk_device_sync(device, &err), err);
    return values;
}

bool golden_level_is_here(void)
{
    const char *level = golden_cpu_level();
    for (int i = 0; level != NULL && i < DK_CPU_LEVELS; i++) {
        if (strcmp(dk_cpu_levels[i].name, level) == 0) {
            unsigned flags = dk_cpu_levels[i].flags;
            return (dk_cpu_flags_detect() & flags) == flags;
        }
    }
    return level == NULL;
}
