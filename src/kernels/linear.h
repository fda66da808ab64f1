/* Linear layers: dst = epilogue(src · Wᵀ + bias), W as stored in the weight file.
   Two stages of tasks for each pass: src is packed once, for all columns, into shared memory;
   then every task packs a slab of W into its own cache and multiplies. How the work is cut does
   not change any sum: results are bit-equal for any number of threads. */
#ifndef DK_KERNELS_LINEAR_H
#define DK_KERNELS_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/blocking.h"
#include "kernels/decode.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"
#include "tensor/dtype.h"

typedef enum dk_activation {
    DK_ACT_NONE,
    DK_ACT_SILU,      /* x / (1 + exp(-x)) */
    DK_ACT_GELU_TANH, /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
} dk_activation;

/* A weight of int8, W[n][k] = scales[n] * values[n][k], packed once for a kernel of whole
   numbers: slice by slice of the depth (kernel->slice elements, the last may be shorter), in
   each the B panels of all columns one behind the other. */
typedef struct dk_linear_quantized {
    int64_t cols, depth; /* depth <= DK_GEMM_INT8_DEPTH */
    void *panels;
    float *scales; /* [cols] */
    size_t bytes;  /* of all its memory */
} dk_linear_quantized;

/* With an int8 weight each row of src is quantised too, with a scale of its own: sums are
   exact, y starts as sum * scale of the row * scale of the column.

   y = act(src · Wᵀ + bias); y *= multiply; y *= gate; y += residual; dst = y, in this order,
   every absent (NULL) operand left out, all in f32. SwiGLU is two layers: up first, then the
   gate with SILU and multiply = up. */
typedef struct dk_linear_args {
    int64_t rows, cols, depth;
    const void *src; /* [rows][depth], F32 or BF16 */
    dk_dtype src_type;
    int64_t src_stride; /* elements from row to row */
    const void *weight; /* [cols][depth], any type that decode.h lists */
    dk_dtype weight_type;
    const dk_linear_quantized *quantized; /* takes the place of weight; NULL: none */
    const float *bias;                    /* [cols] */
    dk_activation activation;
    const void *multiply; /* [rows][cols], type and stride of dst */
    const float *gate;    /* [cols], row r at r * gate_stride (0: one gate for all rows) */
    int64_t gate_stride;
    const void *residual; /* [rows][cols], type and stride of dst; may be dst itself */
    void *dst;            /* [rows][cols], F32 or BF16 */
    dk_dtype dst_type;
    int64_t dst_stride;
} dk_linear_args;

typedef struct dk_linear_plan {
    const dk_gemm_kernel *kernel;
    const dk_stored_format *stored;
    bool small;    /* few rows: linear_small.h */
    int64_t slice; /* elements of depth that are multiplied at a time */
    int passes;    /* over pass_rows rows each */
    int64_t pass_rows;
    int pack_tasks;                 /* stage 1 of a pass: rows */
    int weight_tasks;               /* stage 1 of the first pass: W, when it is packed once */
    int64_t block_rows, block_cols; /* of a pass's results */
    int row_blocks;                 /* of so many columns */
    dk_cut cut;                     /* of a pass's blocks into tasks of stage 2 */
    size_t shared_bytes;  /* packed rows of a pass, int8: and scales, all of W when it is
                             packed once; aligned to 64 */
    size_t scratch_bytes; /* per thread, aligned to 64 */
} dk_linear_plan;

typedef struct dk_linear_kernels {
    dk_gemm_kernels gemm;
    dk_quantize_kernels quantize;
    dk_decode_kernels decode;
    /* Stores a finished f32 tile of `rows` x `cols` at (m0, n0) through the epilogue. */
    void (*store)(const dk_linear_args *args, int64_t m0, int64_t n0, int rows, int cols,
                  const float *tile, int64_t ld);
} dk_linear_kernels;

void dk_linear_kernels_init(dk_linear_kernels *kernels, unsigned cpu_flags);

/* exact: f32 operands whatever the CPU multiplies faster. threads: how many will share the
   work. */
void dk_linear_plan_init(dk_linear_plan *plan, const dk_linear_kernels *kernels,
                         const dk_linear_args *args, bool exact, int threads);

/* Tasks of stage 1 of a pass. */
static inline int dk_linear_pack_tasks(const dk_linear_plan *plan, int pass)
{
    return plan->pack_tasks + (pass == 0 ? plan->weight_tasks : 0);
}

/* Stage 1 of a pass, with that thread's scratch: all its tasks come before any task of stage
   2. */
void dk_linear_pack(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                    const dk_linear_args *args, int pass, int task, void *shared,
                    void *scratch);
/* Stage 2, with that thread's scratch. */
void dk_linear_block(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                     const dk_linear_args *args, int pass, int task, const void *shared,
                     void *scratch);

/* Making an int8 weight of W: bytes of its panels, tasks that may run side by side, each with a
   scratch of its own. */
size_t dk_linear_int8_bytes(const dk_gemm_kernel *kernel, int64_t cols, int64_t depth);
int dk_linear_int8_tasks(const dk_gemm_kernel *kernel, int64_t cols);
size_t dk_linear_int8_scratch(const dk_gemm_kernel *kernel, int64_t depth); /* aligned to 64 */
/* out: cols, depth and the memory of panels and scales are set; w: [cols][depth], any float
   type. Quantises and packs the columns of one panel. */
void dk_linear_int8_pack(const dk_linear_kernels *kernels, const dk_linear_quantized *out,
                         const void *w, dk_dtype w_type, int task, void *scratch);

#endif
