/* Linear layers over any micro-kernel: blocking, and the plain-C epilogue and small path. */
#include "kernels/linear.h"

#include <math.h>

#include "kernels/blocking.h"
#include "kernels/x86/linear_x86.h"
#include "tensor/convert.h"

enum {
    SMALL_ROWS = 4,    /* at most this many rows: bound by reading W, no packing */
    SMALL_COLS = 64,   /* columns of a task of the small path */
    PASS_ROWS = 2016,  /* rows that are packed at a time */
    PACK_PANELS = 4,   /* row panels of one packing task */
    CACHED_ROWS = 224, /* rows of A that stay in the second-level cache */
    BLOCK_COLS = 128,  /* columns of a task */
    TASKS_PER_THREAD = 3,
    MOST_ROWS = 448,
    LEAST_ROWS = 96, /* of a task, where rows must be split: W is packed again for each */
};

static float activate(float x, dk_activation activation)
{
    switch (activation) {
    case DK_ACT_SILU:
        return x / (1.0f + expf(-x));
    case DK_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    default:
        return x;
    }
}

static float load(const void *base, dk_dtype type, int64_t i)
{
    return type == DK_F32 ? ((const float *)base)[i]
                          : dk_f32_from_bf16(((const uint16_t *)base)[i]);
}

static void store_one(const dk_linear_args *args, int64_t m, int64_t n, float y)
{
    int64_t at = m * args->dst_stride + n;
    y = activate(args->bias != NULL ? y + args->bias[n] : y, args->activation);
    if (args->multiply != NULL) {
        y *= load(args->multiply, args->dst_type, at);
    }
    if (args->gate != NULL) {
        y *= args->gate[m * args->gate_stride + n];
    }
    if (args->residual != NULL) {
        y += load(args->residual, args->dst_type, at);
    }
    if (args->dst_type == DK_F32) {
        ((float *)args->dst)[at] = y;
    } else {
        ((uint16_t *)args->dst)[at] = dk_bf16_from_f32(y);
    }
}

static void store_c(const dk_linear_args *args, int64_t m0, int64_t n0, int rows, int cols,
                    const float *tile, int64_t ld)
{
    for (int m = 0; m < rows; m++) {
        for (int n = 0; n < cols; n++) {
            store_one(args, m0 + m, n0 + n, tile[m * ld + n]);
        }
    }
}

static void small_c(const dk_linear_args *args, int64_t n0, int64_t n1)
{
    enum { CHUNK = 256 };
    float values[CHUNK];
    size_t width = dk_dtype_bytes(args->weight_type);
    for (int64_t n = n0; n < n1; n++) {
        float sum[SMALL_ROWS] = {0};
        for (int64_t k0 = 0; k0 < args->depth; k0 += CHUNK) {
            int64_t count = args->depth - k0 < CHUNK ? args->depth - k0 : CHUNK;
            const char *w = (const char *)args->weight + (size_t)(n * args->depth + k0) * width;
            dk_convert_to_f32(values, w, args->weight_type, count);
            for (int64_t m = 0; m < args->rows; m++) {
                for (int64_t k = 0; k < count; k++) {
                    sum[m] += values[k] *
                              load(args->src, args->src_type, m * args->src_stride + k0 + k);
                }
            }
        }
        for (int64_t m = 0; m < args->rows; m++) {
            store_one(args, m, n, sum[m]);
        }
    }
}

void dk_linear_kernels_init(dk_linear_kernels *kernels, unsigned cpu_flags)
{
    dk_gemm_kernels_init(&kernels->gemm, cpu_flags);
    dk_quantize_kernels_init(&kernels->quantize, cpu_flags);
    kernels->small = small_c;
    kernels->store = store_c;
    dk_linear_kernels_init_x86(kernels, cpu_flags);
}

/* Elements of depth in a slice. */
static int64_t slice_of(const dk_gemm_kernel *kernel, const dk_linear_args *args)
{
    return dk_smaller(kernel->slice, args->depth);
}

/* Scratch of a task: a slab of W (an int8 weight is packed already), then the f32 or int32
   results of its rows. Where one slice is all of the depth, results leave at once and one panel
   of rows is enough. */
static size_t slab_bytes(const dk_linear_plan *plan, const dk_linear_args *args)
{
    if (args->int8 != NULL) {
        return 0;
    }
    int64_t panel = dk_gemm_b_bytes(plan->kernel, slice_of(plan->kernel, args));
    return dk_whole_lines((size_t)(plan->block_cols / plan->kernel->nr * panel));
}

static int64_t result_rows(const dk_linear_plan *plan, const dk_linear_args *args)
{
    bool one_slice = slice_of(plan->kernel, args) == args->depth;
    return one_slice ? plan->kernel->mr : plan->block_rows;
}

/* Cuts the output of a pass into at least `tasks` blocks where it is large enough: columns
   first, as no work is repeated for them. */
static void split_blocks(dk_linear_plan *plan, int64_t cols, int64_t tasks)
{
    int64_t mr = plan->kernel->mr, nr = plan->kernel->nr, rows = plan->pass_rows;
    int64_t most = dk_smaller(dk_ceil_div(cols, tasks), BLOCK_COLS);
    plan->block_cols = dk_block_size(cols, most > 2 * nr ? most : 2 * nr, nr);
    plan->col_blocks = (int)dk_ceil_div(cols, plan->block_cols);
    int64_t row_blocks =
        dk_smaller(dk_ceil_div(tasks, plan->col_blocks), dk_ceil_div(rows, LEAST_ROWS));
    plan->block_rows = dk_block_size(rows, dk_ceil_div(rows, row_blocks), mr);
    plan->block_rows = dk_smaller(plan->block_rows, MOST_ROWS / mr * mr);
    plan->row_blocks = (int)dk_ceil_div(rows, plan->block_rows);
}

/* Bytes of the packed rows of a pass; behind them, with an int8 weight, lie their scales. */
static size_t packed_bytes(const dk_linear_plan *plan, const dk_linear_args *args)
{
    return dk_whole_lines((size_t)dk_gemm_a_bytes(plan->kernel, plan->pass_rows, args->depth));
}

/* What an int8 weight needs more: scales of rows, and in stage 1 the rows that are packed
   together. */
static void add_int8_memory(dk_linear_plan *plan, int64_t depth)
{
    size_t rows = dk_whole_lines((size_t)(DK_GEMM_PACK_ROWS * depth));
    plan->shared_bytes += dk_whole_lines((size_t)plan->pass_rows * sizeof(float));
    plan->scratch_bytes = plan->scratch_bytes > rows ? plan->scratch_bytes : rows;
}

void dk_linear_plan_init(dk_linear_plan *plan, const dk_linear_kernels *kernels,
                         const dk_linear_args *args, bool exact, int threads)
{
    *plan = (dk_linear_plan){.passes = 1, .pass_rows = args->rows};
    if (args->rows <= SMALL_ROWS && args->int8 == NULL) {
        plan->block_rows = args->rows;
        plan->block_cols = SMALL_COLS;
        plan->row_blocks = 1;
        plan->col_blocks = (int)dk_ceil_div(args->cols, SMALL_COLS);
        return;
    }
    const dk_gemm_kernel *kernel = args->int8 != NULL ? &kernels->gemm.int8
                                   : exact            ? &kernels->gemm.f32
                                                      : &kernels->gemm.bf16;
    plan->kernel = kernel;
    plan->pass_rows = dk_block_size(args->rows, PASS_ROWS, kernel->mr);
    plan->passes = (int)dk_ceil_div(args->rows, plan->pass_rows);
    plan->pack_tasks = (int)dk_ceil_div(plan->pass_rows / kernel->mr, PACK_PANELS);
    split_blocks(plan, args->cols, TASKS_PER_THREAD * threads);
    plan->shared_bytes = packed_bytes(plan, args);
    plan->scratch_bytes =
        slab_bytes(plan, args) +
        dk_whole_lines((size_t)(result_rows(plan, args) * plan->block_cols) * sizeof(float));
    if (args->int8 != NULL) {
        add_int8_memory(plan, args->depth);
    }
}

/* Rows of the pass that hold data. */
static int64_t rows_of_pass(const dk_linear_plan *plan, const dk_linear_args *args, int pass)
{
    return dk_smaller(plan->pass_rows, args->rows - pass * plan->pass_rows);
}

/* Replaces the rows of the list by their int8 values, which lie in scratch; scales: of the
   first of them. */
static void quantize_list(const dk_linear_kernels *kernels, const dk_linear_args *args,
                          const void **list, int count, float *scales, void *scratch)
{
    for (int i = 0; i < count && list[i] != NULL; i++) {
        const dk_quantize_args row = {.cols = args->depth,
                                      .src = list[i],
                                      .src_type = args->src_type,
                                      .dst = (int8_t *)scratch + i * args->depth,
                                      .scales = scales + i};
        kernels->quantize.quantize_rows(&row, 0, 1);
        list[i] = row.dst;
    }
}

void dk_linear_pack(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                    const dk_linear_args *args, int pass, int task, void *shared, void *scratch)
{
    float *scales = (float *)(void *)((char *)shared + packed_bytes(plan, args));
    dk_dtype type = args->int8 != NULL ? DK_I8 : args->src_type;
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t panel_bytes = dk_gemm_a_bytes(kernel, kernel->mr, args->depth);
    int64_t unit = kernel->a_group * (int64_t)dk_dtype_bytes(kernel->type);
    int64_t rows = rows_of_pass(plan, args, pass);
    size_t width = dk_dtype_bytes(args->src_type);
    const char *src =
        (const char *)args->src + (size_t)(pass * plan->pass_rows * args->src_stride) * width;
    const void *list[DK_GEMM_PACK_ROWS];
    for (int64_t panel = (int64_t)task * PACK_PANELS;
         panel < (int64_t)(task + 1) * PACK_PANELS && panel * kernel->mr < rows; panel++) {
        for (int64_t m0 = 0; m0 < kernel->mr; m0 += DK_GEMM_PACK_ROWS) {
            int count = (int)dk_smaller(DK_GEMM_PACK_ROWS, kernel->mr - m0);
            for (int i = 0; i < count; i++) {
                int64_t m = panel * kernel->mr + m0 + i;
                list[i] = m < rows ? src + (size_t)(m * args->src_stride) * width : NULL;
            }
            if (args->int8 != NULL) {
                quantize_list(kernels, args, list, count, scales + panel * kernel->mr + m0,
                              scratch);
            }
            kernel->pack_rows((char *)shared + panel * panel_bytes + m0 * unit, kernel->mr,
                              list, type, count, args->depth);
        }
    }
}

/* One task of stage 2. */
typedef struct block {
    const dk_linear_kernels *kernels;
    const dk_linear_plan *plan;
    const dk_linear_args *args;
    int64_t first_row;   /* of the pass, in src and dst */
    int64_t m0, m1;      /* rows inside the pass */
    int64_t n0, n1;      /* columns */
    int64_t k0, depth;   /* the slice at work */
    const char *shared;  /* packed rows of the pass */
    const float *scales; /* of those rows, with an int8 weight */
    char *slab;
    const char *panels; /* of W over the slice at work: in slab, or an int8 weight's */
    float *results;
} block;

static void pack_slab(const block *at)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    const dk_linear_args *args = at->args;
    int64_t panel = dk_gemm_b_bytes(kernel, at->depth);
    size_t width = dk_dtype_bytes(args->weight_type);
    char *out = at->slab;
    for (int64_t n = at->n0; n < at->n1; n += kernel->nr, out += panel) {
        const char *w = (const char *)args->weight + (size_t)(n * args->depth + at->k0) * width;
        kernel->pack_weight(out, w, args->weight_type, args->depth,
                            (int)dk_smaller(kernel->nr, at->n1 - n), at->depth);
    }
}

/* The tile at row m of the pass and column n, from its panels of packed rows and of W; the last
   slice stores it. */
static void multiply_tile(const block *at, int64_t m, int64_t n, const char *rows_panel,
                          const char *w_panel)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    const dk_linear_args *args = at->args;
    int64_t ld = at->plan->block_cols;
    int64_t row = at->depth == args->depth ? 0 : m - at->m0;
    float *c = at->results + row * ld + (n - at->n0);
    const dk_gemm_a a = {.data = rows_panel, .ld = kernel->mr, .k = at->depth, .parts = 1};
    kernel->tile(c, ld, &a, 0, w_panel, at->k0 > 0);
    if (at->k0 + at->depth == args->depth) {
        int rows = (int)dk_smaller(kernel->mr, at->m1 - m);
        int cols = (int)dk_smaller(kernel->nr, at->n1 - n);
        if (args->int8 != NULL) {
            at->kernels->quantize.rescale(c, ld, rows, cols, at->scales + m,
                                          args->int8->scales + n);
        }
        at->kernels->store(args, at->first_row + m, n, rows, cols, c, ld);
    }
}

/* A panel of W stays in the first-level cache while CACHED_ROWS rows of A pass from the
   second. */
static void multiply_slice(const block *at)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    int64_t step = CACHED_ROWS / kernel->mr * kernel->mr;
    int64_t rows_panel = dk_gemm_a_bytes(kernel, kernel->mr, at->args->depth);
    int64_t w_panel = dk_gemm_b_bytes(kernel, at->depth);
    const char *rows = at->shared + dk_gemm_a_bytes(kernel, kernel->mr, at->k0);
    for (int64_t cached = at->m0; cached < at->m1; cached += step) {
        int64_t end = dk_smaller(cached + step, at->m1);
        const char *first = rows + cached / kernel->mr * rows_panel, *w = at->panels;
        for (int64_t n = at->n0; n < at->n1; n += kernel->nr, w += w_panel) {
            const char *panel = first;
            for (int64_t m = cached; m < end; m += kernel->mr, panel += rows_panel) {
                multiply_tile(at, m, n, panel, w);
            }
        }
    }
}

void dk_linear_block(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                     const dk_linear_args *args, int pass, int task, const void *shared,
                     void *scratch)
{
    block at = {.kernels = kernels,
                .plan = plan,
                .args = args,
                .first_row = pass * plan->pass_rows,
                .m0 = task % plan->row_blocks * plan->block_rows,
                .n0 = task / plan->row_blocks * plan->block_cols,
                .shared = shared,
                .slab = scratch};
    at.m1 = dk_smaller(at.m0 + plan->block_rows, rows_of_pass(plan, args, pass));
    at.n1 = dk_smaller(at.n0 + plan->block_cols, args->cols);
    if (plan->kernel == NULL) {
        kernels->small(args, at.n0, at.n1);
        return;
    }
    if (at.m0 >= at.m1) {
        return; /* the last pass may have fewer rows */
    }
    at.results = (float *)(void *)(at.slab + slab_bytes(plan, args));
    at.scales = (const float *)(const void *)(at.shared + packed_bytes(plan, args));
    int64_t slice = slice_of(plan->kernel, args);
    dk_gemm_begin(plan->kernel);
    for (at.k0 = 0; at.k0 < args->depth; at.k0 += slice) {
        at.depth = dk_smaller(slice, args->depth - at.k0);
        if (args->int8 != NULL) {
            at.panels = dk_linear_int8_panel(plan->kernel, args->int8, at.n0, at.k0);
        } else {
            pack_slab(&at);
            at.panels = at.slab;
        }
        multiply_slice(&at);
    }
    dk_gemm_end(plan->kernel);
}
