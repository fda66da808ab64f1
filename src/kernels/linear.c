/* Linear layers over any micro-kernel: blocking, and the plain-C epilogue and small path. */
#include "kernels/linear.h"

#include <assert.h>
#include <math.h>

#include "kernels/x86/linear_x86.h"
#include "tensor/convert.h"

enum {
    SMALL_ROWS = 4,    /* at most this many rows: bound by reading W, no packing */
    BLOCK_ROWS = 288,  /* rows of a task: W is packed once for so many */
    BLOCK_COLS = 256,  /* columns of a task */
    DEPTH_SLICE = 384, /* elements of depth that are packed at a time */
    SMALL_COLS = 64,   /* columns of a task of the small path */
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
    kernels->small = small_c;
    kernels->store = store_c;
    dk_linear_kernels_init_x86(kernels, cpu_flags);
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* The size of equal blocks of at most `most`, a multiple of `unit`. */
static int64_t block_size(int64_t total, int64_t most, int64_t unit)
{
    int64_t blocks = ceil_div(total, most);
    return ceil_div(ceil_div(total, blocks), unit) * unit;
}

static size_t align(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int64_t slice_of(const dk_linear_args *args)
{
    return args->depth < DEPTH_SLICE ? args->depth : DEPTH_SLICE;
}

static size_t a_bytes(const dk_linear_plan *plan, const dk_linear_args *args)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t panels = plan->block_rows / kernel->mr;
    return align((size_t)(panels * dk_gemm_panel_bytes(kernel, kernel->mr, slice_of(args))));
}

static size_t b_bytes(const dk_linear_plan *plan, const dk_linear_args *args)
{
    return align((size_t)dk_gemm_panel_bytes(plan->kernel, plan->kernel->nr, slice_of(args)));
}

void dk_linear_plan_init(dk_linear_plan *plan, const dk_linear_kernels *kernels,
                         const dk_linear_args *args, bool exact)
{
    *plan = (dk_linear_plan){0};
    if (args->rows <= SMALL_ROWS) {
        plan->block_rows = args->rows;
        plan->block_cols = SMALL_COLS;
        plan->row_blocks = 1;
        plan->col_blocks = (int)ceil_div(args->cols, SMALL_COLS);
        return;
    }
    const dk_gemm_kernel *kernel = exact ? &kernels->gemm.f32 : &kernels->gemm.bf16;
    plan->kernel = kernel;
    plan->block_rows = block_size(args->rows, BLOCK_ROWS, kernel->mr);
    plan->block_cols = block_size(args->cols, BLOCK_COLS, kernel->nr);
    plan->row_blocks = (int)ceil_div(args->rows, plan->block_rows);
    plan->col_blocks = (int)ceil_div(args->cols, plan->block_cols);
    size_t c_bytes = align((size_t)(plan->block_rows * plan->block_cols) * sizeof(float));
    plan->scratch_bytes = a_bytes(plan, args) + b_bytes(plan, args) + c_bytes;
}

/* Rows [m0, m1) of one slice of depth, as A panels. */
static void pack_rows(const dk_linear_plan *plan, const dk_linear_args *args, char *panels,
                      int64_t m0, int64_t m1, int64_t k0, int64_t depth)
{
    enum { MOST_MR = 64 };
    const dk_gemm_kernel *kernel = plan->kernel;
    const void *rows[MOST_MR];
    size_t width = dk_dtype_bytes(args->src_type);
    assert(kernel->mr <= MOST_MR);
    for (int64_t m = m0; m < m1; m += kernel->mr) {
        int count = (int)(m1 - m < kernel->mr ? m1 - m : kernel->mr);
        for (int i = 0; i < count; i++) {
            rows[i] =
                (const char *)args->src + (size_t)((m + i) * args->src_stride + k0) * width;
        }
        kernel->pack_rows(panels, rows, args->src_type, count, depth);
        panels += dk_gemm_panel_bytes(kernel, kernel->mr, depth);
    }
}

void dk_linear_block(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                     const dk_linear_args *args, int task, void *scratch)
{
    int64_t row_block = task % plan->row_blocks, col_block = task / plan->row_blocks;
    int64_t n0 = col_block * plan->block_cols, m0 = row_block * plan->block_rows;
    int64_t n1 = n0 + plan->block_cols < args->cols ? n0 + plan->block_cols : args->cols;
    int64_t m1 = m0 + plan->block_rows < args->rows ? m0 + plan->block_rows : args->rows;
    const dk_gemm_kernel *kernel = plan->kernel;
    if (kernel == NULL) {
        kernels->small(args, n0, n1);
        return;
    }
    char *a = scratch, *b = a + a_bytes(plan, args);
    float *c = (float *)(void *)(b + b_bytes(plan, args));
    size_t width = dk_dtype_bytes(args->weight_type);
    for (int64_t k0 = 0; k0 < args->depth; k0 += DEPTH_SLICE) {
        int64_t depth = args->depth - k0 < DEPTH_SLICE ? args->depth - k0 : DEPTH_SLICE;
        int64_t panel = dk_gemm_panel_bytes(kernel, kernel->mr, depth);
        pack_rows(plan, args, a, m0, m1, k0, depth);
        for (int64_t n = n0; n < n1; n += kernel->nr) {
            int cols = (int)(n1 - n < kernel->nr ? n1 - n : kernel->nr);
            const char *w = (const char *)args->weight + (size_t)(n * args->depth + k0) * width;
            kernel->pack_weight(b, w, args->weight_type, args->depth, cols, depth);
            for (int64_t m = m0; m < m1; m += kernel->mr) {
                kernel->tile(c + (m - m0) * plan->block_cols + (n - n0), plan->block_cols,
                             a + (m - m0) / kernel->mr * panel, b, depth, k0 > 0);
            }
        }
    }
    kernels->store(args, m0, n0, (int)(m1 - m0), (int)(n1 - n0), c, plan->block_cols);
}
