/* Linear layers: how the work is cut into tasks, and the memory that they need. */
#include "kernels/linear_layout.h"
#include "kernels/linear_small.h"

enum {
    PASS_ROWS = 2016, /* rows that are packed at a time, at least */
    PASS_BYTES = 32 << 20,
    BLOCK_COLS = 128, /* columns of a task */
    TASKS_PER_THREAD = 3,
    MOST_ROWS = 448,
    LEAST_ROWS = 96, /* of a task, where rows must be split */
};

/* Elements of depth in a slice: whole blocks of the stored type, so that one can be decoded. An
   int8 weight was packed by the kernel's own slices. */
static int64_t slice_of(const dk_linear_plan *plan, const dk_linear_args *args)
{
    int64_t block = args->quantized != NULL ? 1 : plan->stored->block;
    int64_t slice = plan->kernel->slice / block * block;
    return dk_smaller(slice > 0 ? slice : block, args->depth);
}

/* Cuts the output of a pass into some blocks for each thread where it is large enough. Where
   each task packs its part of W, columns are cut first, as no work is repeated for them; where
   W is packed already, rows: a row is read again for every block of columns. */
static void split_blocks(dk_linear_plan *plan, int64_t cols, int threads, bool packed)
{
    int64_t tasks = TASKS_PER_THREAD * threads;
    int64_t mr = plan->kernel->mr, nr = plan->kernel->nr, rows = plan->pass_rows;
    int64_t most = packed && plan->kernel->packs_once ? 2 * BLOCK_COLS : BLOCK_COLS;
    if (!packed) {
        most = dk_smaller(dk_ceil_div(cols, tasks), most);
        most = most > 2 * nr ? most : 2 * nr;
    }
    plan->block_cols = dk_block_size(cols, most, nr);
    int64_t col_blocks = dk_ceil_div(cols, plan->block_cols);
    int64_t row_blocks =
        dk_smaller(dk_ceil_div(tasks, col_blocks), dk_ceil_div(rows, LEAST_ROWS));
    plan->block_rows = dk_block_size(rows, dk_ceil_div(rows, row_blocks), mr);
    plan->block_rows = dk_smaller(plan->block_rows, MOST_ROWS / mr * mr);
    plan->row_blocks = (int)dk_ceil_div(rows, plan->block_rows);
    plan->cut = dk_cut_blocks((int)(plan->row_blocks * col_blocks), packed ? threads : 0);
}

/* Rows that are quantised and packed together in stage 1. */
static size_t quantized_bytes(const dk_linear_args *args)
{
    size_t bytes = (size_t)(DK_GEMM_PACK_ROWS * args->depth);
    return args->quantized != NULL ? dk_whole_lines(bytes) : 0;
}

/* Rows that are packed at a time: few passes, each of a bounded memory. */
static int64_t most_rows(const dk_gemm_kernel *kernel, int64_t depth)
{
    int64_t rows = PASS_BYTES / dk_gemm_a_bytes(kernel, 1, depth);
    return rows > PASS_ROWS ? rows : PASS_ROWS;
}

void dk_linear_plan_init(dk_linear_plan *plan, const dk_linear_kernels *kernels,
                         const dk_linear_args *args, bool exact, int threads)
{
    const dk_gemm_kernel *small = dk_linear_small_kernel(kernels, args, exact);
    const dk_gemm_kernel *kernel = args->quantized != NULL ? &kernels->gemm.int8
                                   : exact                 ? &kernels->gemm.f32
                                                           : &kernels->gemm.bf16;
    *plan = (dk_linear_plan){.kernel = small != NULL ? small : kernel,
                             .stored = dk_stored_format_of(&kernels->decode, args->weight_type),
                             .small = small != NULL,
                             .passes = 1,
                             .pass_rows = args->rows};
    plan->slice = slice_of(plan, args);
    if (plan->small) {
        dk_linear_small_plan(plan, args);
        return;
    }
    plan->pass_rows = dk_block_size(args->rows, most_rows(kernel, args->depth), kernel->mr);
    plan->passes = (int)dk_ceil_div(args->rows, plan->pass_rows);
    plan->pack_tasks = (int)dk_ceil_div(plan->pass_rows / kernel->mr, DK_LINEAR_PACK_PANELS);
    if (kernel->packs_once && args->quantized == NULL && args->rows > MOST_ROWS) {
        plan->weight_tasks = (int)dk_ceil_div(args->cols, kernel->nr);
    }
    split_blocks(plan, args->cols, threads, args->quantized != NULL || plan->weight_tasks > 0);
    plan->shared_bytes = dk_linear_rows_bytes(plan, args) + dk_linear_scales_bytes(plan, args);
    if (plan->weight_tasks > 0) {
        plan->shared_bytes +=
            dk_linear_panels_bytes(kernel, args->cols, args->depth, plan->slice);
    }
    plan->scratch_bytes = dk_linear_slab_bytes(plan, args) +
                          dk_linear_results_bytes(plan, args) + dk_linear_decoded_bytes(plan);
    if (plan->scratch_bytes < quantized_bytes(args)) {
        plan->scratch_bytes = quantized_bytes(args);
    }
}
