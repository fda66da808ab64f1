/* Which x86 versions of decoding a CPU gets. */
#include "kernels/x86/decode_x86.h"

#include "kernels/cpu_flags.h"

void dk_decode_kernels_init_x86(dk_decode_kernels *kernels, unsigned cpu_flags)
{
    dk_stored_format *of = kernels->of;
    if (cpu_flags & DK_CPU_AVX2) {
        of[DK_F16].decode = dk_decode_f16_avx2;
        of[DK_F8_E4M3].decode = dk_decode_f8_e4m3_avx2;
        of[DK_F8_E5M2].decode = dk_decode_f8_e5m2_avx2;
    }
    if (cpu_flags & DK_CPU_AVX512) {
        of[DK_F16].decode = dk_decode_f16_avx512;
        of[DK_F8_E4M3].decode = dk_decode_f8_e4m3_avx512;
        of[DK_F8_E5M2].decode = dk_decode_f8_e5m2_avx512;
    }
}
