/* Inside linear layers: how packed operands lie in the memory that one stage fills and the next
   one reads. */
#ifndef DK_KERNELS_LINEAR_LAYOUT_H
#define DK_KERNELS_LINEAR_LAYOUT_H

#include "kernels/blocking.h"
#include "kernels/linear.h"

enum { DK_LINEAR_PACK_PANELS = 4 }; /* panels of rows in one packing task */

/* B panels of `cols` columns over all of the depth lie slice by slice, in each slice the panels
   of all columns one behind the other. Bytes before the panel of column n over the slice that
   starts at k0; n = cols, rounded up to panels, and the last k0 give the size of all. */
static inline int64_t dk_linear_panel_offset(const dk_gemm_kernel *kernel, int64_t cols,
                                             int64_t depth, int64_t slice, int64_t n,
                                             int64_t k0)
{
    int64_t panels = dk_ceil_div(cols, kernel->nr), length = dk_smaller(slice, depth - k0);
    return k0 / slice * panels * dk_gemm_b_bytes(kernel, slice) +
           n / kernel->nr * dk_gemm_b_bytes(kernel, length);
}

static inline size_t dk_linear_panels_bytes(const dk_gemm_kernel *kernel, int64_t cols,
                                            int64_t depth, int64_t slice)
{
    int64_t end = dk_gemm_round_up(cols, kernel->nr), last = (depth - 1) / slice * slice;
    return dk_whole_lines(
        (size_t)dk_linear_panel_offset(kernel, cols, depth, slice, end, last));
}

/* Shared memory: the packed rows of a pass, the scales of quantised ones, W where it is packed
   once. */
static inline size_t dk_linear_rows_bytes(const dk_linear_plan *plan,
                                          const dk_linear_args *args)
{
    return dk_whole_lines((size_t)dk_gemm_a_bytes(plan->kernel, plan->pass_rows, args->depth));
}

static inline size_t dk_linear_scales_bytes(const dk_linear_plan *plan,
                                            const dk_linear_args *args)
{
    size_t bytes = (size_t)plan->pass_rows * sizeof(float);
    return args->quantized != NULL ? dk_whole_lines(bytes) : 0;
}

static inline float *dk_linear_scales(const dk_linear_plan *plan, const dk_linear_args *args,
                                      const void *shared)
{
    return (float *)(void *)((char *)shared + dk_linear_rows_bytes(plan, args));
}

static inline char *dk_linear_packed_weight(const dk_linear_plan *plan,
                                            const dk_linear_args *args, const void *shared)
{
    return (char *)shared + dk_linear_rows_bytes(plan, args) +
           dk_linear_scales_bytes(plan, args);
}

/* Scratch of a task: a slab of W (unless W is packed already), the f32 or int32 results of its
   rows, and rows of W that are decoded before they are packed. Where one slice is all of the
   depth, results leave at once and one panel of rows is enough. */
static inline size_t dk_linear_slab_bytes(const dk_linear_plan *plan,
                                          const dk_linear_args *args)
{
    bool packed = args->quantized != NULL || plan->weight_tasks > 0;
    int64_t panel = dk_gemm_b_bytes(plan->kernel, plan->slice);
    return packed ? 0 : dk_whole_lines((size_t)(plan->block_cols / plan->kernel->nr * panel));
}

static inline size_t dk_linear_results_bytes(const dk_linear_plan *plan,
                                             const dk_linear_args *args)
{
    int64_t rows = plan->slice == args->depth ? plan->kernel->mr : plan->block_rows;
    return dk_whole_lines((size_t)(rows * plan->block_cols) * sizeof(float));
}

static inline size_t dk_linear_decoded_bytes(const dk_linear_plan *plan)
{
    int64_t panel = plan->kernel->nr * plan->slice;
    return plan->stored->decode != NULL ? dk_whole_lines((size_t)panel * sizeof(float)) : 0;
}

#endif
