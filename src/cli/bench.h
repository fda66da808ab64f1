/* Inside of `darkroom bench`: its flags, the timing loop and the report, shared by what it
   measures. */
#ifndef DK_CLI_BENCH_H
#define DK_CLI_BENCH_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/arguments.h"
#include "device/device.h"

/* Every flag of every bench; 0 and NULL where absent. */
typedef struct dk_bench_flags {
    const char *config, *part, *dtype, *device, *cpu, *weights_dtype, *attention_backend,
        *quantization, *offload;
    int offload_budget_mb;
    bool pin_cpu_memory, wait;
    int threads, repeats;
    bool turns, json;
    const char *trace_path;
    dk_trace *trace;                                 /* borrowed, of the device; NULL: none */
    const dk_arguments *arguments;                   /* borrowed: those of ranks */
    int m, n, k;                                     /* linear */
    int heads, seq_len, kv_len, head_dim;            /* attention */
    int in_channels, out_channels, kernel, kernel_t; /* conv */
    int width, height, num_frames;                   /* conv, model */
    int tokens;                                      /* model --part text */
} dk_bench_flags;

/* The device that the flags ask for; owned. */
DK_MUST_USE dk_status dk_bench_open_device(dk_device **out, const dk_bench_flags *flags,
                                           dk_error *err);

/* --weights-dtype; bf16 when absent. DK_I8 stands for weights that a device quantises. */
DK_MUST_USE dk_status dk_bench_weights_type(dk_dtype *out, const dk_bench_flags *flags,
                                            dk_error *err);

/* Runs one pass and reports failure. */
typedef dk_status dk_bench_pass(void *context, dk_error *err);

typedef struct dk_bench_times {
    double median_s, least_s, most_s;
    int repeats;
} dk_bench_times;

/* Whether there is to be one more pass, and when: it returns as the pass may begin. */
typedef dk_status dk_bench_turn(void *context, bool *more, dk_error *err);

typedef struct dk_bench_loop {
    dk_bench_pass *pass;
    void *context;
    int repeats; /* timed passes; 0: as many as fill a second, 3 to 1000, or 1000 turns */
    dk_bench_turn *turn; /* waited for before each pass, untimed; NULL: they do not wait */
    bool tells;          /* prints a line of JSON after each pass */
} dk_bench_loop;

/* One pass to warm up, then timed ones. */
DK_MUST_USE dk_status dk_bench_time(dk_bench_times *out, const dk_bench_loop *loop,
                                    dk_error *err);

/* GFLOP/s of the micro-kernel alone, its panels in the first-level cache, on all threads: what
   no operation can pass. int8: of the kernel of whole numbers. */
DK_MUST_USE dk_status dk_bench_roofline(double *gflops, dk_device *device, bool int8,
                                        dk_error *err);

/* Adds device, times and rates to what was measured and prints it, as text or as JSON. Takes
   the object. flops: of one pass; int8: which roofline it is compared with. */
void dk_bench_report(json_t *facts, dk_device *device, const dk_bench_times *times,
                     double flops, bool int8, bool json);

dk_status dk_bench_linear(const dk_bench_flags *flags, dk_error *err);
dk_status dk_bench_attention(const dk_bench_flags *flags, dk_error *err);
dk_status dk_bench_conv(const dk_bench_flags *flags, dk_error *err);
dk_status dk_bench_model(const dk_bench_flags *flags, dk_error *err);

#endif
