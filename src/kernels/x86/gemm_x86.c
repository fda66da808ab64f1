/* Which x86 matrix-multiply kernels a CPU gets. */
#include "kernels/x86/gemm_x86.h"

#include "kernels/cpu_flags.h"

void dk_gemm_kernels_init_x86(dk_gemm_kernels *kernels, unsigned cpu_flags)
{
    if (cpu_flags & DK_CPU_AVX2) {
        kernels->f32 = kernels->bf16 = dk_gemm_f32_avx2;
        kernels->int8 = dk_gemm_int8_avx2;
    }
    if (cpu_flags & DK_CPU_AVX_VNNI) {
        kernels->int8 = dk_gemm_int8_avxvnni;
    }
    if (cpu_flags & DK_CPU_AVX512) {
        kernels->f32 = kernels->bf16 = dk_gemm_f32_avx512;
        kernels->int8 = dk_gemm_int8_avx512;
    }
    if (cpu_flags & DK_CPU_AVX512_VNNI) {
        kernels->int8 = dk_gemm_int8_avx512vnni;
    }
    if (cpu_flags & DK_CPU_AVX512_BF16) {
        kernels->bf16 = dk_gemm_bf16_avx512bf16;
    }
    if (cpu_flags & DK_CPU_AMX) {
        kernels->bf16 = dk_gemm_bf16_amx;
        kernels->int8 = dk_gemm_int8_amx;
    }
}
