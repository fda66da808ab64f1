/* Collects every problem of a checkpoint before it reports them. */
#include "weights/binder.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "tensor/convert.h"

enum { NAMED_PROBLEMS = 8, NAME_BYTES = 256 };

void dk_bound_release(dk_bound *bound)
{
    for (int i = 0; i < bound->adopted_count; i++) {
        dk_device_disown(bound->device, bound->adopted[i]);
    }
    dk_free(bound->adopted);
    for (int i = 0; i < bound->count; i++) {
        dk_free(bound->values[i]);
    }
    dk_free(bound->values);
    *bound = (dk_bound){0};
}

void dk_binder_init(dk_binder *binder, dk_weights *weights, dk_bound *bound, const char *where)
{
    *binder = (dk_binder){.weights = weights, .bound = bound, .where = where};
    binder->used = dk_alloc((size_t)dk_weights_count(weights) + 1);
    bound->device = dk_weights_device(weights, &binder->component);
    bound->shards = dk_weights_shards(weights);
    binder->comm = dk_weights_comm(weights);
    binder->layer = -1;
}

bool dk_binder_has(const dk_binder *binder, const char *name)
{
    return dk_weights_are_random(binder->weights) ||
           dk_weights_find(binder->weights, name) != NULL;
}

static void report(dk_binder *binder, const char *format, ...) DK_PRINTF(2, 3);
static void report(dk_binder *binder, const char *format, ...)
{
    char text[512];
    if (binder->problem_count++ < NAMED_PROBLEMS) {
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        dk_string_printf(&binder->problems, "%s%s", binder->problem_count > 1 ? "; " : "",
                         text);
    }
}

static void fail(dk_binder *binder, dk_status status, const dk_error *error)
{
    binder->status = status;
    report(binder, "%s", error->message);
}

static void report_shape(dk_binder *binder, const dk_tensor *tensor, int rank,
                         const int64_t *shape, const char *name)
{
    char is[DK_SHAPE_TEXT_BYTES], expected[DK_SHAPE_TEXT_BYTES];
    report(binder, "'%s' is %s, expected %s", name,
           dk_shape_text(is, tensor->rank, tensor->shape),
           dk_shape_text(expected, rank, shape));
}

static int index_of(const dk_binder *binder, const char *name)
{
    int low = 0, high = dk_weights_count(binder->weights) - 1;
    while (low <= high) {
        int middle = low + (high - low) / 2;
        int order = strcmp(dk_weights_at(binder->weights, middle)->name, name);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    return -1;
}

/* The tensor of that name, made when the weights are random; NULL after a report. */
static const dk_weight *take(dk_binder *binder, const char *name, int rank,
                             const int64_t *shape)
{
    const dk_weight *weight = NULL;
    if (dk_weights_are_random(binder->weights)) {
        dk_error err;
        dk_status status = dk_weights_make(binder->weights, &weight, name, rank, shape, &err);
        if (status != DK_OK) {
            fail(binder, status, &err);
        }
        return weight;
    }
    int index = index_of(binder, name);
    if (index < 0) {
        report(binder, "'%s' is missing", name);
        return NULL;
    }
    binder->used[index] = 1;
    weight = dk_weights_at(binder->weights, index);
    if (!dk_dtype_is_float(weight->tensor.dtype)) {
        report(binder, "'%s' has type %s, expected a float type", name,
               dk_dtype_name(weight->tensor.dtype));
        return NULL;
    }
    return weight;
}

static void keep(dk_bound *bound, void *values)
{
    bound->values =
        dk_realloc(bound->values, ((size_t)bound->count + 1) * sizeof *bound->values);
    bound->values[bound->count++] = values;
}

/* Tells the device, when there is one, what operations will name. */
static void adopt(dk_binder *binder, const void *host, size_t bytes, const char *name,
                  bool vectors)
{
    dk_bound *bound = binder->bound;
    bool passing = !vectors && dk_weights_layer(binder->weights, name) >= 0;
    if (bound->device == NULL) {
        return;
    }
    dk_device_adopt(bound->device, &(dk_adoption){.host = host,
                                                  .bytes = bytes,
                                                  .name = name,
                                                  .component = binder->component,
                                                  .passing = passing,
                                                  .vectors = vectors});
    bound->adopted =
        dk_realloc(bound->adopted, ((size_t)bound->adopted_count + 1) * sizeof *bound->adopted);
    bound->adopted[bound->adopted_count++] = host;
}

/* Bytes of all weights of a layer that the files have, in whatever type. */
static size_t room_of(dk_binder *binder, int layer)
{
    if (binder->layer == layer) {
        return binder->layer_room;
    }
    binder->layer = layer;
    binder->layer_room = 0;
    for (int i = 0; i < dk_weights_count(binder->weights); i++) {
        const dk_weight *weight = dk_weights_at(binder->weights, i);
        if (dk_weights_layer(binder->weights, weight->name) == layer) {
            size_t stored = dk_tensor_bytes(&weight->tensor);
            size_t wide = (size_t)dk_tensor_count(&weight->tensor) * sizeof(float);
            binder->layer_room += (stored > wide ? stored : wide) + DK_ALIGNMENT;
        }
    }
    return binder->layer_room;
}

/* A weight of a layer that is shared out among ranks: a matrix of a whole whose rows have
   `stride` bytes (0: of nothing else), from out->data on. It gets an address in the store, and
   there the type that the device asks for. */
static void share_out(dk_binder *binder, dk_tensor *out, size_t stride, const char *name)
{
    const dk_bound *bound = binder->bound;
    int layer = dk_weights_layer(binder->weights, name);
    size_t rows = (size_t)(out->shape[0] > 0 ? out->shape[0] : 1);
    dk_shard_source source = {.data = out->data,
                              .type = out->dtype,
                              .rows = (size_t)out->shape[0],
                              .cols = (size_t)dk_tensor_count(out) / rows,
                              .stride = stride > 0 ? stride : dk_tensor_bytes(out) / rows};
    dk_error err;
    if (layer < 0) {
        return;
    }
    if (bound->device != NULL && bound->device->ops->window != NULL) {
        out->dtype = bound->device->passing_type;
    }
    dk_status status = dk_shards_add(bound->shards, &out->data, layer, room_of(binder, layer),
                                     &source, out->dtype, &err);
    if (status != DK_OK) {
        fail(binder, status, &err);
        out->data = NULL;
    }
}

/* Old writers did not pad the header: kernels must not see pointers off their type's grid. */
static void align(dk_binder *binder, dk_tensor *tensor, const char *name)
{
    dk_error err;
    void *copy;
    if ((uintptr_t)tensor->data % dk_dtype_bytes(tensor->dtype) == 0 ||
        dk_weights_layer(binder->weights, name) >= 0) {
        return;
    }
    dk_status status = dk_try_alloc(&copy, dk_tensor_bytes(tensor), name, &err);
    if (status != DK_OK) {
        fail(binder, status, &err);
        tensor->data = NULL;
        return;
    }
    memcpy(copy, tensor->data, dk_tensor_bytes(tensor));
    keep(binder->bound, copy);
    tensor->data = copy;
}

/* The tensor of exactly this shape, at an address that its type allows; false after a report.
 */
static bool take_tensor(dk_binder *binder, dk_tensor *out, int rank, const int64_t *shape,
                        const char *name)
{
    *out = dk_tensor_view(NULL, DK_F32, rank, shape);
    const dk_weight *weight = take(binder, name, rank, shape);
    if (weight == NULL) {
        return false;
    }
    if (!dk_tensor_has_shape(&weight->tensor, rank, shape)) {
        report_shape(binder, &weight->tensor, rank, shape, name);
        return false;
    }
    *out = weight->tensor;
    align(binder, out, name);
    return out->data != NULL;
}

void dk_bind_tensor(dk_binder *binder, dk_tensor *out, int rank, const int64_t *shape,
                    const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    if (take_tensor(binder, out, rank, shape, name)) {
        share_out(binder, out, 0, name);
    }
    if (out->data != NULL) {
        adopt(binder, out->data, dk_tensor_bytes(out), name, false);
    }
}

dk_weight_part dk_weight_part_of(const dk_comm *comm, int64_t total, int64_t unit)
{
    if (comm == NULL) {
        return (dk_weight_part){0, total};
    }
    int ranks = dk_comm_ranks(comm), rank = dk_comm_rank(comm);
    int64_t units = total / unit;
    return (dk_weight_part){dk_part_begin(units, ranks, rank) * unit,
                            dk_part_size(units, ranks, rank) * unit};
}

/* Columns are strided: they are copied. */
static void take_columns(dk_binder *binder, dk_tensor *out, dk_weight_part part,
                         const char *name)
{
    dk_error err;
    void *copy;
    size_t unit = dk_dtype_bytes(out->dtype);
    size_t row = (size_t)out->shape[1] * unit, own = (size_t)part.count * unit;
    dk_status status = dk_try_alloc(&copy, (size_t)out->shape[0] * own + 1, name, &err);
    if (status != DK_OK) {
        fail(binder, status, &err);
        out->data = NULL;
        return;
    }
    for (int64_t i = 0; i < out->shape[0]; i++) {
        memcpy((char *)copy + (size_t)i * own,
               (const char *)out->data + (size_t)i * row + (size_t)part.begin * unit, own);
    }
    keep(binder->bound, copy);
    out->data = copy;
    out->shape[1] = part.count;
}

void dk_bind_part(dk_binder *binder, dk_tensor *out, int axis, int64_t unit,
                  const int64_t shape[2], const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    dk_weight_part part = dk_weight_part_of(binder->comm, shape[axis], unit);
    if (!take_tensor(binder, out, 2, shape, name)) {
        return;
    }
    size_t unit_bytes = dk_dtype_bytes(out->dtype), row = (size_t)shape[1] * unit_bytes;
    bool shared = dk_weights_layer(binder->weights, name) >= 0;
    if (axis == 0) {
        out->data = (char *)out->data + (size_t)part.begin * row;
        out->shape[0] = part.count;
    } else if (shared) {
        out->data = (char *)out->data + (size_t)part.begin * unit_bytes;
        out->shape[1] = part.count;
    } else if (part.count != shape[1]) {
        take_columns(binder, out, part, name);
    }
    if (shared) {
        share_out(binder, out, row, name);
    }
    if (out->data != NULL) {
        adopt(binder, out->data, dk_tensor_bytes(out), name, false);
    }
}

/* Compares shapes without their unit axes. */
static bool same_axes(const dk_tensor *tensor, int rank, const int64_t *shape)
{
    int i = 0, k = 0;
    for (;;) {
        while (i < tensor->rank && tensor->shape[i] == 1) {
            i++;
        }
        while (k < rank && shape[k] == 1) {
            k++;
        }
        if (i == tensor->rank || k == rank) {
            return i == tensor->rank && k == rank;
        }
        if (tensor->shape[i++] != shape[k++]) {
            return false;
        }
    }
}

/* part: elements of the whole, counted over all axes. */
static void bind_values(dk_binder *binder, const float **out, int rank, const int64_t *shape,
                        dk_weight_part part, const char *name)
{
    *out = NULL;
    const dk_weight *weight = take(binder, name, rank, shape);
    if (weight == NULL) {
        return;
    }
    if (!same_axes(&weight->tensor, rank, shape)) {
        report_shape(binder, &weight->tensor, rank, shape, name);
        return;
    }
    float *values = dk_alloc((size_t)part.count * sizeof *values);
    size_t begin = (size_t)part.begin * dk_dtype_bytes(weight->tensor.dtype);
    dk_convert_to_f32(values, (const char *)weight->tensor.data + begin, weight->tensor.dtype,
                      part.count);
    keep(binder->bound, values);
    adopt(binder, values, (size_t)part.count * sizeof *values, name, true);
    *out = values;
}

void dk_bind_f32(dk_binder *binder, const float **out, int64_t count, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bind_values(binder, out, 1, &count, (dk_weight_part){0, count}, name);
}

void dk_bind_f32_part(dk_binder *binder, const float **out, int64_t count, int64_t unit,
                      const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bind_values(binder, out, 1, &count, dk_weight_part_of(binder->comm, count, unit), name);
}

void dk_bind_f32_table(dk_binder *binder, const float **out, int64_t rows, int64_t cols,
                       const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bind_values(binder, out, 2, (int64_t[]){rows, cols}, (dk_weight_part){0, rows * cols},
                name);
}

static bool matches(const char *name, const char *pattern)
{
    size_t length = strlen(pattern);
    if (length > 0 && pattern[length - 1] == '*') {
        return strncmp(name, pattern, length - 1) == 0;
    }
    if (pattern[0] == '*') {
        return dk_ends_with(name, pattern + 1);
    }
    return strcmp(name, pattern) == 0;
}

static void report_extras(dk_binder *binder, const char *const *extras)
{
    for (int i = 0; i < dk_weights_count(binder->weights); i++) {
        const char *name = dk_weights_at(binder->weights, i)->name;
        bool known = binder->used[i] != 0;
        for (int k = 0; !known && extras[k] != NULL; k++) {
            known = matches(name, extras[k]);
        }
        if (!known) {
            report(binder, "'%s' is not a tensor of this model", name);
        }
    }
}

dk_status dk_binder_finish(dk_binder *binder, const char *const *extras, dk_error *err)
{
    if (!dk_weights_are_random(binder->weights)) {
        report_extras(binder, extras);
    }
    dk_status status = DK_OK;
    if (binder->problem_count > 0) {
        status = binder->status != DK_OK ? binder->status : DK_MISMATCH;
        int more = binder->problem_count - NAMED_PROBLEMS;
        char tail[32] = "";
        if (more > 0) {
            snprintf(tail, sizeof tail, "; and %d more", more);
        }
        status = dk_fail(
            err, status, "%s: %d of its tensors do not fit the configuration: %s%s",
            binder->where, binder->problem_count, dk_string_text(&binder->problems), tail);
    }
    dk_string_release(&binder->problems);
    dk_free(binder->used);
    *binder = (dk_binder){0};
    return status;
}
