/* What devices and the links between them sustain, for the cost of layouts. Bandwidths are
   gigabytes (1e9 bytes) per second in one direction. */
#ifndef DK_SCALING_MACHINE_H
#define DK_SCALING_MACHINE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "scaling/geometry.h"

typedef struct dk_machine {
    const char *name, *source;
    double linear_tflops, attention_tflops; /* bf16, sustained in the step of a model */
    double conv_tflops;                     /* sustained while an autoencoder decodes */
    double memory_gb;                       /* of a device, for one rank */
    double memory_gbps;                     /* that it reads and writes at */
    double upload_gbps;                     /* from the host's memory into a device's */
    double link_gbps; /* what a rank sends to ranks of its host while all do the same */
    double call_us;   /* what a collective call costs whatever its size */
    double net_gbps;  /* what a host sends to other hosts, all its ranks together */
    double net_call_us;
    int ranks_per_host; /* usual */
    bool adds_parts;    /* attention adds parts of the keys up by itself, as on CPUs */
} dk_machine;

extern const dk_machine dk_machine_presets[];
extern const int dk_machine_preset_count;
/* NULL when there is none of that name. */
const dk_machine *dk_machine_preset_find(const char *name);

/* Both throughputs become what lets one rank take `seconds` for a step: from a published or
   measured figure of the very model. DK_INVALID when no throughput does. */
DK_MUST_USE dk_status dk_machine_calibrate(dk_machine *machine, const dk_geometry *geometry,
                                           double seconds, dk_error *err);

/* Takes link_gbps and call_us from the report of `darkroom comm-test --json`; what it does not
   tell stays. Looked for anywhere in the report: objects with "call" (or "op"), "bytes" and a
   time, "latency_us" (or "seconds", "ms", "us"); those with "correct": false are left out. Of
   the calls all_to_all counts, else shift, else all_gather: its shortest time is the cost of a
   call, the most that a rank sends per further second the bandwidth. A rank sends "bus_gbs"
   times the time; without that "bytes". Nothing of use is DK_FORMAT. */
DK_MUST_USE dk_status dk_machine_measured(dk_machine *machine, const json_t *report,
                                          const char *where, dk_error *err);

#endif
