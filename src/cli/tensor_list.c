/* Listing tensors. */
#include "cli/tensor_list.h"

#include <stdio.h>
#include <string.h>

#include "cli/report.h"
#include "weights/safetensors.h"

static json_t *describe(const dk_weight *weight)
{
    json_t *shape = json_array();
    for (int i = 0; i < weight->tensor.rank; i++) {
        json_array_append_new(shape, json_integer(weight->tensor.shape[i]));
    }
    return json_pack("{s:s, s:s, s:o, s:I}", "name", weight->name, "dtype",
                     dk_dtype_name(weight->tensor.dtype), "shape", shape, "bytes",
                     (json_int_t)dk_tensor_bytes(&weight->tensor));
}

dk_status dk_tensor_list_add(dk_tensor_list *list, const char *path, dk_error *err)
{
    dk_safetensors *file;
    DK_TRY(dk_safetensors_open(&file, path, err));
    if (list->listed == NULL) {
        list->listed = json_array();
        list->metadata = json_object();
    }
    for (int i = 0; i < dk_safetensors_count(file); i++) {
        const dk_weight *weight = dk_safetensors_at(file, i);
        uint64_t count = (uint64_t)dk_tensor_count(&weight->tensor);
        list->tensor_count++;
        list->parameters += count;
        list->bytes += dk_tensor_bytes(&weight->tensor);
        list->dtype_parameters[weight->tensor.dtype] += count;
        if (list->tensors) {
            json_array_append_new(list->listed, describe(weight));
        }
    }
    if (dk_safetensors_all_metadata(file) != NULL) {
        json_object_update(list->metadata, (json_t *)dk_safetensors_all_metadata(file));
    }
    list->files++;
    dk_safetensors_close(&file);
    return DK_OK;
}

void dk_tensor_list_release(dk_tensor_list *list)
{
    json_decref(list->listed);
    json_decref(list->metadata);
    *list = (dk_tensor_list){0};
}

void dk_tensor_list_report(json_t *object, const dk_tensor_list *list)
{
    json_t *dtypes = json_object();
    for (int i = 0; i < DK_DTYPE_COUNT; i++) {
        if (list->dtype_parameters[i] > 0) {
            json_object_set_new(dtypes, dk_dtype_name((dk_dtype)i),
                                json_integer((json_int_t)list->dtype_parameters[i]));
        }
    }
    json_object_set_new(object, "tensor_count", json_integer(list->tensor_count));
    json_object_set_new(object, "parameters", json_integer((json_int_t)list->parameters));
    json_object_set_new(object, "bytes", json_integer((json_int_t)list->bytes));
    json_object_set_new(object, "dtypes", dtypes);
    json_object_set(object, "metadata", list->metadata);
    if (list->tensors) {
        json_object_set(object, "tensors", list->listed);
    }
}

static void print_tensors(const json_t *tensors)
{
    json_t *tensor;
    size_t i;
    json_array_foreach(tensors, i, tensor)
    {
        char shape[DK_SHAPE_TEXT_BYTES];
        int64_t sizes[DK_MAX_RANK] = {0};
        const json_t *array = json_object_get(tensor, "shape");
        int rank = (int)json_array_size(array);
        for (int axis = 0; axis < rank; axis++) {
            sizes[axis] = json_integer_value(json_array_get(array, (size_t)axis));
        }
        dk_report_line("    %-12s %-24s %s",
                       json_string_value(json_object_get(tensor, "dtype")),
                       dk_shape_text(shape, rank, sizes),
                       json_string_value(json_object_get(tensor, "name")));
    }
}

void dk_tensor_list_print(const json_t *object)
{
    const char *key;
    json_t *value;
    if (json_object_get(object, "tensor_count") == NULL) {
        return;
    }
    printf("    %lld tensors, %.2f million parameters, %.2f MB:",
           (long long)json_integer_value(json_object_get(object, "tensor_count")),
           (double)json_integer_value(json_object_get(object, "parameters")) / 1e6,
           (double)json_integer_value(json_object_get(object, "bytes")) / 1e6);
    json_object_foreach(json_object_get(object, "dtypes"), key, value)
    {
        printf(" %s %.2f M", key, (double)json_integer_value(value) / 1e6);
    }
    printf("\n");
    json_object_foreach(json_object_get(object, "metadata"), key, value)
    {
        dk_report_line("    metadata %s: %s", key, json_string_value(value));
    }
    print_tensors(json_object_get(object, "tensors"));
}
