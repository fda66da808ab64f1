/* The x86 matrix-multiply kernels. */
#ifndef DK_KERNELS_X86_GEMM_X86_H
#define DK_KERNELS_X86_GEMM_X86_H

#include "kernels/gemm.h"

/* Replaces what the flags allow to replace by something faster. */
void dk_gemm_kernels_init_x86(dk_gemm_kernels *kernels, unsigned cpu_flags);

#endif
