/* The x86 matrix-multiply kernels: one function per instruction set fills in a kernel. */
#ifndef DK_KERNELS_X86_GEMM_X86_H
#define DK_KERNELS_X86_GEMM_X86_H

#include "kernels/gemm.h"

/* Replaces what the flags allow to replace by something faster. */
void dk_gemm_kernels_init_x86(dk_gemm_kernels *kernels, unsigned cpu_flags);

extern const dk_gemm_kernel dk_gemm_f32_avx2, dk_gemm_f32_avx512, dk_gemm_bf16_avx512bf16,
    dk_gemm_bf16_amx;
extern const dk_gemm_kernel dk_gemm_int8_avx2, dk_gemm_int8_avxvnni, dk_gemm_int8_avx512,
    dk_gemm_int8_avx512vnni, dk_gemm_int8_amx;

#endif
