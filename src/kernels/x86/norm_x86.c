/* Which x86 versions of normalisation a CPU gets. */
#include "kernels/x86/norm_x86.h"

#include "kernels/cpu_flags.h"

void dk_norm_kernels_init_x86(dk_norm_kernels *kernels, unsigned cpu_flags)
{
    if (cpu_flags & DK_CPU_AVX2) {
        kernels->norm = dk_norm_avx2;
        kernels->norm_rope = dk_norm_rope_avx2;
        kernels->row_squares = dk_row_squares_avx2;
    }
    if (cpu_flags & DK_CPU_AVX512) {
        kernels->norm = dk_norm_avx512;
        kernels->norm_rope = dk_norm_rope_avx512;
        kernels->row_squares = dk_row_squares_avx512;
    }
    if (cpu_flags & DK_CPU_AVX512_BF16) {
        kernels->norm = dk_norm_avx512bf16;
        kernels->norm_rope = dk_norm_rope_avx512bf16;
        kernels->row_squares = dk_row_squares_avx512bf16;
    }
}
