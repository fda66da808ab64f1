/* Device memory and the table of addresses that operands may have. */
#include <string.h>

#include "base/alloc.h"
#include "device/xpu/xpu.h"

enum { SLAB_BYTES = 4 * 1024 * 1024 };

static size_t aligned(size_t bytes)
{
    return (bytes + DK_ALIGNMENT - 1) / DK_ALIGNMENT * DK_ALIGNMENT;
}

/* The first range that starts after `address`. */
static int place_of(const dk_xpu_memory *memory, uintptr_t address)
{
    int low = 0, high = memory->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (memory->ranges[middle].start <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void add_range(dk_xpu_memory *memory, const void *start, size_t bytes, void *device)
{
    if (memory->count == memory->room) {
        memory->room = memory->room > 0 ? 2 * memory->room : 256;
        memory->ranges =
            dk_realloc(memory->ranges, (size_t)memory->room * sizeof *memory->ranges);
    }
    int at = place_of(memory, (uintptr_t)start);
    memmove(&memory->ranges[at + 1], &memory->ranges[at],
            (size_t)(memory->count - at) * sizeof *memory->ranges);
    memory->ranges[at] = (dk_xpu_range){(uintptr_t)start, bytes, device};
    memory->count++;
}

/* Takes out the range that starts there; false when there is none. */
static bool take_range(dk_xpu_memory *memory, const void *start, dk_xpu_range *out)
{
    int at = place_of(memory, (uintptr_t)start) - 1;
    if (at < 0 || memory->ranges[at].start != (uintptr_t)start) {
        return false;
    }
    *out = memory->ranges[at];
    memory->count--;
    memmove(&memory->ranges[at], &memory->ranges[at + 1],
            (size_t)(memory->count - at) * sizeof *memory->ranges);
    return true;
}

dk_status dk_xpu_alloc(dk_xpu *xpu, void **out, size_t bytes, const char *what, dk_error *err)
{
    dk_xpu_memory *memory = &xpu->memory;
    size_t size = aligned(bytes > 0 ? bytes : 1);
    void *made = DPCTLaligned_alloc_device(DK_ALIGNMENT, size, xpu->queue);
    if (made == NULL) {
        return dk_fail(err, DK_MEMORY,
                       "no device memory for %s: %zu bytes, %zu are in use on %s", what, size,
                       memory->bytes, xpu->head.description);
    }
    memory->bytes += size;
    memory->peak_bytes =
        memory->bytes > memory->peak_bytes ? memory->bytes : memory->peak_bytes;
    memory->allocations++;
    add_range(memory, made, size, made);
    *out = made;
    return DK_OK;
}

void dk_xpu_free(dk_xpu *xpu, void *memory)
{
    dk_xpu_range range;
    if (take_range(&xpu->memory, memory, &range)) {
        DPCTLQueue_Wait(xpu->queue); /* nothing that is enqueued may still use it */
        xpu->memory.bytes -= range.bytes;
        DPCTLfree_with_queue(memory, xpu->queue);
        return;
    }
    dk_xpu_memory *all = &xpu->memory;
    for (int i = 0; memory != NULL && i < all->kept_count; i++) {
        if (all->kept[i].memory == memory) {
            const dk_xpu_kept gone = all->kept[i];
            all->kept[i] = all->kept[--all->kept_count];
            gone.release(xpu, memory);
            return;
        }
    }
}

void dk_xpu_keep(dk_xpu *xpu, void *memory, void (*release)(dk_xpu *xpu, void *memory))
{
    dk_xpu_memory *all = &xpu->memory;
    all->kept = dk_realloc(all->kept, ((size_t)all->kept_count + 1) * sizeof *all->kept);
    all->kept[all->kept_count++] = (dk_xpu_kept){memory, release};
}

static dk_status slab_room(dk_xpu *xpu, dk_xpu_slab **out, size_t bytes, dk_error *err)
{
    dk_xpu_memory *memory = &xpu->memory;
    for (int i = 0; i < memory->slab_count; i++) {
        if (memory->slabs[i].size - memory->slabs[i].used >= bytes) {
            *out = &memory->slabs[i];
            return DK_OK;
        }
    }
    void *data = NULL;
    size_t size = bytes > SLAB_BYTES ? bytes : SLAB_BYTES;
    DK_TRY(dk_xpu_alloc(xpu, &data, size, "small parameters", err));
    memory->slabs =
        dk_realloc(memory->slabs, ((size_t)memory->slab_count + 1) * sizeof *memory->slabs);
    *out = &memory->slabs[memory->slab_count++];
    **out = (dk_xpu_slab){.data = data, .size = size};
    return DK_OK;
}

dk_status dk_xpu_mirror(dk_xpu *xpu, const void *host, size_t bytes, dk_error *err)
{
    dk_xpu_slab *slab;
    DK_TRY(slab_room(xpu, &slab, aligned(bytes), err));
    char *device = slab->data + slab->used;
    slab->used += aligned(bytes);
    slab->live++;
    dk_xpu_write(xpu, device, host, bytes);
    add_range(&xpu->memory, host, bytes, device);
    return DK_OK;
}

void dk_xpu_unmirror(dk_xpu *xpu, const void *host)
{
    dk_xpu_memory *memory = &xpu->memory;
    dk_xpu_range range;
    if (!take_range(memory, host, &range)) {
        return;
    }
    for (int i = 0; i < memory->slab_count; i++) {
        dk_xpu_slab *slab = &memory->slabs[i];
        if (range.device >= slab->data && range.device < slab->data + slab->size) {
            if (--slab->live == 0) {
                dk_xpu_free(xpu, slab->data);
                *slab = memory->slabs[--memory->slab_count];
            }
            return;
        }
    }
}

void *dk_xpu_operand(dk_xpu *xpu, const void *address)
{
    const dk_xpu_memory *memory = &xpu->memory;
    if (address == NULL) {
        return NULL;
    }
    int at = place_of(memory, (uintptr_t)address) - 1;
    size_t offset = at >= 0 ? (uintptr_t)address - memory->ranges[at].start : 0;
    if (at < 0 || offset >= memory->ranges[at].bytes) {
        dk_xpu_fail(xpu, DK_INTERNAL,
                    "an operand is neither memory of the device nor a weight that it knows");
        return NULL;
    }
    return memory->ranges[at].device + offset;
}

/* Memory of its own for one piece, until the operation ends. */
static void *extra_piece(dk_xpu *xpu, size_t bytes)
{
    dk_xpu_memory *memory = &xpu->memory;
    void *made = NULL;
    dk_error err;
    dk_status status = dk_xpu_alloc(xpu, &made, bytes, "scratch", &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
        return NULL;
    }
    memory->extra =
        dk_realloc(memory->extra, ((size_t)memory->extra_count + 1) * sizeof *memory->extra);
    memory->extra[memory->extra_count++] = made;
    return made;
}

void *dk_xpu_scratch(dk_xpu *xpu, size_t bytes)
{
    dk_xpu_memory *memory = &xpu->memory;
    size_t start = memory->scratch_used;
    memory->scratch_used += aligned(bytes);
    if (memory->scratch_used > memory->scratch_peak) {
        memory->scratch_peak = memory->scratch_used;
    }
    if (xpu->head.dry) {
        return NULL;
    }
    return memory->scratch_used <= memory->scratch_bytes ? memory->scratch + start
                                                         : extra_piece(xpu, bytes);
}

void dk_xpu_scratch_end(dk_xpu *xpu)
{
    dk_xpu_memory *memory = &xpu->memory;
    for (int i = 0; i < memory->extra_count; i++) {
        dk_xpu_free(xpu, memory->extra[i]);
    }
    memory->extra_count = 0;
    memory->scratch_used = 0;
    if (memory->scratch_peak <= memory->scratch_bytes || xpu->head.plans_only) {
        return;
    }
    dk_xpu_free(xpu, memory->scratch);
    memory->scratch = NULL;
    memory->scratch_bytes = 0;
    void *made = NULL;
    dk_error err;
    dk_status status = dk_xpu_alloc(xpu, &made, memory->scratch_peak, "scratch", &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
        return;
    }
    memory->scratch = made;
    memory->scratch_bytes = memory->scratch_peak;
}

void dk_xpu_memory_release(dk_xpu *xpu)
{
    dk_xpu_memory *memory = &xpu->memory;
    while (memory->kept_count > 0) {
        dk_xpu_free(xpu, memory->kept[0].memory);
    }
    dk_free(memory->kept);
    dk_xpu_free(xpu, memory->scratch);
    dk_free(memory->extra);
    while (memory->count > 0) { /* what owners forgot: there should be none */
        const dk_xpu_range *last = &memory->ranges[memory->count - 1];
        bool device = (uintptr_t)last->device == last->start;
        dk_xpu_range gone;
        if (device) {
            dk_xpu_free(xpu, last->device);
        } else {
            take_range(memory, (const void *)last->start, &gone);
        }
    }
    dk_free(memory->slabs);
    dk_free(memory->ranges);
    *memory = (dk_xpu_memory){0};
}

/* Copies and waits. */
static void copy(dk_xpu *xpu, const char *what, void *dst, const void *src, size_t bytes)
{
    DPCTLSyclEventRef event = DPCTLQueue_Memcpy(xpu->queue, dst, src, bytes);
    if (event == NULL) {
        dk_xpu_fail(xpu, DK_DEVICE, "%s: a copy of %zu bytes was refused",
                    xpu->head.description, bytes);
        return;
    }
    DPCTLEvent_Wait(event);
    dk_xpu_span_note(xpu, DK_XPU_LANE_HOST, what, NULL, event, bytes);
    DPCTLEvent_Delete(event);
}

void dk_xpu_write(dk_xpu *xpu, void *dst, const void *host, size_t bytes)
{
    copy(xpu, "write", dst, host, bytes);
}

void dk_xpu_read(dk_xpu *xpu, void *host, const void *src, size_t bytes)
{
    copy(xpu, "read", host, src, bytes);
}

void dk_xpu_zero(dk_xpu *xpu, void *dst, size_t bytes)
{
    DPCTLSyclEventRef event = DPCTLQueue_Memset(xpu->queue, dst, 0, bytes);
    if (event == NULL) {
        dk_xpu_fail(xpu, DK_DEVICE, "%s: filling %zu bytes was refused", xpu->head.description,
                    bytes);
        return;
    }
    dk_xpu_span_note(xpu, DK_XPU_LANE_COMPUTE, "zero", NULL, event, bytes);
    DPCTLEvent_Delete(event);
}

void dk_xpu_move(dk_xpu *xpu, void *dst, const void *src, size_t bytes)
{
    DPCTLSyclEventRef event = DPCTLQueue_Memcpy(xpu->queue, dst, src, bytes);
    if (event == NULL) {
        dk_xpu_fail(xpu, DK_DEVICE, "%s: a copy of %zu bytes was refused",
                    xpu->head.description, bytes);
        return;
    }
    dk_xpu_span_note(xpu, DK_XPU_LANE_COMPUTE, "move", NULL, event, bytes);
    dk_xpu_enqueued(xpu);
    DPCTLEvent_Delete(event);
}
