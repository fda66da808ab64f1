/* What the parts of kernelcheck's program share beside kernelcheck.h. */
#ifndef DK_TESTS_KERNELCHECK_RUN_H
#define DK_TESTS_KERNELCHECK_RUN_H

#include "kernels/kernelcheck.h"

/* check: complain where the memory around them was written. */
void kc_release_blocks(kc *k, bool check);

typedef struct kc_options {
    uint64_t seed;
    const char *function; /* a pattern as of the shell, or NULL */
    const char *level;    /* or NULL: all */
    const char *device;   /* or NULL: kernels */
    bool exact;           /* of the device: f32 */
    const char *shapes;   /* a file of shapes */
    bool list, bench, json, brief;
} kc_options;

int kc_bench(const kc_options *options); /* the exit code */

#endif
