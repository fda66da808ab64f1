/* darkroom bench: how fast single operations and whole models run, with random numbers, and how
   a server bears a load. */
#include "cli/bench.h"
#include "engine/rank_parameters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/arguments.h"
#ifdef DK_SERVING
#include "cli/bench_serve.h"
#endif
#include "cli/machine.h"
#include "darkroom/darkroom.h"

/* What only a build with the server says. */
#ifdef DK_SERVING
#define SERVE(text) text
#else
#define SERVE(text) ""
#endif

#define NUMBER(field, usual, line)                                                             \
    {                                                                                          \
        .name = #field, .type = DK_PARAMETER_INT, .offset = offsetof(dk_bench_flags, field),   \
        .max = 1 << 24, .default_text = usual, .help = line                                    \
    }
#define CHOICE(field, words, usual, line)                                                      \
    {                                                                                          \
        .name = #field, .type = DK_PARAMETER_CHOICE,                                           \
        .offset = offsetof(dk_bench_flags, field), .choices = words, .default_text = usual,    \
        .help = line                                                                           \
    }

static const dk_parameter parameters[] = {
    NUMBER(m, "1800", "linear: rows"),
    NUMBER(n, "1536", "linear: columns"),
    NUMBER(k, "1536", "linear: depth"),
    NUMBER(heads, "12", "attention: heads"),
    NUMBER(seq_len, "4096", "attention: queries"),
    NUMBER(kv_len, "as many as queries", "attention: keys"),
    NUMBER(head_dim, "128", "attention: size of a head"),
    NUMBER(in_channels, "96", "conv2d, conv3d: channels in"),
    NUMBER(out_channels, "96", "conv2d, conv3d: channels out"),
    NUMBER(kernel, "3", "conv2d, conv3d: height and width of the kernel"),
    NUMBER(kernel_t, "3", "conv3d: its extent in time"),
    {.name = "config",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(dk_bench_flags, config),
     .max = 4096,
     .unit = "FOLDER",
     .default_text = "none",
     .help = "model: folder with the components' config.json files"},
    CHOICE(part, "dit, vae, vae-encode, text", "dit", "model: which component"),
    CHOICE(weights_dtype, "bf16, f16, f32, f8_e4m3, f8_e5m2, i8", "bf16",
           "linear, model: type of the weights; i8: linear only"),
    NUMBER(width, "480", "conv2d, conv3d, model: pixels"),
    NUMBER(height, "320", "conv2d, conv3d, model: pixels"),
    NUMBER(num_frames, "1, model: 9", "conv2d, conv3d, model: frames"),
    NUMBER(tokens, "512", "model: prompt tokens"),
    CHOICE(dtype, "bf16, f32", "bf16", "arithmetic"),
    {.name = "device",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(dk_bench_flags, device),
     .max = 31,
     .unit = "cpu|xpu|xpu:N|xpu:cpu",
     .default_text = "cpu",
     .help = "where to compute"},
    CHOICE(cpu, "c, avx2, avxvnni, avx512, avx512bf16, amx", "what the processor has",
           "highest instruction set to use"),
    CHOICE(quantization, "none, int8, int8-weights, int4-weights, fp8-weights", "none",
           "model: quantises the transformer"),
    CHOICE(attention_backend, "auto, flash, fa3, sdpa, sage, reference", "auto",
           "attention, model: how attention is computed"),
    CHOICE(offload, "none, component, layers", "none",
           "model, xpu: weights that come and go as a whole or layer by layer"),
    NUMBER(offload_budget_mb, "0, a quarter of the weights", "model, xpu: memory of those"),
    {.name = "pin_cpu_memory",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_bench_flags, pin_cpu_memory),
     .default_text = "false",
     .help = "model, xpu: their copies on the host in memory that the device reads itself"},
    {.name = "wait",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_bench_flags, wait),
     .default_text = "false",
     .help = "model, xpu: wait for every operation, so that the seconds of each kind are its "
             "own; else they are the host's for enqueueing"},
    NUMBER(threads, "0", "threads; 0: one per core"),
    NUMBER(repeats, "0", "timed passes; 0: about a second of them"),
    {.name = "turns",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_bench_flags, turns),
     .default_text = "false",
     .help =
         "model: begin a pass, the one that warms up too, when a line comes on standard "
         "input, and print its seconds, so that several benches take turns; passes end with "
         "the input, after 1000 or --repeats of them at the latest"},
    {.name = "trace_path",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(dk_bench_flags, trace_path),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none",
     .help = "model: write what ran when, for Perfetto and tools/trace_overlap"},
    {.name = "json",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_bench_flags, json),
     .default_text = "false",
     .help = "report as one JSON object, a failure too"},
};

static const dk_parameter_table table = {
    .title = "What to measure",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

static const struct {
    const char *name;
    dk_status (*run)(const dk_bench_flags *flags, dk_error *err);
} benches[] = {
    {"linear", dk_bench_linear}, {"attention", dk_bench_attention}, {"conv2d", dk_bench_conv},
    {"conv3d", dk_bench_conv},   {"model", dk_bench_model},
};
enum { BENCHES = sizeof benches / sizeof *benches };

dk_status dk_bench_open_device(dk_device **out, const dk_bench_flags *flags, dk_error *err)
{
    const char *dtype = flags->dtype != NULL ? flags->dtype : "bf16";
    bool exact = strcmp(dtype, "f32") == 0;
    if (!exact && strcmp(dtype, "bf16") != 0) {
        return dk_fail(err, DK_INVALID, "--dtype is '%s', accepted are bf16, f32", dtype);
    }
    dk_device_options options = {.name = flags->device,
                                 .threads = flags->threads,
                                 .level = flags->cpu,
                                 .exact = exact,
                                 .trace = flags->trace};
    dk_residency_options *residency = &options.residency;
    const char *offload = flags->offload != NULL ? flags->offload : "none";
    residency->budget_bytes = (uint64_t)flags->offload_budget_mb * 1000 * 1000;
    residency->pin = flags->pin_cpu_memory;
    for (int i = 0; i < DK_COMPONENT_COUNT; i++) {
        residency->of[i] = strcmp(offload, "layers") == 0      ? DK_OFFLOAD_LAYERS
                           : strcmp(offload, "component") == 0 ? DK_OFFLOAD_COMPONENT
                                                               : DK_RESIDENT;
    }
    DK_TRY(dk_attention_backend_from_name(&options.attention, flags->attention_backend, exact,
                                          err));
    DK_TRY(dk_device_open(out, &options, err));
    (*out)->waits = flags->wait;
    return DK_OK;
}

dk_status dk_bench_weights_type(dk_dtype *out, const dk_bench_flags *flags, dk_error *err)
{
    const char *name = flags->weights_dtype != NULL ? flags->weights_dtype : "bf16";
    static const dk_dtype types[] = {DK_BF16, DK_F16, DK_F32, DK_F8_E4M3, DK_F8_E5M2, DK_I8};
    static const char *const names[] = {"bf16", "f16", "f32", "f8_e4m3", "f8_e5m2", "i8"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = types[i];
            return DK_OK;
        }
    }
    return dk_fail(err, DK_INVALID,
                   "--weights-dtype is '%s', accepted are bf16, f16, f32, f8_e4m3, f8_e5m2, i8",
                   name);
}

static int by_size(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

/* The next pass; *seconds: negative where there is to be none. */
static dk_status make_pass(double *seconds, const dk_bench_loop *loop, int number,
                           dk_error *err)
{
    bool more = true;
    *seconds = -1;
    if (loop->turn != NULL) {
        DK_TRY(loop->turn(loop->context, &more, err));
    }
    if (!more) {
        return DK_OK;
    }
    double start = dk_now_ms();
    DK_TRY(loop->pass(loop->context, err));
    *seconds = (dk_now_ms() - start) * 1e-3;
    if (loop->tells) {
        printf("{\"pass\":%d,\"seconds\":%.6f}\n", number, *seconds);
        fflush(stdout);
    }
    return DK_OK;
}

/* Where no number was asked for. */
static int passes_to_time(const dk_bench_loop *loop, double pass_s)
{
    enum { LEAST = 3, MOST = 1000 };
    int passes = loop->turn == NULL && pass_s > 0 ? (int)(1.0 / pass_s) : MOST;
    return passes < LEAST ? LEAST : passes > MOST ? MOST : passes;
}

dk_status dk_bench_time(dk_bench_times *out, const dk_bench_loop *loop, dk_error *err)
{
    double once;
    DK_TRY(make_pass(&once, loop, 0, err));
    int repeats = loop->repeats > 0 ? loop->repeats : passes_to_time(loop, once), made = 0;
    double *seconds = dk_alloc((size_t)repeats * sizeof *seconds);
    dk_status status = DK_OK;
    for (double last = once; made < repeats && status == DK_OK && last >= 0;) {
        status = make_pass(&last, loop, made + 1, err);
        if (status == DK_OK && last >= 0) {
            seconds[made++] = last;
        }
    }
    if (status == DK_OK && made == 0) {
        status = dk_fail(err, DK_INVALID,
                         "no pass was timed: the first one warms up, so that at least two have "
                         "to be asked for");
    }
    if (status == DK_OK) {
        qsort(seconds, (size_t)made, sizeof *seconds, by_size);
        *out = (dk_bench_times){.median_s = seconds[made / 2],
                                .least_s = seconds[0],
                                .most_s = seconds[made - 1],
                                .repeats = made};
    }
    dk_free(seconds);
    return status;
}

void dk_bench_report(json_t *facts, dk_device *device, const dk_bench_times *times,
                     double flops, bool int8, bool json)
{
    double peak_mb = dk_peak_memory_mb(); /* before the roofline's panels */
    double gflops = flops / times->median_s * 1e-9;
    json_object_set_new(facts, "device", json_string(device->description));
    json_object_set_new(facts, "engine", json_string(dk_version()));
    json_object_set_new(facts, "seconds", json_real(times->median_s));
    json_object_set_new(facts, "seconds_least", json_real(times->least_s));
    json_object_set_new(facts, "seconds_most", json_real(times->most_s));
    json_object_set_new(facts, "repeats", json_integer(times->repeats));
    json_object_set_new(facts, "gflop", json_real(flops * 1e-9));
    json_object_set_new(facts, "gflops", json_real(gflops));
    double roofline;
    if (strcmp(device->ops->kind, "cpu") == 0 &&
        dk_bench_roofline(&roofline, device, int8, NULL) == DK_OK) {
        json_object_set_new(facts, "roofline_gflops", json_real(roofline));
        json_object_set_new(facts, "roofline_share", json_real(gflops / roofline));
    }
    json_object_set_new(facts, "peak_memory_mb", json_real(peak_mb));
    if (json) {
        json_dumpf(facts, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        printf("\n");
    } else {
        const char *key;
        json_t *value;
        json_object_foreach(facts, key, value)
        {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(4));
            printf("%-18s %s\n", key, text);
            free(text);
        }
    }
    json_decref(facts);
}

/* Only a model has something to share out, and passes worth waiting for. */
static dk_status check_model_only(const dk_arguments *arguments, const char *what,
                                  dk_error *err)
{
    if (dk_arguments_has(arguments, "turns") && strcmp(what, "model") != 0) {
        return dk_fail(err, DK_INVALID, "turns is for bench model, not for bench %s", what);
    }
    for (int i = 0; i < dk_rank_parameters.count && strcmp(what, "model") != 0; i++) {
        const char *name = dk_rank_parameters.parameters[i].name;
        if (dk_arguments_has(arguments, name)) {
            return dk_fail(err, DK_INVALID, "%s is for bench model, not for bench %s", name,
                           what);
        }
    }
    return DK_OK;
}

static dk_status bench(const dk_arguments *arguments, dk_error *err)
{
    dk_bench_flags flags = {0};
    const char *what = arguments->positionals[0];
    DK_TRY(dk_arguments_apply(arguments, &table, &flags, err));
    flags.arguments = arguments;
#ifdef DK_SERVING
    if (strcmp(what, "serve") == 0) {
        DK_TRY(check_model_only(arguments, what, err));
        return dk_bench_serve(arguments, flags.json, err);
    }
#endif
    for (int i = 0; i < BENCHES; i++) {
        if (strcmp(what, benches[i].name) == 0) {
            DK_TRY(check_model_only(arguments, what, err));
            int extent = strcmp(what, "conv3d") == 0 ? 3 : 1;
            flags.kernel_t = flags.kernel_t == 0 ? extent : flags.kernel_t;
            return benches[i].run(&flags, err);
        }
    }
    return dk_fail(err, DK_INVALID,
                   "bench '%.100s', accepted are linear, attention, conv2d, conv3d, "
                   "model" SERVE(", serve"),
                   what);
}

static const dk_flag_group groups[] = {{&table, NULL},
#ifdef DK_SERVING
                                       {&dk_bench_serve_parameters, NULL},
#endif
                                       {&dk_rank_parameters, NULL},
                                       {0}};

const dk_command dk_command_bench = {
    .name = "bench",
    .usage = "linear|attention|conv2d|conv3d|model" SERVE("|serve") " [flags]",
    .summary = "Measures single operations and whole models on random numbers" SERVE(
        ", and a server under load") ".",
    .text = SERVE("bench serve sends requests to a `darkroom serve` that runs. Overhead is "
                  "what latency has\n"
                  "beyond the queue and the engine, as the server tells them."),
    .examples = "  darkroom bench linear --m 1800 --n 1536 --k 8960 --json\n"
                "  darkroom bench attention --heads 12 --seq-len 4096 --head-dim 128\n"
                "  darkroom bench model --config tests/configs/wan2.1-t2v-1.3b --part vae \\\n"
                "      --width 480 --height 320 --num-frames 9\n" SERVE(
                    "  darkroom bench serve --max-concurrency 8 --num-prompts 200\n"
                    "  darkroom bench serve --request-rate 5 --duration-s 60 \\\n"
                    "      --sizes 128x128x1:3,64x64x1:1 --slo-scale 3 --json\n"),
    .positionals_min = 1,
    .positionals_max = 1,
    .groups = groups,
    .run = bench,
};
