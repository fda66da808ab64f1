/* Sixteen units of four neighbours in k from a row of int8: what AVX512_VNNI and AMX pack.
   Included only by files compiled for AVX-512. */
#ifndef DK_KERNELS_X86_LOAD_QUADS_AVX512_H
#define DK_KERNELS_X86_LOAD_QUADS_AVX512_H

#include "kernels/x86/vec_avx512.h"

/* Zeros behind `count` >= 1 elements. */
static inline ivec dk_load_quads(const int8_t *row, int64_t count)
{
    __mmask64 mask = count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
    return _mm512_maskz_loadu_epi8(mask, row);
}

#endif
