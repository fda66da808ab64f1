/* oneDNN primitives, made once per shape and kept; and memory objects for what they read. */
#ifndef DK_DEVICE_XPU_PRIMITIVES_H
#define DK_DEVICE_XPU_PRIMITIVES_H

#include <dpctl_sycl_event_interface.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "device/device.h"
#include "tensor/dtype.h"

typedef struct dk_xpu dk_xpu;

/* All that tells one primitive from another: a kind, then sizes and flags as its maker likes;
   the rest zero. */
enum { DK_XPU_KEY_VALUES = 24 };
typedef struct dk_xpu_key {
    int64_t value[DK_XPU_KEY_VALUES];
} dk_xpu_key;

/* A memory object and the address that it is for. */
typedef struct dk_xpu_view {
    const void *address;
    dnnl_memory_t memory;
} dk_xpu_view;

enum { DK_XPU_MOST_OPERANDS = 10 };
typedef struct dk_xpu_operand_slot {
    int arg; /* DNNL_ARG_… */
    dnnl_memory_desc_t desc;
    dk_xpu_view *views; /* [view_count] */
    int view_count;
} dk_xpu_operand_slot;

typedef struct dk_xpu_primitive {
    dk_xpu_key key;
    dnnl_primitive_t primitive;
    dk_xpu_operand_slot operands[DK_XPU_MOST_OPERANDS];
    int operand_count;
    dnnl_memory_desc_t weights; /* the layout that it asks for; owned; NULL: it has none */
    size_t scratch_bytes;
    dk_xpu_operand_slot scratch; /* when scratch_bytes > 0 */
    const char *implementation;  /* oneDNN's name for it */
    bool checked, wrong;         /* see trust.h */
} dk_xpu_primitive;

typedef struct dk_xpu_primitives {
    dk_xpu_primitive **slots; /* [room], open addressing */
    int count, room;
} dk_xpu_primitives;

void dk_xpu_primitives_release(dk_xpu *xpu);

/* The primitive of that key; NULL: it has to be made. */
dk_xpu_primitive *dk_xpu_primitive_find(dk_xpu *xpu, const dk_xpu_key *key);
/* Takes over a described primitive and makes it (a device that only plans keeps what it needs,
   and does not); NULL after a failure that is kept. The
   descriptor is destroyed. Operands are added after. */
dk_xpu_primitive *dk_xpu_primitive_add(dk_xpu *xpu, const dk_xpu_key *key,
                                       dnnl_primitive_desc_t desc);
/* desc is taken over. */
void dk_xpu_primitive_operand(dk_xpu_primitive *primitive, int arg, dnnl_memory_desc_t desc);

/* Enqueues it with one device address per operand, in the order of their adding. Its scratch is
   taken from the operation's; that is all that a dry run does. event: where its event goes
   (owned, the one before is deleted), or NULL. */
void dk_xpu_execute(dk_xpu *xpu, dk_xpu_primitive *primitive, void *const *addresses,
                    DPCTLSyclEventRef *event);

/* Executes the latest primitive again, with nothing of ours around it. */
void dk_xpu_repeat(dk_device *device, int times);

/* Keeps what a call of oneDNN reports; returns whether all is well. */
bool dk_xpu_dnnl_ok(dk_xpu *xpu, dnnl_status_t status, const char *what);

/* F32, BF16, I8, F8…; undef for others. */
dnnl_data_type_t dk_xpu_dnnl_type(dk_dtype type);

/* A descriptor with strides in elements; NULL after a failure that is kept. */
dnnl_memory_desc_t dk_xpu_desc(dk_xpu *xpu, int rank, const int64_t *dims,
                               const int64_t *strides, dnnl_data_type_t type);

dnnl_memory_desc_t dk_xpu_clone(const_dnnl_memory_desc_t desc); /* owned */

/* Attributes: these post-operations (copied), scratch that we give. False after a failure. */
bool dk_xpu_attr(dk_xpu *xpu, dnnl_primitive_attr_t *out, const_dnnl_post_ops_t ops);

#endif
