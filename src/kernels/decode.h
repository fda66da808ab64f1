/* Stored weights as f32: one entry for each type that a weight file may hold. The matrix
   kernels read F32 and BF16 as they lie; every other type is decoded row by row into a small
   buffer first, so that a new stored format is an entry here and changes no kernel. A row of a
   format of blocks (a scale for each 32 or 256 elements) is whole blocks, one behind the other.
 */
#ifndef DK_KERNELS_DECODE_H
#define DK_KERNELS_DECODE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* dst[i] = element k0 + i of a stored row, i < count, exactly where f32 holds it (F64: rounded
   to nearest even); a NaN becomes some NaN. row: its first byte, aligned to an element's size;
   k0: a multiple of the format's block. Nothing behind element k0 + count is read but the rest
   of its block. */
typedef void dk_decode_fn(float *dst, const void *row, int64_t k0, int64_t count);

typedef struct dk_stored_format {
    int block; /* elements that are stored together; 0: no type of weights */
    int block_bytes;
    dk_decode_fn *decode; /* NULL: the matrix kernels read it as it lies */
} dk_stored_format;

typedef struct dk_decode_kernels {
    dk_stored_format of[DK_DTYPE_COUNT];
} dk_decode_kernels;

void dk_decode_kernels_init(dk_decode_kernels *kernels, unsigned cpu_flags);

static inline const dk_stored_format *dk_stored_format_of(const dk_decode_kernels *kernels,
                                                          dk_dtype type)
{
    assert(kernels->of[type].block > 0);
    return &kernels->of[type];
}

/* Bytes of `count` elements of a row, whole blocks. */
static inline size_t dk_stored_bytes(const dk_stored_format *format, int64_t count)
{
    return (size_t)((count + format->block - 1) / format->block) * (size_t)format->block_bytes;
}

#endif
