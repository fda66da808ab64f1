/* Linear layers over any micro-kernel: the two stages, and the plain-C epilogue. */
#include "kernels/linear.h"

#include <math.h>

#include "kernels/linear_layout.h"
#include "kernels/linear_small.h"
#include "kernels/x86/linear_x86.h"
#include "tensor/convert.h"

enum { CACHED_ROWS = 224 }; /* rows of A that stay in the second-level cache */

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

void dk_linear_kernels_init(dk_linear_kernels *kernels, unsigned cpu_flags)
{
    dk_gemm_kernels_init(&kernels->gemm, cpu_flags);
    dk_quantize_kernels_init(&kernels->quantize, cpu_flags);
    dk_decode_kernels_init(&kernels->decode, cpu_flags);
    kernels->store = store_c;
    dk_linear_kernels_init_x86(kernels, cpu_flags);
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

static void pack_rows(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                      const dk_linear_args *args, int pass, int task, void *shared,
                      void *scratch)
{
    float *scales = dk_linear_scales(plan, args, shared);
    dk_dtype type = args->quantized != NULL ? DK_I8 : args->src_type;
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t panel_bytes = dk_gemm_a_bytes(kernel, kernel->mr, args->depth);
    int64_t unit = kernel->a_group * (int64_t)dk_dtype_bytes(kernel->type);
    int64_t rows = rows_of_pass(plan, args, pass);
    size_t width = dk_dtype_bytes(args->src_type);
    const char *src =
        (const char *)args->src + (size_t)(pass * plan->pass_rows * args->src_stride) * width;
    const void *list[DK_GEMM_PACK_ROWS];
    for (int64_t panel = (int64_t)task * DK_LINEAR_PACK_PANELS;
         panel < (int64_t)(task + 1) * DK_LINEAR_PACK_PANELS && panel * kernel->mr < rows;
         panel++) {
        for (int64_t m0 = 0; m0 < kernel->mr; m0 += DK_GEMM_PACK_ROWS) {
            int count = (int)dk_smaller(DK_GEMM_PACK_ROWS, kernel->mr - m0);
            for (int i = 0; i < count; i++) {
                int64_t m = panel * kernel->mr + m0 + i;
                list[i] = m < rows ? src + (size_t)(m * args->src_stride) * width : NULL;
            }
            if (args->quantized != NULL) {
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
    const char *panels; /* of W over the slice at work */
    float *results, *decoded;
} block;

/* The slice of W's rows [n, n + cols) as one panel: read as it lies, or decoded first. */
static void pack_panel(const block *at, char *panel, int64_t n, int cols)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    const dk_stored_format *stored = at->plan->stored;
    size_t row_bytes = dk_stored_bytes(stored, at->args->depth);
    const char *w = (const char *)at->args->weight + (size_t)n * row_bytes;
    if (stored->decode == NULL) {
        kernel->pack_weight(panel, w + dk_stored_bytes(stored, at->k0), at->args->weight_type,
                            at->args->depth, cols, at->depth);
        return;
    }
    for (int i = 0; i < cols; i++, w += row_bytes) {
        stored->decode(at->decoded + i * at->depth, w, at->k0, at->depth);
    }
    kernel->pack_weight(panel, at->decoded, DK_F32, at->depth, cols, at->depth);
}

static void pack_slab(const block *at)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    int64_t panel = dk_gemm_b_bytes(kernel, at->depth);
    char *out = at->slab;
    for (int64_t n = at->n0; n < at->n1; n += kernel->nr, out += panel) {
        pack_panel(at, out, n, (int)dk_smaller(kernel->nr, at->n1 - n));
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
        if (args->quantized != NULL) {
            at->kernels->quantize.rescale(c, ld, rows, cols, at->scales + m,
                                          args->quantized->scales + n);
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

/* Of column n's panel in a W that is packed whole, over the slice at work. */
static int64_t panel_offset(const block *at, int64_t n)
{
    return dk_linear_panel_offset(at->plan->kernel, at->args->cols, at->args->depth,
                                  at->plan->slice, n, at->k0);
}

void dk_linear_pack(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                    const dk_linear_args *args, int pass, int task, void *shared, void *scratch)
{
    if (plan->small) {
        dk_linear_small_pack(plan, args, task, shared);
        return;
    }
    if (task < plan->pack_tasks) {
        pack_rows(kernels, plan, args, pass, task, shared, scratch);
        return;
    }
    block at = {.plan = plan, .args = args, .decoded = scratch};
    int64_t n = (int64_t)(task - plan->pack_tasks) * plan->kernel->nr;
    char *weight = dk_linear_packed_weight(plan, args, shared);
    for (at.k0 = 0; at.k0 < args->depth; at.k0 += plan->slice) {
        at.depth = dk_smaller(plan->slice, args->depth - at.k0);
        pack_panel(&at, weight + panel_offset(&at, n), n,
                   (int)dk_smaller(plan->kernel->nr, args->cols - n));
    }
}

/* The panels of the task's columns over the slice at work. */
static const char *panels_of(const block *at)
{
    if (at->args->quantized != NULL) {
        return (const char *)at->args->quantized->panels + panel_offset(at, at->n0);
    }
    if (at->plan->weight_tasks > 0) {
        return dk_linear_packed_weight(at->plan, at->args, at->shared) +
               panel_offset(at, at->n0);
    }
    pack_slab(at);
    return at->slab;
}

void dk_linear_block(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                     const dk_linear_args *args, int pass, int task, const void *shared,
                     void *scratch)
{
    if (plan->small) {
        dk_linear_small_block(kernels, plan, args, task, shared, scratch);
        return;
    }
    block at = {.kernels = kernels,
                .plan = plan,
                .args = args,
                .first_row = pass * plan->pass_rows,
                .shared = shared,
                .slab = scratch};
    int64_t mr = plan->kernel->mr;
    dk_cut_task panels = dk_cut_task_at(&plan->cut, task, plan->block_rows / mr);
    int64_t begin = panels.block % plan->row_blocks * plan->block_rows;
    at.m0 = begin + panels.begin * mr;
    at.m1 = dk_smaller(begin + panels.end * mr, rows_of_pass(plan, args, pass));
    at.n0 = panels.block / plan->row_blocks * plan->block_cols;
    at.n1 = dk_smaller(at.n0 + plan->block_cols, args->cols);
    if (at.m0 >= at.m1) {
        return; /* the last pass may have fewer rows, a small block fewer panels than parts */
    }
    at.results = (float *)(void *)(at.slab + dk_linear_slab_bytes(plan, args));
    at.scales = dk_linear_scales(plan, args, shared);
    at.decoded = at.results + dk_linear_results_bytes(plan, args) / sizeof(float);
    dk_gemm_begin(plan->kernel);
    for (at.k0 = 0; at.k0 < args->depth; at.k0 += plan->slice) {
        at.depth = dk_smaller(plan->slice, args->depth - at.k0);
        at.panels = panels_of(&at);
        multiply_slice(&at);
    }
    dk_gemm_end(plan->kernel);
}
