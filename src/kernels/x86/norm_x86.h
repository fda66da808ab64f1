/* The x86 versions of normalisation. */
#ifndef DK_KERNELS_X86_NORM_X86_H
#define DK_KERNELS_X86_NORM_X86_H

#include "kernels/norm.h"

void dk_norm_kernels_init_x86(dk_norm_kernels *kernels, unsigned cpu_flags);

dk_norm_fn dk_norm_avx2, dk_norm_avx512, dk_norm_avx512bf16;
dk_norm_rope_fn dk_norm_rope_avx2, dk_norm_rope_avx512, dk_norm_rope_avx512bf16;
dk_row_squares_fn dk_row_squares_avx2, dk_row_squares_avx512, dk_row_squares_avx512bf16;

#endif
