/* Where a model's weights are while it works: on the device, or on the host until an operation
   is about to read them. A policy of the device; models do not know it. */
#ifndef DK_DEVICE_RESIDENCY_H
#define DK_DEVICE_RESIDENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dk_component {
    DK_COMPONENT_TEXT_ENCODER,
    DK_COMPONENT_IMAGE_ENCODER,
    DK_COMPONENT_TRANSFORMER,
    DK_COMPONENT_VAE,
    DK_COMPONENT_COUNT
} dk_component;
extern const char *const dk_component_names[DK_COMPONENT_COUNT]; /* "text_encoder", … */

typedef enum dk_residency {
    DK_RESIDENT,          /* on the device from its first use on */
    DK_OFFLOAD_COMPONENT, /* brought in with its first use, given up at the end of its stage */
    DK_OFFLOAD_LAYERS,    /* brought in weight by weight, ahead of use, within a budget */
} dk_residency;

typedef struct dk_residency_options {
    dk_residency of[DK_COMPONENT_COUNT];
    bool pin;              /* host copies in memory that the device reads directly */
    uint64_t budget_bytes; /* of device memory for weights; 0: what the device has */
} dk_residency_options;

/* Host memory that operations will name as an operand. */
typedef struct dk_adoption {
    const void *host;
    size_t bytes;
    const char *name; /* of the tensor, for messages; copied */
    dk_component component;
    bool passing; /* its bytes are there only while dk_device_window says so: they are read
                     where they lie, and nothing of them is kept on the host */
    bool vectors; /* small f32 parameters, any address inside may be named; else a matrix or an
                     embedding table */
} dk_adoption;

#endif
