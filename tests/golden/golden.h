/* Stored reference tensors and how they are compared. */
#ifndef DK_TESTS_GOLDEN_GOLDEN_H
#define DK_TESTS_GOLDEN_GOLDEN_H

#include <jansson.h>

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

double golden_rms(const float *actual, const float *expected, int64_t count);

#endif
