/* Seconds and memory of a layout: a model's geometry on a machine. A model of costs, not a
   measurement: docs/parallel.md tells its assumptions and compares it with published figures.
 */
#ifndef DK_SCALING_COST_H
#define DK_SCALING_COST_H

#include "scaling/machine.h"
#include "scaling/traffic.h"

typedef struct dk_cost_options {
    dk_traffic_options traffic;
    int ranks_per_host;  /* 0: the machine's */
    bool pipelined;      /* calls run beside the computing, as this engine's do; else every
                            call but the ring's waits */
    bool streamed;       /* the transformer's weights come from the host in every pass */
    bool vae_split;      /* all ranks of a replica decode */
    bool text_elsewhere; /* text encoders take no memory of the device */
} dk_cost_options;

/* This engine in bf16. */
dk_cost_options dk_cost_options_usual(void);

typedef enum dk_cost_limit {
    DK_LIMIT_COMPUTE, /* the products */
    DK_LIMIT_ULYSSES,
    DK_LIMIT_RING,
    DK_LIMIT_TP,
    DK_LIMIT_STEP,    /* latents, at the end of a step */
    DK_LIMIT_WEIGHTS, /* gathered or streamed */
    DK_LIMIT_COUNT
} dk_cost_limit;
extern const char *const dk_cost_limit_names[DK_LIMIT_COUNT];

typedef struct dk_cost_memory {
    double weights, activations, vae, text; /* bytes of a rank; vae: weights and work */
} dk_cost_memory;

typedef struct dk_cost {
    dk_traffic traffic;             /* of the first rank, the one with the most rows */
    double compute_s;               /* of a step */
    double communication_s;         /* in calls, hidden ones included */
    double exposed[DK_LIMIT_COUNT]; /* seconds of a step by reason; COMPUTE is compute_s */
    double step_s;                  /* their sum */
    double around_s;                /* of a generation: text encoding and decoding */
    dk_cost_memory memory;
    bool fits;           /* into the machine's memory */
    dk_cost_limit limit; /* what most of the time beyond computing, or computing, goes to */
} dk_cost;

/* Whether a layout can work: DK_INVALID says why not. */
DK_MUST_USE dk_status dk_layout_check(const dk_layout *layout, const dk_geometry *geometry,
                                      dk_error *err);

/* The layout must have passed dk_layout_check. */
void dk_cost_of(dk_cost *out, const dk_geometry *geometry, const dk_machine *machine,
                const dk_layout *layout, const dk_cost_options *options);
double dk_cost_memory_bytes(const dk_cost_memory *memory);
/* Seconds of a generation of `steps`. */
double dk_cost_generation_s(const dk_cost *cost, int steps);

/* How long a rank sends `bytes` in an all_to_all, or to the next rank of a ring, of `ranks`
   that are `stride` apart, ranks_per_host on each of the hosts. */
double dk_cost_all_to_all_s(const dk_machine *machine, double bytes, int ranks, int stride,
                            int ranks_per_host);
double dk_cost_ring_s(const dk_machine *machine, double bytes, int ranks, int stride,
                      int ranks_per_host);

#endif
