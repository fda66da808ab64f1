/* Which x86 versions of quantisation a CPU gets. */
#include "kernels/x86/quantize_x86.h"

#include "kernels/cpu_flags.h"

void dk_quantize_kernels_init_x86(dk_quantize_kernels *kernels, unsigned cpu_flags)
{
    if (cpu_flags & DK_CPU_AVX2) {
        kernels->quantize_rows = dk_quantize_rows_avx2;
        kernels->rescale = dk_rescale_avx2;
    }
    if (cpu_flags & DK_CPU_AVX512) {
        kernels->quantize_rows = dk_quantize_rows_avx512;
        kernels->rescale = dk_rescale_avx512;
    }
}
