/* The x86 versions of the linear layers' epilogue. */
#ifndef DK_KERNELS_X86_LINEAR_X86_H
#define DK_KERNELS_X86_LINEAR_X86_H

#include "kernels/linear.h"

void dk_linear_kernels_init_x86(dk_linear_kernels *kernels, unsigned cpu_flags);

void dk_linear_store_avx2(const dk_linear_args *args, int64_t m0, int64_t n0, int rows,
                          int cols, const float *tile, int64_t ld);
void dk_linear_store_avx512(const dk_linear_args *args, int64_t m0, int64_t n0, int rows,
                            int cols, const float *tile, int64_t ld);
void dk_linear_store_avx512bf16(const dk_linear_args *args, int64_t m0, int64_t n0, int rows,
                                int cols, const float *tile, int64_t ld);

#endif
