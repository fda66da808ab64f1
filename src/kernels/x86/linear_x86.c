/* Which x86 version of the linear layers' epilogue a CPU gets. */
#include "kernels/x86/linear_x86.h"

#include "kernels/cpu_flags.h"

void dk_linear_kernels_init_x86(dk_linear_kernels *kernels, unsigned cpu_flags)
{
    if (cpu_flags & DK_CPU_AVX2) {
        kernels->store = dk_linear_store_avx2;
    }
    if (cpu_flags & DK_CPU_AVX512) {
        kernels->store = dk_linear_store_avx512;
    }
    if (cpu_flags & DK_CPU_AVX512_BF16) {
        kernels->store = dk_linear_store_avx512bf16;
    }
}
