/* Weights on the device, in the layout that a primitive asks for. */
#ifndef DK_DEVICE_XPU_WEIGHTS_H
#define DK_DEVICE_XPU_WEIGHTS_H

#include "device/device.h"
#include "device/xpu/primitives.h"

/* One form of a weight: a layout and where it is. */
typedef struct dk_xpu_form {
    dnnl_memory_desc_t desc; /* owned */
    void *device;            /* owned device memory */
    size_t bytes;
} dk_xpu_form;

enum { DK_XPU_MOST_FORMS = 3 };

/* A matrix or a convolution's weight as an operation names it. */
typedef struct dk_xpu_weight {
    const void *host; /* borrowed: [rows][depth] as stored */
    dk_xpu_form forms[DK_XPU_MOST_FORMS];
    int form_count;
} dk_xpu_weight;

typedef struct dk_xpu_adopted {
    const char *host;
    size_t bytes;
    char *name;
    dk_component component;
    bool vectors;
} dk_xpu_adopted;

typedef struct dk_xpu_weights {
    dk_xpu_adopted *adopted; /* [adopted_count], by host */
    int adopted_count, adopted_room;
    dk_xpu_weight *used; /* [used_count], by host: those that operations named so far */
    int used_count, used_room;
} dk_xpu_weights;

void dk_xpu_weights_release(dk_xpu *xpu);
void dk_xpu_adopt(dk_device *device, const dk_adoption *adoption);
void dk_xpu_disown(dk_device *device, const void *host);

/* The adopted memory that an address is in; NULL: none. */
const dk_xpu_adopted *dk_xpu_adopted_at(const dk_xpu *xpu, const void *address);

/* How a weight is stored: `rank` dimensions as the operation names them (a linear layer's as
   depth x cols), with their strides in elements. */
typedef struct dk_xpu_stored {
    const void *host;
    dk_dtype type;
    int rank;
    int64_t dims[6], strides[6];
} dk_xpu_stored;

/* The device address of a weight in the layout `desc`, made the first time: converted to
   desc's type and reordered. NULL after a failure that is kept. */
void *dk_xpu_weight_in(dk_xpu *xpu, const dk_xpu_stored *stored, const_dnnl_memory_desc_t desc);

/* The layout in that type that an earlier operation asked of this weight, borrowed; NULL: none
   did. */
const_dnnl_memory_desc_t dk_xpu_weight_layout(dk_xpu *xpu, const void *host,
                                              dnnl_data_type_t type);

#endif
