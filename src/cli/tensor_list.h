/* Tensors of weight files, added up and listed. */
#ifndef DK_CLI_TENSOR_LIST_H
#define DK_CLI_TENSOR_LIST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/dtype.h"

typedef struct dk_tensor_list {
    bool tensors; /* list each */
    int files;
    int64_t tensor_count;
    uint64_t parameters, bytes;
    uint64_t dtype_parameters[DK_DTYPE_COUNT];
    json_t *listed;   /* array, owned; NULL until the first */
    json_t *metadata; /* object, owned; NULL until the first */
} dk_tensor_list;

DK_MUST_USE dk_status dk_tensor_list_add(dk_tensor_list *list, const char *path, dk_error *err);
void dk_tensor_list_release(dk_tensor_list *list);

/* Sets tensor_count, parameters, bytes, dtypes, metadata and tensors of the object. */
void dk_tensor_list_report(json_t *object, const dk_tensor_list *list);
/* Prints what dk_tensor_list_report has set, or nothing. */
void dk_tensor_list_print(const json_t *object);

#endif
