/* Element-wise work: type casts, activations and the linear combinations of sampler and
 * guidance. */
#ifndef DK_KERNELS_ELEMENTWISE_H
#define DK_KERNELS_ELEMENTWISE_H

#include <stdint.h>

#include "kernels/linear.h"
#include "tensor/dtype.h"

enum { DK_COMBINE_MAX_TERMS = 8 };

/* dst = act(src), F32 or BF16 on either side; may be in place when the types are equal. */
typedef void dk_map_fn(void *dst, dk_dtype dst_type, const void *src, dk_dtype src_type,
                       dk_activation activation, int64_t count);

/* dst[i] = sum over terms, in order, of coef[t] * src[t][i]; dst may be one of the sources.
   1 <= terms <= DK_COMBINE_MAX_TERMS. */
typedef void dk_combine_fn(float *dst, const float *const *src, const float *coef, int terms,
                           int64_t count);

typedef struct dk_elementwise_kernels {
    dk_map_fn *map;
    dk_combine_fn *combine;
} dk_elementwise_kernels;

void dk_elementwise_kernels_init(dk_elementwise_kernels *kernels, unsigned cpu_flags);

#endif
