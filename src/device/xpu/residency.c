/* Weights that come and go. Each has a copy on the host, in the device's layout, and is brought
   in on the transfer queue:

   OFFLOAD_COMPONENT  into memory of its own, all of them with the dry run that precedes a
   stage; given up at the stage's end. OFFLOAD_LAYERS     into a ring of fixed size. A model
   uses its weights in the same order in every pass, so each remembers what came after it: from
   the one in use, a look ahead follows these links and fetches what fits. Room is made by
                      giving up the oldest, which will be needed last.

   Events order the two queues: a copy waits for the operations that read what it overwrites, an
   operation waits for its weight's copy. The host waits for neither. */
#include <string.h>

#include "base/alloc.h"
#include "device/xpu/xpu.h"

enum { LEAST_SHARE = 4, LEAST_LARGEST = 3 };

static void drop_event(DPCTLSyclEventRef *event)
{
    if (*event != NULL) {
        DPCTLEvent_Delete(*event);
        *event = NULL;
    }
}

static void wait_for(DPCTLSyclEventRef *event)
{
    if (*event != NULL) {
        DPCTLEvent_Wait(*event);
        drop_event(event);
    }
}

/* Host memory for a form; pinned where that was asked for and there is some. */
static void *host_memory(dk_xpu *xpu, dk_xpu_form *form, const char *name)
{
    dk_error err;
    if (xpu->weights.options.pin) {
        form->pinned = DPCTLmalloc_host(form->bytes, xpu->queue);
        if (form->pinned != NULL) {
            return form->pinned;
        }
        dk_log_warn(xpu->log, "%s: no pinned memory for %zu bytes, ordinary memory is used",
                    name, form->bytes);
    }
    dk_status status = dk_try_alloc(&form->owned, form->bytes, name, &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
    }
    return form->owned;
}

/* Whether the file's bytes are the form's. */
static bool lies_as_stored(dk_xpu *xpu, const dk_xpu_form *form, const dk_xpu_stored *stored)
{
    dnnl_data_type_t type;
    dnnl_memory_desc_query(form->desc, dnnl_query_data_type, &type);
    if (dk_xpu_stored_type(stored) != type) {
        return false;
    }
    dnnl_memory_desc_t plain =
        dk_xpu_desc(xpu, stored->rank, stored->dims, stored->strides, type);
    bool equal = plain != NULL && dnnl_memory_desc_equal(plain, form->desc);
    dnnl_memory_desc_destroy(plain);
    return equal;
}

bool dk_xpu_form_settle(dk_xpu *xpu, dk_xpu_form *form, const dk_xpu_stored *stored)
{
    dk_xpu_weights *weights = &xpu->weights;
    if (!dk_xpu_form_moves(form)) {
        return true;
    }
    if (!weights->options.pin && lies_as_stored(xpu, form, stored)) {
        form->host = stored->host;
    } else {
        void *copy = host_memory(xpu, form, "a weight on the host");
        if (copy == NULL) {
            return false;
        }
        dk_xpu_read(xpu, copy, form->device, form->bytes);
        form->host = copy;
    }
    dk_xpu_free(xpu, form->device);
    form->device = NULL;
    dk_component c = form->component;
    weights->streamed_bytes[c] += form->bytes;
    weights->largest[c] = form->bytes > weights->largest[c] ? form->bytes : weights->largest[c];
    return xpu->head.failed == DK_OK;
}

bool dk_xpu_form_pass(dk_xpu *xpu, dk_xpu_form *form, const dk_xpu_stored *stored)
{
    dk_xpu_weights *weights = &xpu->weights;
    dk_component c = form->component;
    if (!lies_as_stored(xpu, form, stored)) {
        dk_xpu_fail(xpu, DK_INTERNAL, "%s passes as %s, but is multiplied as something else",
                    form->name, dk_dtype_name(stored->type));
        return false;
    }
    form->passing = true;
    form->residency = DK_OFFLOAD_LAYERS;
    form->host = stored->host;
    weights->streamed_bytes[c] += form->bytes;
    weights->largest[c] = form->bytes > weights->largest[c] ? form->bytes : weights->largest[c];
    return true;
}

void dk_xpu_window(dk_device *device, const void *host, size_t bytes)
{
    dk_xpu *xpu = dk_xpu_of(device);
    if (bytes == 0 && xpu->transfer != NULL) {
        DPCTLQueue_Wait(xpu->transfer);
    }
    xpu->weights.window = host;
    xpu->weights.window_bytes = bytes;
}

static bool is_there(const dk_xpu_weights *weights, const dk_xpu_form *form)
{
    return !form->passing ||
           (uintptr_t)form->host - (uintptr_t)weights->window < weights->window_bytes;
}

/* Takes a form out of the ring it may be in. */
static void forget_in_ring(dk_xpu *xpu, const dk_xpu_form *form)
{
    dk_xpu_ring *ring = &xpu->weights.rings[form->component];
    for (int i = 0; i < ring->count; i++) {
        int at = (ring->first + i) % ring->room;
        if (ring->entries[at].form == form) {
            ring->entries[at].form = NULL; /* its place is freed when it is the oldest */
        }
    }
}

/* Nobody may remember it as what comes next. */
static void forget_links(dk_xpu *xpu, const dk_xpu_form *form)
{
    dk_xpu_weights *weights = &xpu->weights;
    weights->latest = weights->latest == form ? NULL : weights->latest;
    for (int i = 0; i < weights->used_count; i++) {
        for (int k = 0; k < weights->used[i].form_count; k++) {
            dk_xpu_form *other = weights->used[i].forms[k];
            other->next = other->next == form ? NULL : other->next;
        }
    }
}

void dk_xpu_form_release(dk_xpu *xpu, dk_xpu_form *form)
{
    if (dk_xpu_form_moves(form)) {
        wait_for(&form->arrived);
        wait_for(&form->used);
        forget_in_ring(xpu, form);
        forget_links(xpu, form);
        xpu->weights.streamed_bytes[form->component] -= form->host != NULL ? form->bytes : 0;
    }
    if (form->residency != DK_OFFLOAD_LAYERS) {
        dk_xpu_free(xpu, form->device);
    }
    if (form->pinned != NULL) {
        DPCTLfree_with_queue(form->pinned, xpu->queue);
    }
    dk_free(form->owned);
    dk_free(form->name);
    dnnl_memory_desc_destroy(form->desc);
    dk_free(form);
}

/* --- the ring ----------------------------------------------------------------------------- */

/* A quarter of the weights, a few of the largest at least, or what the user gave. */
static size_t wanted_bytes(const dk_xpu_weights *weights, dk_component component)
{
    size_t least = LEAST_LARGEST * weights->largest[component];
    size_t share = weights->streamed_bytes[component] / LEAST_SHARE;
    size_t given = weights->options.budget_bytes;
    return given > 0 ? given : share > least ? share : least;
}

static bool open_ring(dk_xpu *xpu, dk_xpu_ring *ring, dk_component component)
{
    const dk_xpu_weights *weights = &xpu->weights;
    size_t wanted = wanted_bytes(weights, component);
    void *memory = NULL;
    dk_error err;
    if (ring->memory != NULL) {
        return true;
    }
    dk_status status = dk_xpu_alloc(xpu, &memory, wanted, "weights that come and go", &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
        return false;
    }
    ring->memory = memory;
    ring->size = wanted;
    dk_log_info(xpu->log, "%s: %.1f MB of weights take turns in %.1f MB of device memory",
                dk_component_names[component],
                (double)weights->streamed_bytes[component] * 1e-6, (double)wanted * 1e-6);
    return true;
}

/* Where `bytes` would go now; SIZE_MAX: there is no room before the oldest goes. */
static size_t place_in(const dk_xpu_ring *ring, size_t bytes)
{
    if (ring->count == 0) {
        return bytes <= ring->size ? 0 : SIZE_MAX;
    }
    size_t tail = ring->entries[ring->first].offset;
    if (ring->head > tail) {
        return ring->size - ring->head >= bytes ? ring->head : tail >= bytes ? 0 : SIZE_MAX;
    }
    return tail - ring->head >= bytes ? ring->head : SIZE_MAX;
}

/* Gives up the oldest. Its readers come before the copy that takes its place. */
static void evict(dk_xpu_ring *ring)
{
    dk_xpu_form *form = ring->entries[ring->first].form;
    ring->first = (ring->first + 1) % ring->room;
    ring->count--;
    if (form == NULL) {
        return;
    }
    form->device = NULL;
    drop_event(&form->arrived); /* its reader, if any, waits for it */
    if (form->used != NULL) {
        if (ring->before_count == ring->before_room) {
            ring->before_room = ring->before_room > 0 ? 2 * ring->before_room : 16;
            ring->before =
                dk_realloc(ring->before, (size_t)ring->before_room * sizeof *ring->before);
        }
        ring->before[ring->before_count++] = form->used;
        form->used = NULL;
    }
}

/* Weights that were not known when the ring was made (a measurement while loading needed it)
   make it too small: the next use makes another. */
static void close_small_ring(dk_xpu *xpu, dk_component component)
{
    dk_xpu_ring *ring = &xpu->weights.rings[component];
    if (ring->memory == NULL || ring->size >= wanted_bytes(&xpu->weights, component)) {
        return;
    }
    DPCTLQueue_Wait(xpu->transfer);
    DPCTLQueue_Wait(xpu->queue);
    while (ring->count > 0) {
        evict(ring);
    }
    while (ring->before_count > 0) {
        drop_event(&ring->before[--ring->before_count]);
    }
    dk_xpu_free(xpu, ring->memory);
    ring->memory = NULL;
    ring->head = 0;
}

static void push(dk_xpu_ring *ring, dk_xpu_form *form, size_t offset)
{
    if (ring->count == ring->room) {
        int room = ring->room > 0 ? 2 * ring->room : 64;
        void *entries = dk_alloc((size_t)room * sizeof *ring->entries);
        dk_xpu_ring grown = *ring;
        grown.entries = entries;
        for (int i = 0; i < ring->count; i++) {
            grown.entries[i] = ring->entries[(ring->first + i) % ring->room];
        }
        dk_free(ring->entries);
        grown.first = 0;
        grown.room = room;
        *ring = grown;
    }
    int at = (ring->first + ring->count) % ring->room;
    ring->entries[at].form = form;
    ring->entries[at].offset = offset;
    ring->count++;
    ring->head = offset + form->bytes;
    form->device = ring->memory + offset;
}

/* Enqueues the copy of a form that has a place, after what still reads that. */
static void send(dk_xpu *xpu, dk_xpu_form *form, dk_xpu_ring *ring)
{
    form->arrived = DPCTLQueue_MemcpyWithEvents(xpu->transfer, form->device, form->host,
                                                form->bytes, ring != NULL ? ring->before : NULL,
                                                ring != NULL ? (size_t)ring->before_count : 0);
    while (ring != NULL && ring->before_count > 0) {
        drop_event(&ring->before[--ring->before_count]);
    }
    if (form->arrived == NULL) {
        dk_xpu_fail(xpu, DK_DEVICE, "%s: a copy of %zu bytes was refused",
                    xpu->head.description, form->bytes);
        return;
    }
    dk_xpu_span_note(xpu, DK_XPU_LANE_TRANSFER, form->name, NULL, form->arrived, form->bytes);
    xpu->head.traffic.copies++;
    xpu->head.traffic.bytes += (double)form->bytes;
}

/* Brings a form into the ring. Forms that the look ahead has met stay, unless `urgent`. */
static bool bring(dk_xpu *xpu, dk_xpu_form *form, bool urgent)
{
    dk_xpu_ring *ring = &xpu->weights.rings[form->component];
    size_t unit = (form->bytes + DK_ALIGNMENT - 1) / DK_ALIGNMENT * DK_ALIGNMENT;
    size_t place;
    while ((place = place_in(ring, unit)) == SIZE_MAX) {
        if (ring->count == 0) {
            dk_xpu_fail(xpu, DK_MEMORY,
                        "a weight of %.1f MB does not fit the %.1f MB of device memory that "
                        "layers take turns in, accepted is an offload_budget_mb of at least "
                        "%.0f",
                        (double)unit * 1e-6, (double)ring->size * 1e-6,
                        (double)(xpu->weights.largest[form->component] / 1000000 + 1));
            return false;
        }
        const dk_xpu_form *oldest = ring->entries[ring->first].form;
        if (!urgent && oldest != NULL && oldest->walk == xpu->weights.walks) {
            return false;
        }
        evict(ring);
    }
    push(ring, form, place);
    ring->head = place + unit;
    send(xpu, form, ring);
    return xpu->head.failed == DK_OK;
}

/* Follows the order of the last pass from `form` on and fetches what has room. */
static void look_ahead(dk_xpu *xpu, dk_xpu_form *form)
{
    uint64_t walk = ++xpu->weights.walks;
    form->walk = walk;
    for (dk_xpu_form *next = form->next; next != NULL && next->walk != walk;
         next = next->next) {
        next->walk = walk;
        if (next->component != form->component || !is_there(&xpu->weights, next)) {
            return;
        }
        if (next->device == NULL && !bring(xpu, next, false)) {
            return;
        }
    }
}

/* --- in use ------------------------------------------------------------------------------- */

static bool bring_alone(dk_xpu *xpu, dk_xpu_form *form)
{
    dk_error err;
    dk_status status = dk_xpu_alloc(xpu, &form->device, form->bytes, "a weight", &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
        return false;
    }
    send(xpu, form, NULL);
    return xpu->head.failed == DK_OK;
}

/* The copy that an operation waits for, and the operation before it. */
static void note_arrival(dk_xpu *xpu, dk_xpu_form *form)
{
    dk_xpu_weights *weights = &xpu->weights;
    const dk_xpu_form *latest = weights->latest;
    if (weights->arrival_count == weights->arrival_room) {
        weights->arrival_room = weights->arrival_room > 0 ? 2 * weights->arrival_room : 256;
        weights->arrivals = dk_realloc(weights->arrivals, (size_t)weights->arrival_room *
                                                              sizeof *weights->arrivals);
    }
    weights->arrivals[weights->arrival_count++] = (dk_xpu_arrival){
        .copy = form->arrived,
        .before = latest != NULL && latest->used != NULL ? DPCTLEvent_Copy(latest->used) : NULL,
        .bytes = form->bytes};
    form->arrived = NULL;
    dk_xpu_span_awaits(xpu, form->name);
}

static void wait_on_queue(dk_xpu *xpu, dk_xpu_form *form)
{
    if (form->arrived == NULL) {
        return;
    }
    if (DPCTLEvent_GetCommandExecutionStatus(form->arrived) != DPCTL_COMPLETE) {
        DPCTLSyclEventRef barrier =
            DPCTLQueue_SubmitBarrierForEvents(xpu->queue, &form->arrived, 1);
        if (barrier == NULL) {
            dk_xpu_fail(xpu, DK_DEVICE, "%s: a barrier was refused", xpu->head.description);
            return;
        }
        DPCTLEvent_Delete(barrier);
    }
    note_arrival(xpu, form);
}

void *dk_xpu_form_begin(dk_xpu *xpu, dk_xpu_form *form)
{
    dk_xpu_weights *weights = &xpu->weights;
    if (!dk_xpu_form_moves(form)) {
        return form->device;
    }
    bool layers = form->residency == DK_OFFLOAD_LAYERS;
    if (weights->latest != NULL && weights->latest != form) {
        weights->latest->next = form;
    }
    if (xpu->head.dry) {
        weights->latest = form;
        if (layers) {
            close_small_ring(xpu, form->component);
        }
        if (!layers && form->device == NULL) {
            bring_alone(xpu, form);
        }
        return NULL;
    }
    if (layers && form->bytes > weights->rings[form->component].size) {
        close_small_ring(xpu, form->component);
    }
    if (layers && !open_ring(xpu, &weights->rings[form->component], form->component)) {
        return NULL;
    }
    if (form->device == NULL) {
        weights->walks++; /* all may be given up for it */
        xpu->head.traffic.late++;
        if (layers ? !bring(xpu, form, true) : !bring_alone(xpu, form)) {
            return NULL;
        }
    }
    void *address = form->device;
    wait_on_queue(xpu, form);
    if (layers) {
        look_ahead(xpu, form);
    }
    return xpu->head.failed == DK_OK ? address : NULL;
}

void dk_xpu_form_end(dk_xpu *xpu, dk_xpu_form *form, DPCTLSyclEventRef event)
{
    if (dk_xpu_form_moves(form) && !xpu->head.dry) {
        drop_event(&form->used);
        form->used = event;
        xpu->weights.latest = form;
    } else if (event != NULL) {
        DPCTLEvent_Delete(event);
    }
}

void dk_xpu_rest(dk_device *device, dk_component component)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_weights *weights = &xpu->weights;
    if (weights->options.of[component] != DK_OFFLOAD_COMPONENT) {
        return;
    }
    for (int i = 0; i < weights->used_count; i++) {
        for (int k = 0; k < weights->used[i].form_count; k++) {
            dk_xpu_form *form = weights->used[i].forms[k];
            if (form->component == component && form->device != NULL) {
                wait_for(&form->arrived);
                wait_for(&form->used);
                dk_xpu_free(xpu, form->device);
                form->device = NULL;
            }
        }
    }
}

void dk_xpu_count_arrivals(dk_xpu *xpu)
{
    dk_xpu_weights *weights = &xpu->weights;
    dk_device_traffic *traffic = &xpu->head.traffic;
    for (int i = 0; i < weights->arrival_count; i++) {
        dk_xpu_arrival *a = &weights->arrivals[i];
        double start = (double)DPCTLEvent_GetProfilingInfoStart(a->copy) * 1e-9;
        double end = (double)DPCTLEvent_GetProfilingInfoEnd(a->copy) * 1e-9;
        traffic->seconds += end - start;
        if (a->before != NULL) {
            double free = (double)DPCTLEvent_GetProfilingInfoEnd(a->before) * 1e-9;
            double wait = end - (free > start ? free : start);
            traffic->stalled += wait > 0 ? wait : 0;
        } else {
            traffic->stalled += end - start;
        }
        drop_event(&a->copy);
        drop_event(&a->before);
    }
    weights->arrival_count = 0;
}

void dk_xpu_rings_release(dk_xpu *xpu)
{
    for (int i = 0; i < DK_COMPONENT_COUNT; i++) {
        dk_xpu_free(xpu, xpu->weights.rings[i].memory);
        dk_free(xpu->weights.rings[i].entries);
        for (int k = 0; k < xpu->weights.rings[i].before_count; k++) {
            drop_event(&xpu->weights.rings[i].before[k]);
        }
        dk_free(xpu->weights.rings[i].before);
    }
    for (int i = 0; i < xpu->weights.arrival_count; i++) {
        drop_event(&xpu->weights.arrivals[i].copy);
        drop_event(&xpu->weights.arrivals[i].before);
    }
    dk_free(xpu->weights.arrivals);
}
