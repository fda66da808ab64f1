/* Linear layers of few rows. A task is DK_GEMM_DIRECT_ROWS rows of W, which are columns of the
   result: slice by slice of the depth, each panel of the layer's rows passes from the
   first-level cache. */
#include "kernels/linear_small.h"

#include "kernels/linear_layout.h"

const dk_gemm_kernel *dk_linear_small_kernel(const dk_linear_kernels *kernels,
                                             const dk_linear_args *args, bool exact)
{
    bool rounded = !exact && args->weight_type == DK_BF16;
    const dk_gemm_kernel *kernel = rounded ? &kernels->gemm.bf16 : &kernels->gemm.f32;
    bool few =
        args->quantized == NULL && kernel->direct != NULL && args->rows <= kernel->direct_most;
    return few ? kernel : NULL;
}

static int panels_of(const dk_linear_plan *plan)
{
    return (int)dk_ceil_div(plan->pass_rows, plan->kernel->nr);
}

/* Scratch of a task: results of every panel, one panel of them transposed, decoded rows of W.
 */
static int64_t result_count(const dk_linear_plan *plan)
{
    return (int64_t)DK_GEMM_DIRECT_ROWS * plan->kernel->nr;
}

static int64_t decoded_count(const dk_linear_plan *plan)
{
    return plan->stored->decode != NULL ? DK_GEMM_DIRECT_ROWS * plan->slice : 0;
}

void dk_linear_small_plan(dk_linear_plan *plan, const dk_linear_args *args)
{
    int64_t panels = panels_of(plan);
    plan->pack_tasks = (int)(panels * dk_ceil_div(args->depth, plan->slice));
    plan->block_rows = args->rows;
    plan->block_cols = DK_GEMM_DIRECT_ROWS;
    plan->row_blocks = 1;
    plan->cut = dk_cut_blocks((int)dk_ceil_div(args->cols, DK_GEMM_DIRECT_ROWS), 0);
    plan->shared_bytes =
        dk_linear_panels_bytes(plan->kernel, args->rows, args->depth, plan->slice);
    plan->scratch_bytes = dk_whole_lines(
        (size_t)((panels + 1) * result_count(plan) + decoded_count(plan)) * sizeof(float));
}

/* The layer's rows are the columns of B. */
static int64_t panel_offset(const dk_linear_plan *plan, const dk_linear_args *args, int panel,
                            int64_t k0)
{
    return dk_linear_panel_offset(plan->kernel, args->rows, args->depth, plan->slice,
                                  (int64_t)panel * plan->kernel->nr, k0);
}

void dk_linear_small_pack(const dk_linear_plan *plan, const dk_linear_args *args, int task,
                          void *shared)
{
    int panels = panels_of(plan), panel = task % panels;
    int64_t k0 = task / panels * plan->slice, row = (int64_t)panel * plan->kernel->nr;
    int64_t depth = dk_smaller(plan->slice, args->depth - k0);
    size_t at = (size_t)(row * args->src_stride + k0) * dk_dtype_bytes(args->src_type);
    plan->kernel->pack_weight((char *)shared + panel_offset(plan, args, panel, k0),
                              (const char *)args->src + at, args->src_type, args->src_stride,
                              (int)dk_smaller(plan->kernel->nr, args->rows - row), depth);
}

/* The slice [k0, k0 + depth) of a task's rows of W, decoded where the kernel needs it. */
static dk_gemm_rows rows_of(const dk_linear_plan *plan, const dk_linear_args *args, int64_t n0,
                            int64_t k0, float *decoded)
{
    const dk_stored_format *stored = plan->stored;
    int64_t row_bytes = (int64_t)dk_stored_bytes(stored, args->depth);
    const char *first = (const char *)args->weight + n0 * row_bytes;
    dk_gemm_rows rows = {.data = first + dk_stored_bytes(stored, k0),
                         .type = args->weight_type,
                         .row_bytes = row_bytes,
                         .count = (int)dk_smaller(DK_GEMM_DIRECT_ROWS, args->cols - n0),
                         .k = dk_smaller(plan->slice, args->depth - k0)};
    if (stored->decode != NULL) {
        for (int n = 0; n < rows.count; n++) {
            stored->decode(decoded + n * rows.k, first + n * row_bytes, k0, rows.k);
        }
        rows.data = decoded;
        rows.type = DK_F32;
        rows.row_bytes = rows.k * (int64_t)sizeof(float);
    }
    return rows;
}

/* A panel's results [count][nr], turned into rows of the layer, leave through the epilogue. */
static void store_panel(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                        const dk_linear_args *args, int panel, int64_t n0, const float *results,
                        float *turned)
{
    int nr = plan->kernel->nr;
    int64_t m0 = (int64_t)panel * nr;
    int rows = (int)dk_smaller(nr, args->rows - m0);
    int cols = (int)dk_smaller(DK_GEMM_DIRECT_ROWS, args->cols - n0);
    for (int m = 0; m < rows; m++) {
        for (int n = 0; n < cols; n++) {
            turned[m * DK_GEMM_DIRECT_ROWS + n] = results[n * nr + m];
        }
    }
    kernels->store(args, m0, n0, rows, cols, turned, DK_GEMM_DIRECT_ROWS);
}

void dk_linear_small_block(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                           const dk_linear_args *args, int task, const void *shared,
                           void *scratch)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int panels = panels_of(plan);
    int64_t n0 = (int64_t)task * DK_GEMM_DIRECT_ROWS;
    float *results = scratch, *turned = results + panels * result_count(plan);
    float *decoded = turned + result_count(plan);
    dk_gemm_begin(kernel);
    for (int64_t k0 = 0; k0 < args->depth; k0 += plan->slice) {
        dk_gemm_rows w = rows_of(plan, args, n0, k0, decoded);
        for (int panel = 0; panel < panels; panel++) {
            int64_t cols = dk_smaller(kernel->nr, args->rows - (int64_t)panel * kernel->nr);
            kernel->direct(results + panel * result_count(plan), &w,
                           (const char *)shared + panel_offset(plan, args, panel, k0),
                           (int)cols, k0 > 0);
        }
    }
    dk_gemm_end(kernel);
    for (int panel = 0; panel < panels; panel++) {
        store_panel(kernels, plan, args, panel, n0, results + panel * result_count(plan),
                    turned);
    }
}
