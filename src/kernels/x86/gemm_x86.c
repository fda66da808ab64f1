/* Which x86 matrix-multiply kernels a CPU gets. */
#include "kernels/x86/gemm_x86.h"

void dk_gemm_kernels_init_x86(dk_gemm_kernels *kernels, unsigned cpu_flags)
{
    (void)kernels;
    (void)cpu_flags;
}
