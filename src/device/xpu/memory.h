/* Memory of the XPU: allocations of the device, which host memory stands for which of them, and
   scratch. */
#ifndef DK_DEVICE_XPU_MEMORY_H
#define DK_DEVICE_XPU_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "device/device.h"

typedef struct dk_xpu dk_xpu;

/* Addresses that operands may have. */
typedef struct dk_xpu_range {
    uintptr_t start;
    size_t bytes;
    char *device; /* where it lies on the device: the same address, or a copy's */
} dk_xpu_range;

/* A piece of device memory that small parameters share. */
typedef struct dk_xpu_slab {
    char *data;
    size_t used, size;
    int live;
} dk_xpu_slab;

/* Something on the host that its owner frees as device memory. */
typedef struct dk_xpu_kept {
    void *memory;
    void (*release)(dk_xpu *xpu, void *memory);
} dk_xpu_kept;

typedef struct dk_xpu_memory {
    dk_xpu_range *ranges; /* [count], by start */
    int count, room;
    size_t bytes, peak_bytes; /* of all device memory */
    uint64_t allocations;     /* so far */
    char *scratch;
    size_t scratch_bytes, scratch_used, scratch_peak;
    void **extra; /* [extra_count]: pieces that scratch was too small for */
    int extra_count;
    dk_xpu_slab *slabs; /* [slab_count] */
    int slab_count;
    dk_xpu_kept *kept; /* [kept_count] */
    int kept_count;
} dk_xpu_memory;

void dk_xpu_memory_release(dk_xpu *xpu);

/* Device memory, aligned to 64 bytes, known as an operand. */
DK_MUST_USE dk_status dk_xpu_alloc(dk_xpu *xpu, void **out, size_t bytes, const char *what,
                                   dk_error *err);
/* Device memory, or what was kept; NULL is fine. */
void dk_xpu_free(dk_xpu *xpu, void *memory);
/* From now on dk_xpu_free of that address calls `release`. */
void dk_xpu_keep(dk_xpu *xpu, void *memory, void (*release)(dk_xpu *xpu, void *memory));

/* Copies small host memory to the device; its addresses become operands. */
DK_MUST_USE dk_status dk_xpu_mirror(dk_xpu *xpu, const void *host, size_t bytes, dk_error *err);
void dk_xpu_unmirror(dk_xpu *xpu, const void *host);

/* The device address of an operand; NULL for NULL, and after a failure that is kept: an address
   that is neither device memory nor mirrored. */
void *dk_xpu_operand(dk_xpu *xpu, const void *address);

/* Scratch of the operation that runs, until dk_xpu_scratch_end; aligned to 64. In a dry run of
   a planning device it is counted and NULL. */
void *dk_xpu_scratch(dk_xpu *xpu, size_t bytes);
void dk_xpu_scratch_end(dk_xpu *xpu);

void dk_xpu_write(dk_xpu *xpu, void *dst, const void *host, size_t bytes);
void dk_xpu_read(dk_xpu *xpu, void *host, const void *src, size_t bytes);
void dk_xpu_zero(dk_xpu *xpu, void *dst, size_t bytes);
/* From device memory to device memory; the host does not wait. */
void dk_xpu_move(dk_xpu *xpu, void *dst, const void *src, size_t bytes);

#endif
