/* Writing safetensors files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "weights/safetensors.h"

enum { LENGTH_BYTES = 8 };

dk_status dk_safetensors_header(char **out, size_t *size, const dk_safetensors_entry *entries,
                                int count, const json_t *metadata, dk_error *err)
{
    json_t *header = json_object();
    size_t offset = 0;
    for (int i = 0; i < count; i++) {
        const dk_tensor *tensor = &entries[i].tensor;
        json_t *shape = json_array();
        for (int axis = 0; axis < tensor->rank; axis++) {
            json_array_append_new(shape, json_integer(tensor->shape[axis]));
        }
        size_t end = offset + dk_tensor_bytes(tensor);
        json_t *entry =
            json_pack("{s:s, s:o, s:[I, I]}", "dtype", dk_dtype_name(tensor->dtype), "shape",
                      shape, "data_offsets", (json_int_t)offset, (json_int_t)end);
        json_object_set_new(header, entries[i].name, entry);
        offset = end;
    }
    if (json_object_size(header) != (size_t)count ||
        json_object_get(header, "__metadata__") != NULL) {
        json_decref(header);
        return dk_fail(err, DK_INTERNAL,
                       "a safetensors file with two tensors of one name, or a name that is no "
                       "UTF-8 or means the metadata");
    }
    if (metadata != NULL) {
        json_object_set(header, "__metadata__", (json_t *)metadata);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    size_t length = strlen(text);
    size_t padded = (length + LENGTH_BYTES - 1) / LENGTH_BYTES * LENGTH_BYTES;
    char *bytes = dk_alloc(LENGTH_BYTES + padded);
    for (int i = 0; i < LENGTH_BYTES; i++) {
        bytes[i] = (char)(padded >> (8 * i) & 0xff);
    }
    memset(bytes + LENGTH_BYTES, ' ', padded);
    memcpy(bytes + LENGTH_BYTES, text, length);
    free(text);
    *out = bytes;
    *size = LENGTH_BYTES + padded;
    return DK_OK;
}

dk_status dk_safetensors_write(const char *path, const dk_safetensors_entry *entries, int count,
                               dk_error *err)
{
    char *header = NULL, *temporary = dk_file_temporary(path);
    size_t header_size = 0;
    FILE *file = NULL;
    dk_status status = dk_safetensors_header(&header, &header_size, entries, count, NULL, err);
    if (status != DK_OK) {
        goto done;
    }
    file = fopen(temporary, "wb");
    bool written = file != NULL && fwrite(header, 1, header_size, file) == header_size;
    for (int i = 0; i < count && written; i++) {
        size_t bytes = dk_tensor_bytes(&entries[i].tensor);
        written = fwrite(entries[i].tensor.data, 1, bytes, file) == bytes;
    }
    if (file != NULL) {
        written = fclose(file) == 0 && written;
    }
    status = written ? dk_file_publish(temporary, path, err)
                     : dk_fail(err, DK_IO, "%s: cannot be written", path);
done:
    if (status != DK_OK) {
        unlink(temporary);
    }
    dk_free(temporary);
    dk_free(header);
    return status;
}
