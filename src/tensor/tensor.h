/* A tensor view: shape, element type and borrowed data, always contiguous, last axis fastest.
 */
#ifndef DK_TENSOR_TENSOR_H
#define DK_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/dtype.h"

enum { DK_MAX_RANK = 8, DK_SHAPE_TEXT_BYTES = 192 };

typedef struct dk_tensor {
    dk_dtype dtype;
    int rank;                   /* 0 for a scalar */
    int64_t shape[DK_MAX_RANK]; /* [0, rank) */
    void *data;                 /* borrowed */
} dk_tensor;

/* A view of `data`; the shape is listed after rank, as int64_t. */
dk_tensor dk_tensor_view(void *data, dk_dtype dtype, int rank, const int64_t *shape);
#define DK_TENSOR(data, dtype, ...)                                                            \
    dk_tensor_view((data), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
                   (int64_t[]){__VA_ARGS__})

int64_t dk_tensor_count(const dk_tensor *tensor); /* elements; 1 for a scalar */
size_t dk_tensor_bytes(const dk_tensor *tensor);
bool dk_tensor_has_shape(const dk_tensor *tensor, int rank, const int64_t *shape);

/* "[1, 16, 3, 60, 104]" into text; returns text. */
const char *dk_shape_text(char text[DK_SHAPE_TEXT_BYTES], int rank, const int64_t *shape);

/* count = product of the shape, bytes = count * element size; false when a dimension is
   negative or a product does not fit in int64_t. */
bool dk_shape_count(int64_t *count, int rank, const int64_t *shape);

#endif
