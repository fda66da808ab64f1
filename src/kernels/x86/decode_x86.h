/* The x86 versions of decoding. */
#ifndef DK_KERNELS_X86_DECODE_X86_H
#define DK_KERNELS_X86_DECODE_X86_H

#include "kernels/decode.h"

void dk_decode_kernels_init_x86(dk_decode_kernels *kernels, unsigned cpu_flags);

dk_decode_fn dk_decode_f16_avx2, dk_decode_f8_e4m3_avx2, dk_decode_f8_e5m2_avx2;
dk_decode_fn dk_decode_f16_avx512, dk_decode_f8_e4m3_avx512, dk_decode_f8_e5m2_avx512;

#endif
