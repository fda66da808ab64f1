/* Which x86 versions of element-wise work a CPU gets. */
#include "kernels/x86/elementwise_x86.h"

#include "kernels/cpu_flags.h"

void dk_elementwise_kernels_init_x86(dk_elementwise_kernels *kernels, unsigned cpu_flags)
{
    if (cpu_flags & DK_CPU_AVX2) {
        kernels->map = dk_map_avx2;
        kernels->combine = dk_combine_avx2;
    }
    if (cpu_flags & DK_CPU_AVX512) {
        kernels->map = dk_map_avx512;
        kernels->combine = dk_combine_avx512;
    }
}
