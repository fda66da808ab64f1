/* Stored reference tensors and how they are compared. */
#ifndef DK_TESTS_GOLDEN_GOLDEN_H
#define DK_TESTS_GOLDEN_GOLDEN_H

#include <jansson.h>

#include "device/device.h"
#include "test.h"
#include "weights/safetensors.h"

/* Opens tests/golden/<family>/<name>; fails the test when it cannot. */
dk_safetensors *golden_open(const char *family, const char *name);
json_t *golden_cases(const char *family); /* the "cases" array, owned by the caller */

/* A tensor that must be there. */
const dk_tensor *golden_tensor(const dk_safetensors *file, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const float *golden_floats(const dk_safetensors *file, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Fails when any value differs by more than absolute + relative * max |expected|; returns the
   largest difference. */
double assert_close(const char *what, const float *actual, const float *expected, int64_t count,
                    double absolute, double relative);
/* The instruction set to test, from the environment's DK_TEST_CPU; NULL: what the CPU has. A
   test of one that the CPU lacks ends with GOLDEN_SKIPPED. */
enum { GOLDEN_SKIPPED = 77 };
const char *golden_cpu_level(void);
bool golden_level_is_here(void);

/* The device to test, from the environment's DK_TEST_DEVICE; "cpu" without it. */
const char *golden_device_name(void);
/* Opens it; owned: dk_device_close. exact: f32 arithmetic throughout. */
dk_device *golden_device(bool exact);

/* count floats of the device's memory, copied; owned: test_free. */
float *golden_read(dk_device *device, const void *data, int64_t count);

double golden_rms(const float *actual, const float *expected, int64_t count);

#endif
