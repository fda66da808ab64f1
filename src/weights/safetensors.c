/* Reading safetensors headers with every size checked. */
#include "weights/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"

enum { LENGTH_BYTES = 8, HEADER_LIMIT = 100 * 1024 * 1024, MAX_NAME_BYTES = 512 };

struct dk_safetensors {
    dk_mapping mapping; /* closed at the end when it was opened here */
    dk_arena names;
    json_t *header;     /* owned; keeps the metadata */
    dk_weight *weights; /* [count], in the order of their data */
    dk_weight **sorted; /* [count], by name */
    int count;
};

static uint64_t read_u64(const unsigned char *bytes)
{
    uint64_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static dk_status parse_shape(dk_tensor *tensor, const json_t *entry, const char *where,
                             const char *name, dk_error *err)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > DK_MAX_RANK) {
        return dk_fail(err, DK_FORMAT,
                       "%s: tensor '%s' has no shape, expected an array of at most %d sizes",
                       where, name, DK_MAX_RANK);
    }
    tensor->rank = (int)json_array_size(shape);
    for (int i = 0; i < tensor->rank; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0) {
            return dk_fail(
                err, DK_FORMAT,
                "%s: tensor '%s' has a bad size at axis %d, expected a number from 0", where,
                name, i);
        }
        tensor->shape[i] = json_integer_value(size);
    }
    int64_t count;
    size_t all_bits;
    size_t bits = dk_dtype_bits(tensor->dtype);
    if (!dk_shape_count(&count, tensor->rank, tensor->shape) ||
        !dk_mul_size(&all_bits, (size_t)count, bits)) {
        char text[DK_SHAPE_TEXT_BYTES];
        return dk_fail(err, DK_FORMAT, "%s: tensor '%s' of shape %s is too large", where, name,
                       dk_shape_text(text, tensor->rank, tensor->shape));
    }
    if (all_bits % 8 != 0) {
        return dk_fail(err, DK_FORMAT, "%s: tensor '%s' ends inside a byte", where, name);
    }
    return DK_OK;
}

static dk_status parse_offsets(dk_tensor *tensor, const json_t *entry, const dk_mapping *data,
                               const char *where, const char *name, dk_error *err)
{
    int64_t offsets[2] = {0, 0};
    int count = 0;
    char tensor_name[MAX_NAME_BYTES + 16];
    snprintf(tensor_name, sizeof tensor_name, "tensor '%s'", name);
    dk_status status = dk_json_ints(entry, "data_offsets", 2, 2, 0, INT64_MAX, DK_JSON_REQUIRED,
                                    offsets, &count, tensor_name, err);
    if (status != DK_OK) {
        return dk_fail_in(err, status, "%s", where);
    }
    if (offsets[1] < offsets[0] || (uint64_t)offsets[1] > data->size) {
        return dk_fail(err, DK_FORMAT,
                       "%s: tensor '%s' lies at bytes %lld to %lld, but the file has %zu bytes "
                       "of data",
                       where, name, (long long)offsets[0], (long long)offsets[1], data->size);
    }
    if ((uint64_t)(offsets[1] - offsets[0]) != dk_tensor_bytes(tensor)) {
        char text[DK_SHAPE_TEXT_BYTES];
        return dk_fail(err, DK_FORMAT,
                       "%s: tensor '%s' of shape %s and type %s needs %zu bytes, but has %lld",
                       where, name, dk_shape_text(text, tensor->rank, tensor->shape),
                       dk_dtype_name(tensor->dtype), dk_tensor_bytes(tensor),
                       (long long)(offsets[1] - offsets[0]));
    }
    tensor->data = (void *)(data->data + offsets[0]);
    return DK_OK;
}

static dk_status parse_weight(dk_safetensors *file, dk_weight *weight, const char *name,
                              const json_t *entry, const dk_mapping *data, const char *where,
                              dk_error *err)
{
    if (!json_is_object(entry)) {
        return dk_fail(err, DK_FORMAT, "%s: header entry '%.80s' is %s, expected an object",
                       where, name, dk_json_type_name(entry));
    }
    if (strlen(name) > MAX_NAME_BYTES) {
        return dk_fail(err, DK_FORMAT, "%s: a tensor name of %zu bytes, accepted are up to %d",
                       where, strlen(name), MAX_NAME_BYTES);
    }
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (dtype == NULL || !dk_dtype_from_name(&weight->tensor.dtype, dtype)) {
        return dk_fail(err, DK_FORMAT, "%s: tensor '%s' has %s type '%.40s', accepted are %s",
                       where, name, dtype != NULL ? "the unknown" : "no",
                       dtype != NULL ? dtype : "", dk_dtype_names());
    }
    DK_TRY(parse_shape(&weight->tensor, entry, where, name, err));
    DK_TRY(parse_offsets(&weight->tensor, entry, data, where, name, err));
    weight->name = dk_arena_strndup(&file->names, name, strlen(name));
    return DK_OK;
}

static int by_data(const void *a, const void *b)
{
    const dk_weight *left = a, *right = b;
    const char *pa = left->tensor.data, *pb = right->tensor.data;
    if (pa != pb) {
        return pa < pb ? -1 : 1;
    }
    size_t na = dk_tensor_bytes(&left->tensor), nb = dk_tensor_bytes(&right->tensor);
    return na < nb ? -1 : na > nb ? 1 : strcmp(left->name, right->name);
}

static int by_name(const void *a, const void *b)
{
    const dk_weight *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* Data must be covered without gaps or overlaps, so that nothing can hide in a file. */
static dk_status check_cover(const dk_safetensors *file, const dk_mapping *data,
                             const char *where, dk_error *err)
{
    const unsigned char *expected = data->data;
    for (int i = 0; i < file->count; i++) {
        const dk_weight *weight = &file->weights[i];
        if ((const unsigned char *)weight->tensor.data != expected) {
            return dk_fail(err, DK_FORMAT,
                           "%s: the data of tensor '%s' leaves a gap or overlaps another",
                           where, weight->name);
        }
        expected += dk_tensor_bytes(&weight->tensor);
    }
    if (expected != data->data + data->size) {
        return dk_fail(err, DK_FORMAT, "%s: %zu bytes at the end belong to no tensor", where,
                       (size_t)(data->data + data->size - expected));
    }
    return DK_OK;
}

static dk_status check_metadata(const json_t *metadata, const char *where, dk_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) {
        return dk_fail(err, DK_FORMAT, "%s: __metadata__ is %s, expected an object", where,
                       dk_json_type_name(metadata));
    }
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value)) {
            return dk_fail(err, DK_FORMAT, "%s: __metadata__ '%.80s' is %s, expected a string",
                           where, key, dk_json_type_name(value));
        }
    }
    return DK_OK;
}

static dk_status parse_header(dk_safetensors *file, const char *where, dk_error *err)
{
    const dk_mapping *all = &file->mapping;
    if (all->size < LENGTH_BYTES) {
        return dk_fail(err, DK_FORMAT, "%s: %zu bytes are too few for a safetensors file",
                       where, all->size);
    }
    uint64_t length = read_u64(all->data);
    if (length > HEADER_LIMIT || length > all->size - LENGTH_BYTES) {
        return dk_fail(err, DK_FORMAT,
                       "%s: a header of %llu bytes does not fit a file of %zu bytes (limit %d)",
                       where, (unsigned long long)length, all->size, HEADER_LIMIT);
    }
    const char *text = (const char *)all->data + LENGTH_BYTES;
    if (length == 0 || text[0] != '{') {
        return dk_fail(err, DK_FORMAT, "%s: the header does not start with '{'", where);
    }
    DK_TRY(dk_json_parse(&file->header, text, (size_t)length, where, err));
    const dk_mapping data = {.data = all->data + LENGTH_BYTES + length,
                             .size = all->size - LENGTH_BYTES - (size_t)length};
    size_t entries = json_object_size(file->header);
    file->weights = dk_alloc(entries * sizeof *file->weights);
    file->sorted = dk_alloc(entries * sizeof *file->sorted);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            DK_TRY(check_metadata(entry, where, err));
        } else {
            DK_TRY(parse_weight(file, &file->weights[file->count], name, entry, &data, where,
                                err));
            file->count++;
        }
    }
    qsort(file->weights, (size_t)file->count, sizeof *file->weights, by_data);
    for (int i = 0; i < file->count; i++) {
        file->sorted[i] = &file->weights[i];
    }
    qsort(file->sorted, (size_t)file->count, sizeof *file->sorted, by_name);
    return check_cover(file, &data, where, err);
}

static dk_status open_bytes(dk_safetensors **out, dk_mapping mapping, const char *where,
                            bool owned, dk_error *err)
{
    dk_safetensors *file = dk_alloc(sizeof *file);
    dk_arena_init(&file->names);
    file->mapping = mapping;
    dk_status status = parse_header(file, where, err);
    if (!owned) {
        file->mapping = (dk_mapping){0};
    }
    if (status != DK_OK) {
        dk_safetensors_close(&file);
        return status;
    }
    *out = file;
    return DK_OK;
}

dk_status dk_safetensors_open(dk_safetensors **out, const char *path, dk_error *err)
{
    dk_mapping mapping;
    DK_TRY(dk_mapping_open(&mapping, path, err));
    return open_bytes(out, mapping, path, true, err);
}

dk_status dk_safetensors_parse(dk_safetensors **out, const void *data, size_t size,
                               const char *where, dk_error *err)
{
    return open_bytes(out, (dk_mapping){.data = data, .size = size}, where, false, err);
}

void dk_safetensors_close(dk_safetensors **file)
{
    if (*file != NULL) {
        json_decref((*file)->header);
        dk_free((*file)->weights);
        dk_free((*file)->sorted);
        dk_arena_release(&(*file)->names);
        dk_mapping_close(&(*file)->mapping);
        dk_free(*file);
        *file = NULL;
    }
}

const dk_weight *dk_safetensors_find(const dk_safetensors *file, const char *name)
{
    dk_weight key = {.name = name};
    dk_weight *pointer = &key;
    dk_weight *const *found = NULL;
    if (file->count > 0) {
        found =
            bsearch(&pointer, file->sorted, (size_t)file->count, sizeof *file->sorted, by_name);
    }
    return found != NULL ? *found : NULL;
}

int dk_safetensors_count(const dk_safetensors *file)
{
    return file->count;
}

const dk_weight *dk_safetensors_at(const dk_safetensors *file, int index)
{
    return &file->weights[index];
}

const json_t *dk_safetensors_all_metadata(const dk_safetensors *file)
{
    return json_object_get(file->header, "__metadata__");
}

const char *dk_safetensors_metadata(const dk_safetensors *file, const char *key)
{
    const json_t *metadata = json_object_get(file->header, "__metadata__");
    return json_string_value(json_object_get(metadata, key));
}
