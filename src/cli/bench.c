/* darkroom bench: how fast single operations and whole models run, with random numbers. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/commands.h"
#include "darkroom/darkroom.h"
#include "device/cpu/cpu_device.h"

typedef struct bench_flag {
    const char *name, *value, *help; /* value NULL: a switch */
    size_t offset;
    bool text;
} bench_flag;

#define NUMBER(name, field, help)                                                              \
    {                                                                                          \
        name, "N", help, offsetof(dk_bench_flags, field), false                                \
    }
#define TEXT(name, value, field, help)                                                         \
    {                                                                                          \
        name, value, help, offsetof(dk_bench_flags, field), true                               \
    }

static const bench_flag flag_table[] = {
    NUMBER("m", m, "linear: rows (1800)"),
    NUMBER("n", n, "linear: columns (1536)"),
    NUMBER("k", k, "linear: depth (1536)"),
    NUMBER("heads", heads, "attention: heads (12)"),
    NUMBER("seq-len", seq_len, "attention: queries (4096)"),
    NUMBER("kv-len", kv_len, "attention: keys (as many as queries)"),
    NUMBER("head-dim", head_dim, "attention: size of a head (128)"),
    NUMBER("in-channels", in_channels, "conv2d, conv3d: channels in (96)"),
    NUMBER("out-channels", out_channels, "conv2d, conv3d: channels out (96)"),
    NUMBER("kernel", kernel, "conv2d, conv3d: height and width of the kernel (3)"),
    NUMBER("kernel-t", kernel_t, "conv3d: its extent in time (3)"),
    TEXT("config", "FOLDER", config, "model: folder with the components' config.json files"),
    TEXT("part", "NAME", part, "model: dit, vae, vae-encode or text (dit)"),
    TEXT("weights-dtype", "NAME", weights_dtype, "linear, model: bf16, f16 or f32 (bf16)"),
    NUMBER("width", width, "conv, model: pixels (480)"),
    NUMBER("height", height, "conv, model: pixels (320)"),
    NUMBER("num-frames", num_frames, "conv, model: frames (conv 1, model 9)"),
    NUMBER("tokens", tokens, "model: prompt tokens (512)"),
    TEXT("dtype", "NAME", dtype, "arithmetic: bf16 or f32 (bf16)"),
    TEXT("cpu", "LEVEL", cpu, "highest instruction set: c avx2 avx512 avx512bf16 amx"),
    NUMBER("threads", threads, "threads; 0: one per core"),
    NUMBER("repeats", repeats, "timed passes; 0: about a second of them"),
    {"json", NULL, "report as one JSON object", offsetof(dk_bench_flags, json), false},
    {"help", NULL, "this text", offsetof(dk_bench_flags, help), false},
};
enum { FLAGS = sizeof flag_table / sizeof *flag_table };

static const struct {
    const char *name;
    dk_status (*run)(const dk_bench_flags *flags, dk_error *err);
} benches[] = {
    {"linear", dk_bench_linear}, {"attention", dk_bench_attention}, {"conv2d", dk_bench_conv},
    {"conv3d", dk_bench_conv},   {"model", dk_bench_model},
};
enum { BENCHES = sizeof benches / sizeof *benches };

static dk_status set_flag(dk_bench_flags *flags, const bench_flag *flag, const char *value,
                          dk_error *err)
{
    void *field = (char *)flags + flag->offset;
    if (flag->text) {
        *(const char **)field = value;
        return DK_OK;
    }
    char *end;
    long number = strtol(value, &end, 10);
    if (end == value || *end != '\0' || number < 0 || number > 1 << 24) {
        return dk_fail(err, DK_INVALID, "--%s is '%s', accepted are 0 to %d", flag->name, value,
                       1 << 24);
    }
    *(int *)field = (int)number;
    return DK_OK;
}

static dk_status parse(dk_bench_flags *flags, int argc, char **argv, dk_error *err)
{
    for (int i = 0; i < argc; i++) {
        const bench_flag *flag = NULL;
        for (int f = 0; f < FLAGS && strncmp(argv[i], "--", 2) == 0; f++) {
            flag = strcmp(argv[i] + 2, flag_table[f].name) == 0 ? &flag_table[f] : flag;
        }
        if (flag == NULL) {
            return dk_fail(err, DK_INVALID, "unknown flag '%s', see darkroom bench --help",
                           argv[i]);
        }
        if (flag->value == NULL) {
            *(int *)((char *)flags + flag->offset) = 1;
        } else if (i + 1 == argc) {
            return dk_fail(err, DK_INVALID, "no value for '%s'", argv[i]);
        } else {
            DK_TRY(set_flag(flags, flag, argv[++i], err));
        }
    }
    return DK_OK;
}

static void help(void)
{
    printf("darkroom bench linear|attention|conv2d|conv3d|model [flags]\n\n");
    for (int i = 0; i < FLAGS; i++) {
        printf("  --%-14s %-7s %s\n", flag_table[i].name,
               flag_table[i].value != NULL ? flag_table[i].value : "", flag_table[i].help);
    }
    printf("\nExamples:\n"
           "  darkroom bench linear --m 1800 --n 1536 --k 8960 --json\n"
           "  darkroom bench attention --heads 12 --seq-len 4096 --head-dim 128\n"
           "  darkroom bench model --config tests/configs/wan2.1-t2v-1.3b --part vae "
           "--width 480 --height 320 --num-frames 9\n");
}

dk_status dk_bench_open_device(dk_device **out, const dk_bench_flags *flags, dk_error *err)
{
    const char *dtype = flags->dtype != NULL ? flags->dtype : "bf16";
    bool exact = strcmp(dtype, "f32") == 0;
    if (!exact && strcmp(dtype, "bf16") != 0) {
        return dk_fail(err, DK_INVALID, "--dtype is '%s', accepted are bf16, f32", dtype);
    }
    const dk_cpu_device_options options = {
        .threads = flags->threads, .level = flags->cpu, .exact = exact};
    return dk_cpu_device_open(out, &options, err);
}

static int by_size(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

dk_status dk_bench_time(dk_bench_times *out, int repeats, dk_bench_pass *pass, void *context,
                        dk_error *err)
{
    enum { LEAST = 3, MOST = 1000 };
    double start = dk_now_ms();
    DK_TRY(pass(context, err));
    double once = dk_now_ms() - start;
    if (repeats == 0) {
        repeats = once > 0 ? (int)(1000.0 / once) : MOST;
        repeats = repeats < LEAST ? LEAST : repeats > MOST ? MOST : repeats;
    }
    double *seconds = dk_alloc((size_t)repeats * sizeof *seconds);
    dk_status status = DK_OK;
    for (int i = 0; i < repeats && status == DK_OK; i++) {
        start = dk_now_ms();
        status = pass(context, err);
        seconds[i] = (dk_now_ms() - start) * 1e-3;
    }
    qsort(seconds, (size_t)repeats, sizeof *seconds, by_size);
    *out = (dk_bench_times){.median_s = seconds[repeats / 2],
                            .least_s = seconds[0],
                            .most_s = seconds[repeats - 1],
                            .repeats = repeats};
    dk_free(seconds);
    return status;
}

void dk_bench_report(json_t *facts, dk_device *device, const dk_bench_times *times,
                     double flops, bool json)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double peak_mb = (double)usage.ru_maxrss / 1024.0; /* before the roofline's panels */
    double gflops = flops / times->median_s * 1e-9, roofline = dk_bench_roofline_gflops(device);
    json_object_set_new(facts, "device", json_string(device->description));
    json_object_set_new(facts, "engine", json_string(dk_version()));
    json_object_set_new(facts, "seconds", json_real(times->median_s));
    json_object_set_new(facts, "seconds_least", json_real(times->least_s));
    json_object_set_new(facts, "seconds_most", json_real(times->most_s));
    json_object_set_new(facts, "repeats", json_integer(times->repeats));
    json_object_set_new(facts, "gflop", json_real(flops * 1e-9));
    json_object_set_new(facts, "gflops", json_real(gflops));
    json_object_set_new(facts, "roofline_gflops", json_real(roofline));
    json_object_set_new(facts, "roofline_share", json_real(gflops / roofline));
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

int dk_cli_bench(int argc, char **argv)
{
    dk_bench_flags flags = {0};
    dk_error err = {0};
    const char *what = argc > 0 && argv[0][0] != '-' ? argv[0] : "";
    bool named = what[0] != '\0';
    dk_status status = parse(&flags, argc - named, argv + named, &err);
    if (status == DK_OK && flags.help) {
        help();
        return 0;
    }
    int found = -1;
    for (int i = 0; i < BENCHES; i++) {
        found = strcmp(what, benches[i].name) == 0 ? i : found;
    }
    if (status == DK_OK && found < 0) {
        status =
            dk_fail(&err, DK_INVALID,
                    "bench '%s', accepted are linear, attention, conv2d, conv3d, model", what);
    }
    if (status == DK_OK) {
        flags.kernel_t =
            flags.kernel_t == 0 ? (strcmp(what, "conv3d") == 0 ? 3 : 1) : flags.kernel_t;
        status = benches[found].run(&flags, &err);
    }
    if (status != DK_OK) {
        fprintf(stderr, "darkroom: %s\n", err.message);
    }
    return dk_status_exit_code(status);
}
