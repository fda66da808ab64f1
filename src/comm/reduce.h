/* Sums and maxima over the ranks' copies of a vector. */
#ifndef DK_COMM_REDUCE_H
#define DK_COMM_REDUCE_H

#include "comm/transport.h"

/* Whether there are such: F32, BF16, I32. */
bool dk_reduces(dk_dtype type);

/* dst[count] = src[0] + src[1] + … in this order (or the maximum; a NaN stays one). BF16 is
   summed in f32 and rounded once; I32 wraps around. dst may be one of the sources, which
   overlap no other way; all are aligned to their type. */
void dk_reduce(void *dst, const void *const *src, int sources, dk_dtype type, size_t count,
               dk_reduction reduction);

#endif
