/* Weights on the device, in the layout that a primitive asks for: all the time, or from a copy
   on the host when an operation is about to read them (residency.c). */
#ifndef DK_DEVICE_XPU_WEIGHTS_H
#define DK_DEVICE_XPU_WEIGHTS_H

#include <dpctl_sycl_event_interface.h>

#include "device/device.h"
#include "device/xpu/primitives.h"

/* One form of a weight: a layout, and where it is. */
typedef struct dk_xpu_form {
    dnnl_memory_desc_t desc; /* owned */
    size_t bytes;
    dk_residency residency;
    dk_component component;
    void *device; /* NULL: not there; RESIDENT: owned, always there */
    /* The rest is for those that come and go. */
    const void *host;          /* what is copied to the device */
    char *name;                /* of the tensor; owned */
    void *owned, *pinned;      /* the memory behind host, where it is ours */
    DPCTLSyclEventRef arrived; /* of the copy that brings it; NULL: it is there */
    DPCTLSyclEventRef used;    /* of the last operation that reads it; NULL: none does */
    struct dk_xpu_form *next;  /* what was used after it, the last time */
    uint64_t walk;             /* the last look ahead that met it */
    bool passing;              /* host is there only inside of the window */
} dk_xpu_form;

enum { DK_XPU_MOST_FORMS = 3 };

/* A matrix or a convolution's weight as an operation names it. */
typedef struct dk_xpu_weight {
    const void *host;                      /* borrowed: as stored */
    dk_xpu_form *forms[DK_XPU_MOST_FORMS]; /* owned */
    int form_count;
} dk_xpu_weight;

typedef struct dk_xpu_adopted {
    const char *host;
    size_t bytes;
    char *name;
    dk_component component;
    bool vectors, passing;
} dk_xpu_adopted;

/* Device memory that weights take turns in, the oldest first; see residency.c. */
typedef struct dk_xpu_ring {
    char *memory; /* owned device memory; NULL: not needed so far */
    size_t size, head;
    struct {
        dk_xpu_form *form;
        size_t offset;
    } * entries; /* [room], a circular list of `count` from `first` on */
    int first, count, room;
    /* Of operations that read what was given up: the next copy waits for them. */
    DPCTLSyclEventRef *before; /* [before_count] */
    int before_count, before_room;
} dk_xpu_ring;

/* A copy and the operation before the one that waits for it. */
typedef struct dk_xpu_arrival {
    DPCTLSyclEventRef copy, before;
    size_t bytes;
} dk_xpu_arrival;

typedef struct dk_xpu_weights {
    dk_xpu_adopted *adopted; /* [adopted_count], by host */
    int adopted_count, adopted_room;
    dk_xpu_weight *used; /* [used_count], by host: those that operations named so far */
    int used_count, used_room;
    dk_residency_options options;
    size_t streamed_bytes[DK_COMPONENT_COUNT]; /* of all forms that come and go */
    size_t largest[DK_COMPONENT_COUNT];
    const char *window; /* host memory of passing weights that are there: window_bytes of it */
    size_t window_bytes;
    dk_xpu_ring rings[DK_COMPONENT_COUNT];
    dk_xpu_form *latest; /* the last one that came and went */
    uint64_t walks;
    dk_xpu_arrival *arrivals; /* [arrival_count]: since the last sync */
    int arrival_count, arrival_room;
} dk_xpu_weights;

void dk_xpu_weights_release(dk_xpu *xpu);
void dk_xpu_adopt(dk_device *device, const dk_adoption *adoption);
void dk_xpu_disown(dk_device *device, const void *host);
void dk_xpu_forget(dk_device *device, const void *host);
void dk_xpu_window(dk_device *device, const void *host, size_t bytes);

/* The adopted memory that an address is in; NULL: none. */
const dk_xpu_adopted *dk_xpu_adopted_at(const dk_xpu *xpu, const void *address);

/* Whether a weight's bytes are there only while it is used: its one form is as stored. */
bool dk_xpu_passes(const dk_xpu *xpu, const void *host);

/* How a weight is stored: `rank` dimensions as the operation names them (a linear layer's as
   depth x cols), with their strides in elements. */
typedef struct dk_xpu_stored {
    const void *host;
    dk_dtype type; /* of a float weight; else: */
    const struct dk_xpu_quantized *quantized;
    int rank;
    int64_t dims[6], strides[6];
} dk_xpu_stored;

/* Numbers [first, first + count) of a weight as f32, in the order they are stored in. */
void dk_xpu_stored_numbers(const dk_xpu_stored *stored, float *dst, int64_t first,
                           int64_t count);
dnnl_data_type_t dk_xpu_stored_type(const dk_xpu_stored *stored);

/* A weight in the layout `desc`, made the first time: converted to desc's type and reordered.
   NULL after a failure that is kept. */
dk_xpu_form *dk_xpu_weight_in(dk_xpu *xpu, const dk_xpu_stored *stored,
                              const_dnnl_memory_desc_t desc);
/* The layout in that type that an earlier operation asked of this weight, borrowed; NULL: none
   did. */
const_dnnl_memory_desc_t dk_xpu_weight_layout(dk_xpu *xpu, const void *host,
                                              dnnl_data_type_t type);

/* --- residency.c -------------------------------------------------------------------------- */

/* Between these two calls an operation that reads the weight is enqueued. The first one sees to
   it that the weight is there by then, and sends the next ones on their way; it returns the
   address, NULL after a failure that is kept. `event` is the operation's, taken over. A dry run
   only learns the order. */
void *dk_xpu_form_begin(dk_xpu *xpu, dk_xpu_form *form);
void dk_xpu_form_end(dk_xpu *xpu, dk_xpu_form *form, DPCTLSyclEventRef event);
/* Whether form_end wants an event. */
static inline bool dk_xpu_form_moves(const dk_xpu_form *form)
{
    return form->residency != DK_RESIDENT;
}

/* Moves a new form, which is on the device, to the host, when it is one that comes and goes. */
bool dk_xpu_form_settle(dk_xpu *xpu, dk_xpu_form *form, const dk_xpu_stored *stored);
/* The same of one that passes, which has no memory on the device yet; false: its
   layout is not that of the host, a failure that is kept. */
bool dk_xpu_form_pass(dk_xpu *xpu, dk_xpu_form *form, const dk_xpu_stored *stored);
void dk_xpu_form_release(dk_xpu *xpu, dk_xpu_form *form);

/* A stage that used the component is over. */
void dk_xpu_rest(dk_device *device, dk_component component);
/* After a sync: adds up what the copies took, and what of that nothing hid. */
void dk_xpu_count_arrivals(dk_xpu *xpu);
void dk_xpu_rings_release(dk_xpu *xpu);

#endif
