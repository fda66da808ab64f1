/* What a request will take, without computing it: the stages run dry in a context of their own,
   so that this can happen beside a generation. */
#ifndef DK_PIPELINE_PLANNING_H
#define DK_PIPELINE_PLANNING_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dk_job dk_job;
typedef struct dk_wan_vae dk_wan_vae;

/* Kinds of work that are fast or slow in their own way. */
typedef enum dk_rate {
    DK_RATE_NONE,
    DK_RATE_TEXT,
    DK_RATE_IMAGE,
    DK_RATE_STEPS,
    DK_RATE_DECODING,
    DK_RATE_COUNT
} dk_rate;

/* Operations per second of each kind, written after stages and read by other threads; 0: not
   known. */
typedef struct dk_rates {
    _Atomic double per_second[DK_RATE_COUNT];
} dk_rates;

/* What was just measured counts half, what was known before the other half. */
void dk_rates_note(dk_rates *rates, dk_rate rate, double flops, double seconds);

struct dk_planning {
    dk_wan_vae *encoder; /* borrowed; bound, not packed; NULL when there is no picture */
    double flops[DK_RATE_COUNT]; /* of the whole request */
    double step_flops;
    uint64_t host_bytes;             /* beside the context's stacks and the device's scratch */
    uint64_t temp_bytes, keep_bytes; /* peaks of the stacks */
};
typedef struct dk_planning dk_planning;

/* Fills everything but `encoder`. job: a request, and a context over a device that only plans.
   Checks the request as dk_job_check does. */
DK_MUST_USE dk_status dk_job_plan(dk_job *job, dk_planning *planning, dk_error *err);

#endif
