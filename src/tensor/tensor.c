/* Tensor views. */
#include "tensor/tensor.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

dk_tensor dk_tensor_view(void *data, dk_dtype dtype, int rank, const int64_t *shape)
{
    assert(rank >= 0 && rank <= DK_MAX_RANK);
    dk_tensor tensor = {.dtype = dtype, .rank = rank, .data = data};
    for (int i = 0; i < rank; i++) {
        tensor.shape[i] = shape[i];
    }
    return tensor;
}

int64_t dk_tensor_count(const dk_tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) {
        count *= tensor->shape[i];
    }
    return count;
}

size_t dk_tensor_bytes(const dk_tensor *tensor)
{
    return (size_t)dk_tensor_count(tensor) * dk_dtype_bits(tensor->dtype) / 8;
}

bool dk_tensor_has_shape(const dk_tensor *tensor, int rank, const int64_t *shape)
{
    return tensor->rank == rank &&
           memcmp(tensor->shape, shape, (size_t)rank * sizeof shape[0]) == 0;
}

const char *dk_shape_text(char text[DK_SHAPE_TEXT_BYTES], int rank, const int64_t *shape)
{
    size_t used = 0;
    text[used++] = '[';
    for (int i = 0; i < rank && used < DK_SHAPE_TEXT_BYTES - 24; i++) {
        used += (size_t)snprintf(text + used, DK_SHAPE_TEXT_BYTES - used, "%s%lld",
                                 i > 0 ? ", " : "", (long long)shape[i]);
    }
    snprintf(text + used, DK_SHAPE_TEXT_BYTES - used, "]");
    return text;
}

bool dk_shape_count(int64_t *count, int rank, const int64_t *shape)
{
    int64_t product = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(product, shape[i], &product)) {
            return false;
        }
    }
    *count = product;
    return true;
}
