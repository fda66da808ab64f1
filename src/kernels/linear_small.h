/* Linear layers of few rows, a part of linear.c: packing W would cost more than multiplying by
   it, so that the roles change. The layer's rows are packed as the panels of B, once for all
   columns, and W's rows, where they lie, are the A operand: W is read from memory once, and the
   results come transposed. W is decoded first where the kernel cannot read its type. */
#ifndef DK_KERNELS_LINEAR_SMALL_H
#define DK_KERNELS_LINEAR_SMALL_H

#include "kernels/linear.h"

/* The kernel for a layer of that few rows; NULL: it has more, or the kernel no such function.
 */
const dk_gemm_kernel *dk_linear_small_kernel(const dk_linear_kernels *kernels,
                                             const dk_linear_args *args, bool exact);

/* Fills in the rest of a plan whose kernel, stored format and slice are chosen. */
void dk_linear_small_plan(dk_linear_plan *plan, const dk_linear_args *args);

/* The stages of dk_linear_pack and dk_linear_block. */
void dk_linear_small_pack(const dk_linear_plan *plan, const dk_linear_args *args, int task,
                          void *shared);
void dk_linear_small_block(const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                           const dk_linear_args *args, int task, const void *shared,
                           void *scratch);

#endif
