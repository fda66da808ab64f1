/* Adopted host memory and what has become of it on the device. */
#include "device/xpu/weights.h"

#include <string.h>

#include "base/alloc.h"
#include "device/xpu/quantize.h"
#include "device/xpu/xpu.h"
#include "tensor/convert.h"

/* The first adopted piece that starts after the address. */
static int adopted_place(const dk_xpu_weights *weights, const void *address)
{
    int low = 0, high = weights->adopted_count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if ((uintptr_t)weights->adopted[middle].host <= (uintptr_t)address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const dk_xpu_adopted *dk_xpu_adopted_at(const dk_xpu *xpu, const void *address)
{
    const dk_xpu_weights *weights = &xpu->weights;
    int at = adopted_place(weights, address) - 1;
    if (at < 0 || (uintptr_t)address - (uintptr_t)weights->adopted[at].host >=
                      weights->adopted[at].bytes) {
        return NULL;
    }
    return &weights->adopted[at];
}

bool dk_xpu_passes(const dk_xpu *xpu, const void *host)
{
    const dk_xpu_adopted *adopted = dk_xpu_adopted_at(xpu, host);
    return adopted != NULL && adopted->passing;
}

void dk_xpu_adopt(dk_device *device, const dk_adoption *adoption)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_weights *weights = &xpu->weights;
    dk_error err;
    if (weights->adopted_count == weights->adopted_room) {
        weights->adopted_room = weights->adopted_room > 0 ? 2 * weights->adopted_room : 256;
        weights->adopted = dk_realloc(weights->adopted,
                                      (size_t)weights->adopted_room * sizeof *weights->adopted);
    }
    int at = adopted_place(weights, adoption->host);
    memmove(&weights->adopted[at + 1], &weights->adopted[at],
            (size_t)(weights->adopted_count - at) * sizeof *weights->adopted);
    weights->adopted[at] = (dk_xpu_adopted){.host = adoption->host,
                                            .bytes = adoption->bytes,
                                            .name = dk_strdup(adoption->name),
                                            .component = adoption->component,
                                            .passing = adoption->passing,
                                            .vectors = adoption->vectors};
    weights->adopted_count++;
    if (adoption->vectors) {
        dk_status status = dk_xpu_mirror(xpu, adoption->host, adoption->bytes, &err);
        if (status != DK_OK) {
            dk_xpu_fail(xpu, status, "%s: %s", adoption->name, err.message);
        }
    }
}

/* The first used weight that starts at or after the address. */
static int used_place(const dk_xpu_weights *weights, const void *address)
{
    int low = 0, high = weights->used_count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if ((uintptr_t)weights->used[middle].host < (uintptr_t)address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void release_weight(dk_xpu *xpu, dk_xpu_weight *weight)
{
    for (int i = 0; i < weight->form_count; i++) {
        xpu->head.packed_bytes -= weight->forms[i]->bytes;
        dk_xpu_form_release(xpu, weight->forms[i]);
    }
}

/* All that was made of weights inside this memory. */
static void release_inside(dk_xpu *xpu, const char *host, size_t bytes)
{
    dk_xpu_weights *weights = &xpu->weights;
    int first = used_place(weights, host), last = used_place(weights, host + bytes);
    for (int i = first; i < last; i++) {
        release_weight(xpu, &weights->used[i]);
    }
    memmove(&weights->used[first], &weights->used[last],
            (size_t)(weights->used_count - last) * sizeof *weights->used);
    weights->used_count -= last - first;
}

void dk_xpu_disown(dk_device *device, const void *host)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_weights *weights = &xpu->weights;
    int at = adopted_place(weights, host) - 1;
    if (at < 0 || weights->adopted[at].host != host) {
        return;
    }
    dk_xpu_adopted *gone = &weights->adopted[at];
    if (gone->vectors) {
        dk_xpu_unmirror(xpu, host);
    } else {
        release_inside(xpu, host, gone->bytes);
    }
    dk_free(gone->name);
    weights->adopted_count--;
    memmove(gone, gone + 1, (size_t)(weights->adopted_count - at) * sizeof *gone);
}

void dk_xpu_forget(dk_device *device, const void *host)
{
    dk_xpu *xpu = dk_xpu_of(device);
    const dk_xpu_adopted *adopted = dk_xpu_adopted_at(xpu, host);
    if (adopted != NULL && !adopted->vectors) {
        release_inside(xpu, adopted->host, adopted->bytes);
    }
}

void dk_xpu_weights_release(dk_xpu *xpu)
{
    dk_xpu_weights *weights = &xpu->weights;
    for (int i = 0; i < weights->used_count; i++) {
        release_weight(xpu, &weights->used[i]);
    }
    for (int i = 0; i < weights->adopted_count; i++) {
        dk_free(weights->adopted[i].name);
    }
    dk_xpu_rings_release(xpu);
    dk_free(weights->used);
    dk_free(weights->adopted);
    *weights = (dk_xpu_weights){0};
}

static dk_xpu_weight *used_weight(dk_xpu *xpu, const void *host)
{
    dk_xpu_weights *weights = &xpu->weights;
    int at = used_place(weights, host);
    if (at < weights->used_count && weights->used[at].host == host) {
        return &weights->used[at];
    }
    if (weights->used_count == weights->used_room) {
        weights->used_room = weights->used_room > 0 ? 2 * weights->used_room : 256;
        weights->used =
            dk_realloc(weights->used, (size_t)weights->used_room * sizeof *weights->used);
    }
    memmove(&weights->used[at + 1], &weights->used[at],
            (size_t)(weights->used_count - at) * sizeof *weights->used);
    weights->used[at] = (dk_xpu_weight){.host = host};
    weights->used_count++;
    return &weights->used[at];
}

static int64_t count_of(const dk_xpu_stored *stored)
{
    int64_t count = 1;
    for (int i = 0; i < stored->rank; i++) {
        count *= stored->dims[i];
    }
    return count;
}

void dk_xpu_stored_numbers(const dk_xpu_stored *stored, float *dst, int64_t first,
                           int64_t count)
{
    if (stored->quantized == NULL) {
        size_t offset = (size_t)first * dk_dtype_bytes(stored->type);
        dk_convert_to_f32(dst, (const char *)stored->host + offset, stored->type, count);
        return;
    }
    int64_t depth = stored->quantized->head.depth;
    while (count > 0) { /* column by column */
        int64_t left = depth - first % depth, some = count < left ? count : left;
        dk_xpu_dequantize(stored->quantized, dst, first / depth, first % depth, some);
        dst += some;
        first += some;
        count -= some;
    }
}

/* The weight's numbers in `type`, one behind the other as stored: the host's own bytes where
   they are of that type, else owned memory in *made. */
static const void *converted(dk_xpu *xpu, const dk_xpu_stored *stored, dnnl_data_type_t type,
                             void **made)
{
    enum { CHUNK = 16 * 1024 };
    dk_error err;
    float values[CHUNK];
    dk_dtype wanted = type == dnnl_bf16 ? DK_BF16 : DK_F32;
    *made = NULL;
    if (dk_xpu_stored_type(stored) == type) {
        return stored->host;
    }
    int64_t count = count_of(stored);
    size_t width = dk_dtype_bytes(wanted);
    dk_status status = dk_try_alloc(made, (size_t)count * width, "a converted weight", &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
        return NULL;
    }
    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t some = count - i < CHUNK ? count - i : CHUNK;
        dk_xpu_stored_numbers(stored, values, i, some);
        dk_convert_from_f32((char *)*made + (size_t)i * width, wanted, values, some);
    }
    return *made;
}

dnnl_data_type_t dk_xpu_stored_type(const dk_xpu_stored *stored)
{
    return stored->quantized != NULL ? dk_xpu_quantized_type(stored->quantized->kind)
                                     : dk_xpu_dnnl_type(stored->type);
}

static bool reorder(dk_xpu *xpu, void *dst, const_dnnl_memory_desc_t to, void *src,
                    const_dnnl_memory_desc_t from)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t source = NULL, target = NULL;
    bool done =
        dk_xpu_dnnl_ok(
            xpu,
            dnnl_reorder_primitive_desc_create(&desc, from, xpu->engine, to, xpu->engine, NULL),
            "reordering a weight") &&
        dk_xpu_dnnl_ok(xpu, dnnl_primitive_create(&primitive, desc), "reordering a weight") &&
        dk_xpu_dnnl_ok(xpu,
                       dnnl_sycl_interop_memory_create(&source, from, xpu->engine,
                                                       dnnl_sycl_interop_usm, src),
                       "reordering a weight") &&
        dk_xpu_dnnl_ok(xpu,
                       dnnl_sycl_interop_memory_create(&target, to, xpu->engine,
                                                       dnnl_sycl_interop_usm, dst),
                       "reordering a weight");
    if (done) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
        done = dk_xpu_dnnl_ok(xpu, dnnl_primitive_execute(primitive, xpu->stream, 2, args),
                              "reordering a weight") &&
               dk_xpu_dnnl_ok(xpu, dnnl_stream_wait(xpu->stream), "reordering a weight");
    }
    dnnl_memory_destroy(source);
    dnnl_memory_destroy(target);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(desc);
    return done;
}

/* Sends the weight as it is stored; the device puts it into its layout where that differs. */
static bool send(dk_xpu *xpu, dk_xpu_form *form, const void *values,
                 const_dnnl_memory_desc_t from)
{
    void *plain = NULL;
    dk_error err;
    size_t bytes = dnnl_memory_desc_get_size(from);
    if (dnnl_memory_desc_equal(from, form->desc)) {
        dk_xpu_write(xpu, form->device, values, bytes);
        return true;
    }
    if (dk_xpu_alloc(xpu, &plain, bytes, "a weight on its way", &err) != DK_OK) {
        dk_xpu_fail(xpu, err.status, "%s", err.message);
        return false;
    }
    dk_xpu_write(xpu, plain, values, bytes);
    bool done = reorder(xpu, form->device, form->desc, plain, from);
    dk_xpu_free(xpu, plain);
    return done;
}

static bool fill(dk_xpu *xpu, dk_xpu_form *form, const dk_xpu_stored *stored)
{
    dnnl_data_type_t type;
    dnnl_memory_desc_query(form->desc, dnnl_query_data_type, &type);
    dnnl_memory_desc_t from =
        dk_xpu_desc(xpu, stored->rank, stored->dims, stored->strides, type);
    void *made = NULL;
    const void *values = from != NULL ? converted(xpu, stored, type, &made) : NULL;
    bool done = values != NULL && send(xpu, form, values, from);
    dnnl_memory_desc_destroy(from);
    dk_free(made);
    return done;
}

/* Makes room for one more form of a weight: the oldest goes. */
static void make_room(dk_xpu *xpu, dk_xpu_weight *weight)
{
    if (weight->form_count == DK_XPU_MOST_FORMS) {
        xpu->head.packed_bytes -= weight->forms[0]->bytes;
        dk_xpu_form_release(xpu, weight->forms[0]);
        weight->form_count--;
        memmove(&weight->forms[0], &weight->forms[1],
                (size_t)weight->form_count * sizeof *weight->forms);
    }
}

/* On the device, in its layout, or where it comes and goes, on the host. */
static bool place(dk_xpu *xpu, dk_xpu_form *form, const dk_xpu_stored *stored, bool passes)
{
    dk_error err;
    if (passes) {
        return dk_xpu_form_pass(xpu, form, stored);
    }
    dk_status status = dk_xpu_alloc(xpu, &form->device, form->bytes, form->name, &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
        return false;
    }
    return fill(xpu, form, stored) && dk_xpu_form_settle(xpu, form, stored);
}

static dk_xpu_form *add_form(dk_xpu *xpu, dk_xpu_weight *weight, const dk_xpu_stored *stored,
                             const_dnnl_memory_desc_t desc)
{
    const dk_xpu_adopted *adopted = dk_xpu_adopted_at(xpu, stored->host);
    if (adopted == NULL) {
        dk_xpu_fail(xpu, DK_INTERNAL, "a weight was not adopted by the device");
        return NULL;
    }
    make_room(xpu, weight);
    dk_xpu_form *form = dk_alloc(sizeof *form);
    form->component = adopted->component;
    form->name = dk_strdup(adopted->name);
    form->residency = xpu->weights.options.of[adopted->component];
    form->bytes = dnnl_memory_desc_get_size(desc);
    form->desc = dk_xpu_clone(desc);
    if (!place(xpu, form, stored, adopted->passing)) {
        dk_xpu_free(xpu, form->device);
        form->device = NULL;
        dk_xpu_form_release(xpu, form);
        return NULL;
    }
    weight->forms[weight->form_count++] = form;
    xpu->head.packed_bytes += form->bytes;
    return form;
}

dk_xpu_form *dk_xpu_weight_in(dk_xpu *xpu, const dk_xpu_stored *stored,
                              const_dnnl_memory_desc_t desc)
{
    dk_xpu_weight *weight = used_weight(xpu, stored->host);
    for (int i = 0; i < weight->form_count; i++) {
        if (dnnl_memory_desc_equal(weight->forms[i]->desc, desc)) {
            return weight->forms[i];
        }
    }
    return add_form(xpu, weight, stored, desc);
}

const_dnnl_memory_desc_t dk_xpu_weight_layout(dk_xpu *xpu, const void *host,
                                              dnnl_data_type_t type)
{
    const dk_xpu_weights *weights = &xpu->weights;
    int at = used_place(weights, host);
    if (at == weights->used_count || weights->used[at].host != host) {
        return NULL;
    }
    const dk_xpu_weight *weight = &weights->used[at];
    for (int i = 0; i < weight->form_count; i++) {
        dnnl_data_type_t has;
        dnnl_memory_desc_query(weight->forms[i]->desc, dnnl_query_data_type, &has);
        if (has == type) {
            return weight->forms[i]->desc;
        }
    }
    return NULL;
}
