/* The x86 versions of element-wise work. */
#ifndef DK_KERNELS_X86_ELEMENTWISE_X86_H
#define DK_KERNELS_X86_ELEMENTWISE_X86_H

#include "kernels/elementwise.h"

void dk_elementwise_kernels_init_x86(dk_elementwise_kernels *kernels, unsigned cpu_flags);

dk_map_fn dk_map_avx2, dk_map_avx512;
dk_combine_fn dk_combine_avx2, dk_combine_avx512;

#endif
