/* The cache of primitives. */
#include "device/xpu/primitives.h"

#include <string.h>

#include "base/alloc.h"
#include "device/xpu/xpu.h"

enum { FIRST_ROOM = 256, MOST_VIEWS = 512 };

bool dk_xpu_dnnl_ok(dk_xpu *xpu, dnnl_status_t status, const char *what)
{
    static const char *const names[] = {
        [dnnl_out_of_memory] = "out of memory",
        [dnnl_invalid_arguments] = "invalid arguments",
        [dnnl_unimplemented] = "not implemented for this device",
        [dnnl_last_impl_reached] = "no implementation is left",
        [dnnl_runtime_error] = "failed at run time: the device was lost, or its driver failed",
        [dnnl_not_required] = "not required",
    };
    if (status == dnnl_success) {
        return true;
    }
    bool known = (int)status > 0 && (size_t)status < sizeof names / sizeof *names;
    dk_xpu_fail(xpu, status == dnnl_out_of_memory ? DK_MEMORY : DK_DEVICE, "%s: oneDNN: %s: %s",
                xpu->head.description, what,
                known && names[status] != NULL ? names[status] : "unknown failure");
    return false;
}

dnnl_data_type_t dk_xpu_dnnl_type(dk_dtype type)
{
    switch (type) {
    case DK_F32:
        return dnnl_f32;
    case DK_BF16:
        return dnnl_bf16;
    case DK_F16:
        return dnnl_f16;
    case DK_I8:
        return dnnl_s8;
    case DK_F8_E4M3:
        return dnnl_f8_e4m3;
    case DK_F8_E5M2:
        return dnnl_f8_e5m2;
    default:
        return dnnl_data_type_undef;
    }
}

dnnl_memory_desc_t dk_xpu_desc(dk_xpu *xpu, int rank, const int64_t *dims,
                               const int64_t *strides, dnnl_data_type_t type)
{
    dnnl_memory_desc_t desc = NULL;
    dnnl_status_t status =
        dnnl_memory_desc_create_with_strides(&desc, rank, dims, type, strides);
    return dk_xpu_dnnl_ok(xpu, status, "describing an operand") ? desc : NULL;
}

dnnl_memory_desc_t dk_xpu_clone(const_dnnl_memory_desc_t desc)
{
    dnnl_memory_desc_t copy = NULL;
    return dnnl_memory_desc_clone(&copy, desc) == dnnl_success ? copy : NULL;
}

bool dk_xpu_attr(dk_xpu *xpu, dnnl_primitive_attr_t *out, const_dnnl_post_ops_t ops)
{
    return dk_xpu_dnnl_ok(xpu, dnnl_primitive_attr_create(out), "attributes") &&
           dk_xpu_dnnl_ok(
               xpu, dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user),
               "attributes") &&
           dk_xpu_dnnl_ok(xpu, dnnl_primitive_attr_set_post_ops(*out, ops), "attributes");
}

static uint64_t hash_of(const dk_xpu_key *key)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < DK_XPU_KEY_VALUES; i++) {
        hash = (hash ^ (uint64_t)key->value[i]) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return hash;
}

/* Its slot, or the empty one where it belongs. */
static int slot_of(const dk_xpu_primitives *table, const dk_xpu_key *key)
{
    int at = (int)(hash_of(key) % (uint64_t)table->room);
    while (table->slots[at] != NULL && memcmp(&table->slots[at]->key, key, sizeof *key) != 0) {
        at = (at + 1) % table->room;
    }
    return at;
}

static void grow(dk_xpu_primitives *table)
{
    dk_xpu_primitives old = *table;
    table->room = old.room > 0 ? 2 * old.room : FIRST_ROOM;
    table->slots = dk_alloc((size_t)table->room * sizeof(dk_xpu_primitive *));
    for (int i = 0; i < old.room; i++) {
        if (old.slots[i] != NULL) {
            table->slots[slot_of(table, &old.slots[i]->key)] = old.slots[i];
        }
    }
    dk_free(old.slots);
}

dk_xpu_primitive *dk_xpu_primitive_find(dk_xpu *xpu, const dk_xpu_key *key)
{
    const dk_xpu_primitives *table = &xpu->primitives;
    return table->room > 0 ? table->slots[slot_of(table, key)] : NULL;
}

dk_xpu_primitive *dk_xpu_primitive_add(dk_xpu *xpu, const dk_xpu_key *key,
                                       dnnl_primitive_desc_t desc)
{
    dk_xpu_primitives *table = &xpu->primitives;
    dnnl_primitive_t made = NULL;
    bool plans = xpu->head.plans_only; /* then what it needs is all that matters */
    dnnl_status_t status = plans ? dnnl_success : dnnl_primitive_create(&made, desc);
    if (!dk_xpu_dnnl_ok(xpu, status, "making a primitive")) {
        dnnl_primitive_desc_destroy(desc);
        return NULL;
    }
    if (2 * (table->count + 1) > table->room) {
        grow(table);
    }
    dk_xpu_primitive *primitive = dk_alloc(sizeof *primitive);
    primitive->key = *key;
    primitive->primitive = made;
    const_dnnl_memory_desc_t scratch =
        dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    primitive->scratch_bytes = scratch != NULL ? dnnl_memory_desc_get_size(scratch) : 0;
    if (primitive->scratch_bytes > 0) {
        primitive->scratch.arg = DNNL_ARG_SCRATCHPAD;
        dk_xpu_dnnl_ok(xpu, dnnl_memory_desc_clone(&primitive->scratch.desc, scratch),
                       "describing scratch");
    }
    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &primitive->implementation);
    dnnl_primitive_desc_destroy(desc);
    table->slots[slot_of(table, key)] = primitive;
    table->count++;
    return primitive;
}

void dk_xpu_primitive_operand(dk_xpu_primitive *primitive, int arg, dnnl_memory_desc_t desc)
{
    primitive->operands[primitive->operand_count++] =
        (dk_xpu_operand_slot){.arg = arg, .desc = desc};
}

static void drop_views(dk_xpu_operand_slot *slot)
{
    for (int i = 0; i < slot->view_count; i++) {
        dnnl_memory_destroy(slot->views[i].memory);
    }
    slot->view_count = 0;
}

static void release_slot(dk_xpu_operand_slot *slot)
{
    drop_views(slot);
    dk_free(slot->views);
    dnnl_memory_desc_destroy(slot->desc);
}

static void destroy(dk_xpu_primitive *primitive)
{
    for (int i = 0; i < primitive->operand_count; i++) {
        release_slot(&primitive->operands[i]);
    }
    release_slot(&primitive->scratch);
    dnnl_memory_desc_destroy(primitive->weights);
    dnnl_primitive_destroy(primitive->primitive);
    dk_free(primitive);
}

void dk_xpu_primitives_release(dk_xpu *xpu)
{
    for (int i = 0; i < xpu->primitives.room; i++) {
        if (xpu->primitives.slots[i] != NULL) {
            destroy(xpu->primitives.slots[i]);
        }
    }
    dk_free(xpu->primitives.slots);
    xpu->primitives = (dk_xpu_primitives){0};
}

/* The memory object of an address: the step loop's addresses come again in every step. They are
   never changed, since what is enqueued still reads them. */
static dnnl_memory_t view_of(dk_xpu *xpu, dk_xpu_operand_slot *slot, void *address)
{
    for (int i = 0; i < slot->view_count; i++) {
        if (slot->views[i].address == address) {
            return slot->views[i].memory;
        }
    }
    if (slot->view_count == MOST_VIEWS) {
        dnnl_stream_wait(xpu->stream);
        drop_views(slot);
    }
    dnnl_memory_t memory = NULL;
    dnnl_status_t status = dnnl_sycl_interop_memory_create(&memory, slot->desc, xpu->engine,
                                                           dnnl_sycl_interop_usm, address);
    if (!dk_xpu_dnnl_ok(xpu, status, "naming an operand")) {
        return NULL;
    }
    size_t count = (size_t)slot->view_count + 1;
    slot->views = dk_realloc(slot->views, count * sizeof *slot->views);
    slot->views[slot->view_count++] = (dk_xpu_view){address, memory};
    return memory;
}

static bool add_view(dk_xpu *xpu, dnnl_exec_arg_t *arg, dk_xpu_operand_slot *slot,
                     void *address)
{
    *arg = (dnnl_exec_arg_t){slot->arg, view_of(xpu, slot, address)};
    return arg->memory != NULL;
}

/* oneDNN fills in an event that there is already. */
static dnnl_status_t enqueue(dk_xpu *xpu, const dk_xpu_primitive *primitive, int count,
                             const dnnl_exec_arg_t *args, DPCTLSyclEventRef *event)
{
    if (event == NULL) {
        return dnnl_primitive_execute(primitive->primitive, xpu->stream, count, args);
    }
    if (*event == NULL) {
        *event = DPCTLEvent_Create();
    }
    return dnnl_sycl_interop_primitive_execute(primitive->primitive, xpu->stream, count, args,
                                               NULL, *event);
}

/* A primitive is called as the operation that it does the work of. */
static void note_span(dk_xpu *xpu, const dk_xpu_primitive *primitive,
                      const DPCTLSyclEventRef *event)
{
    const char *operation = xpu->head.operation;
    if (event != NULL) {
        dk_xpu_span_note(xpu, DK_XPU_LANE_COMPUTE, operation != NULL ? operation : "primitive",
                         primitive->implementation, *event, 0);
    }
}

void dk_xpu_execute(dk_xpu *xpu, dk_xpu_primitive *primitive, void *const *addresses,
                    DPCTLSyclEventRef *event)
{
    dnnl_exec_arg_t args[DK_XPU_MOST_OPERANDS + 1];
    int count = primitive->operand_count;
    bool scratch = primitive->scratch_bytes > 0;
    void *room = scratch ? dk_xpu_scratch(xpu, primitive->scratch_bytes) : NULL;
    if (xpu->head.dry || xpu->head.failed != DK_OK) {
        return;
    }
    for (int i = 0; i < count; i++) {
        if (!add_view(xpu, &args[i], &primitive->operands[i], addresses[i])) {
            return;
        }
    }
    if (scratch && !add_view(xpu, &args[count++], &primitive->scratch, room)) {
        return;
    }
    DPCTLSyclEventRef traced = NULL;
    if (event == NULL && xpu->head.trace != NULL) {
        event = &traced;
    }
    dnnl_status_t status = enqueue(xpu, primitive, count, args, event);
    if (dk_xpu_dnnl_ok(xpu, status, primitive->implementation)) {
        dk_xpu_enqueued(xpu);
        xpu->latest.primitive = primitive;
        xpu->latest.count = count;
        memcpy(xpu->latest.args, args, (size_t)count * sizeof *args);
        note_span(xpu, primitive, event);
    }
    DPCTLEvent_Delete(traced);
}

void dk_xpu_repeat(dk_device *device, int times)
{
    dk_xpu *xpu = dk_xpu_of(device);
    for (int i = 0; i < times && xpu->latest.primitive != NULL; i++) {
        dk_xpu_dnnl_ok(xpu,
                       dnnl_primitive_execute(xpu->latest.primitive->primitive, xpu->stream,
                                              xpu->latest.count, xpu->latest.args),
                       "a repeated primitive");
    }
}
