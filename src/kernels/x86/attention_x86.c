/* Which x86 versions of attention's parts a CPU gets. */
#include "kernels/x86/attention_x86.h"

#include "kernels/cpu_flags.h"

void dk_attention_kernels_init_x86(dk_attention_kernels *kernels, unsigned cpu_flags)
{
    if (cpu_flags & DK_CPU_AVX2) {
        kernels->softmax = dk_softmax_avx2;
        kernels->scale_row = dk_scale_row_avx2;
    }
    if (cpu_flags & DK_CPU_AVX512) {
        kernels->softmax = dk_softmax_avx512;
        kernels->scale_row = dk_scale_row_avx512;
    }
    if (cpu_flags & DK_CPU_AVX512_BF16) {
        kernels->softmax = dk_softmax_avx512bf16;
        kernels->packed_group = 32;
        kernels->scale_row = dk_scale_row_avx512bf16;
    }
}
