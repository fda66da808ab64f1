/* Weights of int8 for linear layers: quantised row by row, packed once. */
#include "kernels/blocking.h"
#include "kernels/linear.h"
#include "tensor/convert.h"

/* Bytes before the panel of column n over the slice that starts at k0. */
static int64_t panel_offset(const dk_gemm_kernel *kernel, int64_t cols, int64_t depth,
                            int64_t n, int64_t k0)
{
    int64_t slice_panels =
        dk_ceil_div(cols, kernel->nr) * dk_gemm_b_bytes(kernel, kernel->slice);
    int64_t length = dk_smaller(kernel->slice, depth - k0);
    return k0 / kernel->slice * slice_panels + n / kernel->nr * dk_gemm_b_bytes(kernel, length);
}

size_t dk_linear_int8_bytes(const dk_gemm_kernel *kernel, int64_t cols, int64_t depth)
{
    int64_t last = (depth - 1) / kernel->slice * kernel->slice;
    int64_t padded = dk_ceil_div(cols, kernel->nr) * kernel->nr;
    return (size_t)panel_offset(kernel, cols, depth, padded, last);
}

int dk_linear_int8_tasks(const dk_gemm_kernel *kernel, int64_t cols)
{
    return (int)dk_ceil_div(cols, kernel->nr);
}

/* A panel's rows as int8, then one row as f32. */
size_t dk_linear_int8_scratch(const dk_gemm_kernel *kernel, int64_t depth)
{
    return dk_whole_lines((size_t)(kernel->nr * depth)) +
           dk_whole_lines((size_t)depth * sizeof(float));
}

void dk_linear_int8_pack(const dk_linear_kernels *kernels, const dk_linear_int8 *out,
                         const void *w, dk_dtype w_type, int task, void *scratch)
{
    const dk_gemm_kernel *kernel = &kernels->gemm.int8;
    int64_t depth = out->depth, first = (int64_t)task * kernel->nr;
    int cols = (int)dk_smaller(kernel->nr, out->cols - first);
    int8_t *rows = scratch;
    float *wide =
        (float *)(void *)((char *)scratch + dk_whole_lines((size_t)(kernel->nr * depth)));
    for (int n = 0; n < cols; n++) {
        const char *row =
            (const char *)w + (size_t)((first + n) * depth) * dk_dtype_bytes(w_type);
        dk_convert_to_f32(wide, row, w_type, depth);
        const dk_quantize_args args = {.cols = depth,
                                       .src = wide,
                                       .src_type = DK_F32,
                                       .dst = rows + n * depth,
                                       .scales = out->scales + first + n};
        kernels->quantize.quantize_rows(&args, 0, 1);
    }
    for (int64_t k0 = 0; k0 < depth; k0 += kernel->slice) {
        char *panel = (char *)out->panels + panel_offset(kernel, out->cols, depth, first, k0);
        kernel->pack_weight(panel, rows + k0, DK_I8, depth, cols,
                            dk_smaller(kernel->slice, depth - k0));
    }
}

const void *dk_linear_int8_panel(const dk_gemm_kernel *kernel, const dk_linear_int8 *weight,
                                 int64_t n, int64_t k0)
{
    return (const char *)weight->panels +
           panel_offset(kernel, weight->cols, weight->depth, n, k0);
}
