/* A lane of a device: a queue of its own beside that of the operations, in order, for calls
   between ranks (src/comm) that work on the device's memory. It is opened by the device's name,
   before the device itself is or without it; whoever is given it may use it in one thread at a
   time, not that of the device's operations. NULL stands for the host: there the functions
   below copy at once. */
#ifndef DK_DEVICE_LANE_H
#define DK_DEVICE_LANE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

typedef struct dk_device_lane dk_device_lane;

/* The common head; a module extends it. */
struct dk_device_lane {
    void *module; /* handle of what it came from */
    void *queue;  /* sycl::queue * */
    int number;   /* of the GPU, as its libraries count them; -1: no GPU */
    bool (*holds)(dk_device_lane *lane, const void *memory); /* memory of the device's kind */
    void *(*alloc)(dk_device_lane *lane, size_t bytes);      /* NULL: there is not so much */
    void (*free)(dk_device_lane *lane, void *memory);
    /* Enqueues; either side may be the host's. */
    void (*copy)(dk_device_lane *lane, void *dst, const void *src, size_t bytes);
    bool (*wait)(dk_device_lane *lane); /* until it is empty; false: something has failed */
    void (*close)(dk_device_lane *lane);
};

/* *out: NULL for "cpu". Owned. */
DK_MUST_USE dk_status dk_device_lane_open(dk_device_lane **out, const char *device,
                                          dk_error *err);
void dk_device_lane_close(dk_device_lane **lane); /* waits for what is enqueued; NULL is fine */

/* Memory that grows and never shrinks, of the lane's device or the host's; its content is lost
   when it grows. */
typedef struct dk_lane_memory {
    void *memory;
    size_t bytes;
} dk_lane_memory;

DK_MUST_USE dk_status dk_lane_reserve(dk_device_lane *lane, dk_lane_memory *memory,
                                      size_t bytes, const char *what, dk_error *err);
void dk_lane_release(dk_device_lane *lane, dk_lane_memory *memory);

void dk_lane_copy(dk_device_lane *lane, void *dst, const void *src, size_t bytes);
DK_MUST_USE dk_status dk_lane_wait(dk_device_lane *lane, const char *what, dk_error *err);

#endif
