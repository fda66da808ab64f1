/* Weights of int8 for linear layers: quantised row by row, packed once. */
#include "kernels/linear_layout.h"

size_t dk_linear_int8_bytes(const dk_gemm_kernel *kernel, int64_t cols, int64_t depth)
{
    return dk_linear_panels_bytes(kernel, cols, depth, kernel->slice);
}

int dk_linear_int8_tasks(const dk_gemm_kernel *kernel, int64_t cols)
{
    return (int)dk_ceil_div(cols, kernel->nr);
}

/* A panel's rows as int8, then one row that is decoded. */
size_t dk_linear_int8_scratch(const dk_gemm_kernel *kernel, int64_t depth)
{
    return dk_whole_lines((size_t)(kernel->nr * depth)) +
           dk_whole_lines((size_t)depth * sizeof(float));
}

void dk_linear_int8_pack(const dk_linear_kernels *kernels, const dk_linear_quantized *out,
                         const void *w, dk_dtype w_type, int task, void *scratch)
{
    const dk_gemm_kernel *kernel = &kernels->gemm.int8;
    const dk_stored_format *stored = dk_stored_format_of(&kernels->decode, w_type);
    int64_t depth = out->depth, first = (int64_t)task * kernel->nr;
    int cols = (int)dk_smaller(kernel->nr, out->cols - first);
    int8_t *rows = scratch;
    float *decoded =
        (float *)(void *)((char *)scratch + dk_whole_lines((size_t)(kernel->nr * depth)));
    for (int n = 0; n < cols; n++) {
        const char *row =
            (const char *)w + (size_t)(first + n) * dk_stored_bytes(stored, depth);
        if (stored->decode != NULL) {
            stored->decode(decoded, row, 0, depth);
        }
        const dk_quantize_args args = {.cols = depth,
                                       .src =
                                           stored->decode != NULL ? (const void *)decoded : row,
                                       .src_type = stored->decode != NULL ? DK_F32 : w_type,
                                       .dst = rows + n * depth,
                                       .scales = out->scales + first + n};
        kernels->quantize.quantize_rows(&args, 0, 1);
    }
    for (int64_t k0 = 0; k0 < depth; k0 += kernel->slice) {
        int64_t offset =
            dk_linear_panel_offset(kernel, out->cols, depth, kernel->slice, first, k0);
        kernel->pack_weight((char *)out->panels + offset, rows + k0, DK_I8, depth, cols,
                            dk_smaller(kernel->slice, depth - k0));
    }
}
