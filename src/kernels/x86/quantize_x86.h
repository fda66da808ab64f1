/* The x86 versions of quantisation. */
#ifndef DK_KERNELS_X86_QUANTIZE_X86_H
#define DK_KERNELS_X86_QUANTIZE_X86_H

#include "kernels/quantize.h"

void dk_quantize_kernels_init_x86(dk_quantize_kernels *kernels, unsigned cpu_flags);

dk_quantize_rows_fn dk_quantize_rows_avx2, dk_quantize_rows_avx512;
dk_rescale_fn dk_rescale_avx2, dk_rescale_avx512;

#endif
