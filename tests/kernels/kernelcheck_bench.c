/* Times the composed operations on one core, for the shapes of a file, and compares them with
   what the same core reaches: the micro-kernel on operands in the first-level cache (GFLOP/s),
   or a copy of 64 MiB (GB/s). `darkroom bench` measures whole devices. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "kernels/cpu_flags.h"
#include "kernels/elementwise.h"
#include "kernels/kernelcheck_run.h"
#include "kernels/norm.h"
#include "tensor/convert.h"

enum { MOST_NUMBERS = 10, MOST_RUNS = 7, MOST_OPERANDS = 8, FRAMES = 8 };
static const double ENOUGH_MS = 1500.0;

typedef struct bench {
    const kc_options *options;
    const char *level;
    dk_linear_kernels linear;
    dk_attention_kernels attention;
    dk_norm_kernels norm;
    dk_elementwise_kernels elementwise;
    double peak_gflops, peak_gbytes;
    int64_t numbers[MOST_NUMBERS]; /* of the line at work */
    dk_dtype weight_type;
    void *operands[MOST_OPERANDS]; /* freed after the line */
    int operand_count;
} bench;

/* An operation that is ready to run. */
typedef struct work {
    double flops, bytes;
    void (*run)(const bench *b, const struct work *w);
    dk_linear_args linear;
    dk_linear_plan linear_plan;
    dk_attention_args attention;
    dk_attention_plan attention_plan;
    dk_conv_args conv;
    dk_conv_plan conv_plan;
    const void *frames[FRAMES];
    dk_norm_args norm;
    dk_norm_rope_args rope;
    void *shared, *scratch;
} work;

static void *memory(bench *b, size_t bytes)
{
    void *out = NULL;
    if (dk_try_alloc(&out, bytes + 1, "bench operands", NULL) != DK_OK) {
        fprintf(stderr, "kernelcheck: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    b->operands[b->operand_count++] = out;
    return out;
}

static void *values(bench *b, dk_dtype type, int64_t count)
{
    size_t width = dk_dtype_bytes(type);
    char *out = memory(b, (size_t)count * width);
    for (int64_t i = 0; i < count; i++) {
        float x = (float)(i * 7919 % 1009) / 1009.0f - 0.5f;
        dk_convert_from_f32(out + (size_t)i * width, type, &x, 1);
    }
    return out;
}

static void run_linear(const bench *b, const work *w)
{
    const dk_linear_plan *plan = &w->linear_plan;
    for (int pass = 0; pass < plan->passes; pass++) {
        for (int task = 0; task < dk_linear_pack_tasks(plan, pass); task++) {
            dk_linear_pack(&b->linear, plan, &w->linear, pass, task, w->shared, w->scratch);
        }
        for (int task = 0; task < plan->cut.tasks; task++) {
            dk_linear_block(&b->linear, plan, &w->linear, pass, task, w->shared, w->scratch);
        }
    }
}

static void set_linear(bench *b, work *w)
{
    int64_t rows = b->numbers[0], cols = b->numbers[1], depth = b->numbers[2];
    size_t width = dk_dtype_bytes(b->weight_type);
    w->linear = (dk_linear_args){.rows = rows,
                                 .cols = cols,
                                 .depth = depth,
                                 .src = values(b, DK_BF16, rows * depth),
                                 .src_type = DK_BF16,
                                 .src_stride = depth,
                                 .weight = values(b, b->weight_type, cols * depth),
                                 .weight_type = b->weight_type,
                                 .dst = memory(b, (size_t)(rows * cols) * 2),
                                 .dst_type = DK_BF16,
                                 .dst_stride = cols};
    dk_linear_plan_init(&w->linear_plan, &b->linear, &w->linear, false, 1);
    w->shared = memory(b, w->linear_plan.shared_bytes);
    w->scratch = memory(b, w->linear_plan.scratch_bytes);
    w->bytes = (double)cols * (double)depth * (double)width;
    w->flops = w->linear_plan.small ? 0 : 2.0 * (double)(rows * cols) * (double)depth;
    w->run = run_linear;
}

static void run_attention(const bench *b, const work *w)
{
    for (int task = 0; task < w->attention.heads * w->attention_plan.pack_blocks; task++) {
        dk_attention_pack(&b->attention, &w->attention_plan, &w->attention, task, w->shared,
                          w->scratch);
    }
    for (int task = 0; task < w->attention_plan.cut.tasks; task++) {
        dk_attention_block(&b->attention, &w->attention_plan, &w->attention, task, w->shared,
                           w->scratch);
    }
}

static void set_attention(bench *b, work *w)
{
    int64_t heads = b->numbers[0], q = b->numbers[1], kv = b->numbers[2];
    int64_t head_dim = b->numbers[3], row = heads * head_dim;
    w->attention = (dk_attention_args){.heads = (int)heads,
                                       .head_dim = (int)head_dim,
                                       .q_len = q,
                                       .kv_len = kv,
                                       .q = values(b, DK_BF16, q * row),
                                       .k = values(b, DK_BF16, kv * row),
                                       .v = values(b, DK_BF16, kv * row),
                                       .type = DK_BF16,
                                       .q_stride = row,
                                       .k_stride = row,
                                       .v_stride = row,
                                       .dst_stride = row,
                                       .scale = 0.1f,
                                       .dst = memory(b, (size_t)(q * row) * 2)};
    dk_attention_plan_init(&w->attention_plan, &b->attention, &w->attention, DK_ATTENTION_FLASH,
                           1);
    w->shared = memory(b, w->attention_plan.packed_bytes);
    w->scratch = memory(b, w->attention_plan.scratch_bytes);
    w->flops = 4.0 * (double)q * (double)kv * (double)row;
    w->run = run_attention;
}

static void run_conv(const bench *b, const work *w)
{
    for (int task = 0; task < w->conv_plan.tasks; task++) {
        dk_conv_block(&w->conv_plan, &b->linear, &w->conv, task, w->scratch);
    }
}

static void set_conv(bench *b, work *w)
{
    const int64_t *n = b->numbers;
    int in = (int)n[0], out = (int)n[1], height = (int)n[2], width = (int)n[3];
    int taps = (int)(n[4] * n[5] * n[6]), stride = (int)n[7], upsample = (int)n[8];
    int out_height = height * upsample / stride, out_width = width * upsample / stride;
    int64_t pixels = (int64_t)out_height * out_width * n[9];
    const dk_gemm_kernel *kernel = &b->linear.gemm.bf16;
    const void *frame = values(b, DK_BF16, (int64_t)height * width * in);
    for (int i = 0; i < FRAMES; i++) {
        w->frames[i] = frame;
    }
    const void *weight = values(b, DK_BF16, (int64_t)out * in * taps);
    void *packed = memory(b, dk_conv_packed_bytes(kernel, out, in, taps));
    const dk_conv_weight stored = {weight, DK_BF16, out, in, taps};
    dk_conv_pack_weight(packed, kernel, &b->linear.decode, &stored);
    w->conv = (dk_conv_args){.frames = w->frames,
                             .src_type = DK_BF16,
                             .height = height,
                             .width = width,
                             .in_channels = in,
                             .kernel_t = (int)n[4],
                             .kernel_h = (int)n[5],
                             .kernel_w = (int)n[6],
                             .stride_t = 1,
                             .stride = stride,
                             .pad_top = (int)n[5] / 2,
                             .pad_left = (int)n[6] / 2,
                             .upsample = upsample,
                             .packed_weight = packed,
                             .dst = memory(b, (size_t)(pixels * out) * 2),
                             .dst_type = DK_BF16,
                             .dst_frame_stride = (int64_t)out_height * out_width * out,
                             .out_frames = (int)n[9],
                             .out_height = out_height,
                             .out_width = out_width,
                             .out_channels = out};
    dk_conv_plan_init(&w->conv_plan, kernel, &w->conv, 1);
    w->scratch = memory(b, w->conv_plan.scratch_bytes);
    w->flops = 2.0 * (double)pixels * out * in * taps;
    w->run = run_conv;
}

static void run_norm(const bench *b, const work *w)
{
    b->norm.norm(&w->norm, 0, w->norm.rows);
}

static void set_norm(bench *b, work *w)
{
    int64_t rows = b->numbers[0], cols = b->numbers[1];
    w->norm = (dk_norm_args){.rows = rows,
                             .cols = cols,
                             .src = values(b, DK_F32, rows * cols),
                             .src_type = DK_F32,
                             .dst = memory(b, (size_t)(rows * cols) * 2),
                             .dst_type = DK_BF16,
                             .scale = values(b, DK_F32, cols),
                             .shift = values(b, DK_F32, cols),
                             .eps = 1e-6f};
    w->bytes = (double)(rows * cols) * 6.0;
    w->run = run_norm;
}

static void run_norm_rope(const bench *b, const work *w)
{
    b->norm.norm_rope(&w->rope, 0, w->rope.rows);
}

static void set_norm_rope(bench *b, work *w)
{
    int64_t rows = b->numbers[0], heads = b->numbers[1], head_dim = b->numbers[2];
    int64_t row = heads * head_dim;
    w->rope = (dk_norm_rope_args){.rows = rows,
                                  .heads = (int)heads,
                                  .head_dim = (int)head_dim,
                                  .data = values(b, DK_BF16, rows * row),
                                  .type = DK_BF16,
                                  .stride = row,
                                  .weight = values(b, DK_F32, row),
                                  .eps = 1e-6f,
                                  .cos = values(b, DK_F32, rows * head_dim / 2),
                                  .sin = values(b, DK_F32, rows * head_dim / 2)};
    w->bytes = (double)(rows * row) * 4.0;
    w->run = run_norm_rope;
}

static void run_map(const bench *b, const work *w)
{
    b->elementwise.map(w->shared, DK_BF16, w->scratch, DK_F32, DK_ACT_SILU, b->numbers[0]);
}

static void set_map(bench *b, work *w)
{
    w->scratch = values(b, DK_F32, b->numbers[0]);
    w->shared = memory(b, (size_t)b->numbers[0] * 2);
    w->bytes = (double)b->numbers[0] * 6.0;
    w->run = run_map;
}

static void run_combine(const bench *b, const work *w)
{
    static const float coef[DK_COMBINE_MAX_TERMS] = {0.5f, -0.25f, 0.125f, 1.0f, 2.0f};
    const float *src[DK_COMBINE_MAX_TERMS];
    for (int t = 0; t < DK_COMBINE_MAX_TERMS; t++) {
        src[t] = (const float *)w->scratch + t * b->numbers[1];
    }
    b->elementwise.combine(w->shared, src, coef, (int)b->numbers[0], b->numbers[1]);
}

static void set_combine(bench *b, work *w)
{
    w->scratch = values(b, DK_F32, DK_COMBINE_MAX_TERMS * b->numbers[1]);
    w->shared = memory(b, (size_t)b->numbers[1] * sizeof(float));
    w->bytes = (double)(b->numbers[0] + 1) * (double)b->numbers[1] * 4.0;
    w->run = run_combine;
}

static const struct operation {
    const char *name;
    int numbers;
    void (*set)(bench *b, work *w);
} operations[] = {
    {"linear", 3, set_linear},   {"attention", 4, set_attention}, {"conv", 10, set_conv},
    {"norm", 2, set_norm},       {"norm_rope", 3, set_norm_rope}, {"map", 1, set_map},
    {"combine", 2, set_combine},
};

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Runs once unmeasured, then until MOST_RUNS or ENOUGH_MS; *spread: (slowest - fastest) /
   median. */
static double median_ms(const bench *b, const work *w, double *spread)
{
    double times[MOST_RUNS], spent = 0;
    int runs = 0;
    w->run(b, w);
    while (runs < MOST_RUNS && (runs < 1 || spent < ENOUGH_MS)) {
        double start = dk_now_ms();
        w->run(b, w);
        times[runs] = dk_now_ms() - start;
        spent += times[runs++];
    }
    qsort(times, (size_t)runs, sizeof *times, compare_times);
    *spread = (times[runs - 1] - times[0]) / times[runs / 2];
    return times[runs / 2];
}

static void report(const bench *b, const char *line, double ms, double spread, const work *w)
{
    bool computing = w->flops > 0;
    double rate = (computing ? w->flops : w->bytes) / ms * 1e-6;
    double share = rate / (computing ? b->peak_gflops : b->peak_gbytes);
    if (b->options->json) {
        printf(
            "{\"shape\": \"%s\", \"level\": \"%s\", \"kernel\": \"%s\", \"median_ms\": %.4f, "
            "\"spread\": %.3f, \"%s\": %.2f, \"roofline_share\": %.3f}\n",
            line, b->level, b->linear.gemm.bf16.name, ms, spread,
            computing ? "gflops" : "gbytes_per_s", rate, share);
    } else {
        printf("%-36s %10.3f ms  +-%4.1f %%  %8.1f %s  %5.1f %% of the roofline\n", line, ms,
               50.0 * spread, rate, computing ? "GFLOP/s" : "GB/s   ", 100.0 * share);
    }
    fflush(stdout);
}

static void release(bench *b)
{
    while (b->operand_count > 0) {
        dk_free(b->operands[--b->operand_count]);
    }
}

/* What one core reaches: best of several short runs. Zeros would run faster than numbers. */
static void measure_roofline(bench *b)
{
    enum { DEPTH = 256, TILES = 20000, TRIES = 12, COPY = 64 << 20 };
    const dk_gemm_kernel *kernel = &b->linear.gemm.bf16;
    const dk_gemm_a a = {.data = memory(b, (size_t)dk_gemm_a_bytes(kernel, kernel->mr, DEPTH)),
                         .ld = kernel->mr,
                         .k = DEPTH,
                         .parts = 1};
    void *panel = memory(b, (size_t)dk_gemm_b_bytes(kernel, DEPTH));
    float *c = memory(b, (size_t)(kernel->mr * kernel->nr) * sizeof *c);
    char *from = memory(b, COPY), *to = memory(b, COPY);
    memset((char *)(uintptr_t)a.data, 0x3c, (size_t)dk_gemm_a_bytes(kernel, kernel->mr, DEPTH));
    memset(panel, 0x3c, (size_t)dk_gemm_b_bytes(kernel, DEPTH));
    memset(from, 1, COPY);
    for (int i = 0; i < TRIES; i++) {
        double start = dk_now_ms();
        dk_gemm_begin(kernel);
        for (int tile = 0; tile < TILES; tile++) {
            kernel->tile(c, kernel->nr, &a, 0, panel, false);
        }
        dk_gemm_end(kernel);
        double flops = 2.0 * kernel->mr * kernel->nr * (double)DEPTH * TILES;
        double gflops = flops / (dk_now_ms() - start) * 1e-6;
        start = dk_now_ms();
        memcpy(to, from, COPY);
        double gbytes = 2.0 * COPY / (dk_now_ms() - start) * 1e-6;
        b->peak_gflops = gflops > b->peak_gflops ? gflops : b->peak_gflops;
        b->peak_gbytes = gbytes > b->peak_gbytes ? gbytes : b->peak_gbytes;
    }
    release(b);
}

/* The numbers behind a line's name, and the weights' type where it ends with one. */
static int parse_numbers(bench *b, const char *text)
{
    char type[16];
    int count = 0, used = 0;
    b->weight_type = DK_BF16;
    while (count < MOST_NUMBERS) {
        char *end;
        long long value = strtoll(text, &end, 10);
        if (end == text || value <= 0 || value > INT32_MAX) {
            break;
        }
        b->numbers[count++] = value;
        text = end;
    }
    if (sscanf(text, " %15s %n", type, &used) == 1 &&
        (!dk_dtype_from_name(&b->weight_type, type) || text[used] != '\0')) {
        return -1;
    }
    return count;
}

/* False: the line is not understood. */
static bool run_line(bench *b, char *line)
{
    char name[32];
    int used = 0;
    line[strcspn(line, "#\n")] = '\0';
    if (sscanf(line, "%31s %n", name, &used) != 1) {
        return true;
    }
    for (int i = 0; i < KC_COUNT(operations); i++) {
        const struct operation *op = &operations[i];
        if (strcmp(op->name, name) != 0) {
            continue;
        }
        if (parse_numbers(b, line + used) != op->numbers) {
            return false;
        }
        if (b->options->function == NULL || fnmatch(b->options->function, name, 0) == 0) {
            work w = {0};
            double spread;
            op->set(b, &w);
            double ms = median_ms(b, &w, &spread);
            report(b, line, ms, spread, &w);
            release(b);
        }
        return true;
    }
    return false;
}

static int run_file(bench *b, const char *path)
{
    char line[256];
    int number = 0, code = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "kernelcheck: '%s' cannot be read, expected a file of shapes\n", path);
        return 2;
    }
    while (code == 0 && fgets(line, sizeof line, file) != NULL) {
        number++;
        if (!run_line(b, line)) {
            fprintf(
                stderr,
                "%s:%d: '%s' is not understood, expected an operation and its numbers as in "
                "tests/kernels/shapes\n",
                path, number, line);
            code = 2;
        }
    }
    fclose(file);
    return code;
}

int kc_bench(const kc_options *options)
{
    bench b = {.options = options};
    unsigned flags = dk_cpu_flags_detect();
    if (options->level != NULL && !dk_cpu_flags_cap(&flags, options->level)) {
        fprintf(stderr,
                "--cpu is '%s', accepted are c, avx2, avxvnni, avx512, avx512bf16, amx\n",
                options->level);
        return 2;
    }
    b.level = dk_cpu_flags_name(flags);
    dk_linear_kernels_init(&b.linear, flags);
    dk_attention_kernels_init(&b.attention, flags);
    dk_norm_kernels_init(&b.norm, flags);
    dk_elementwise_kernels_init(&b.elementwise, flags);
    measure_roofline(&b);
    if (!options->json) {
        printf("level %s, one core: %s reaches %.1f GFLOP/s, a copy %.1f GB/s\n", b.level,
               b.linear.gemm.bf16.name, b.peak_gflops, b.peak_gbytes);
    }
    return run_file(&b, options->shapes != NULL ? options->shapes
                                                : "tests/kernels/shapes/tiny-wan.txt");
}
