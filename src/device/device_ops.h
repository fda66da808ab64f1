/* The operations of a kind of device: what a device's own code fills in, and what device.c
   calls. device.h says what each does. */
#ifndef DK_DEVICE_DEVICE_OPS_H
#define DK_DEVICE_DEVICE_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "device/quantization.h"
#include "device/residency.h"
#include "kernels/attention.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/norm.h"

typedef struct dk_device dk_device;

/* dst[shape] = src[shape], both walked with their own strides (in elements), cast between F32
   and BF16. Patchify, transposes and channel moves are all this. */
typedef struct dk_permute_args {
    int rank; /* 2..8 */
    int64_t shape[8], src_stride[8], dst_stride[8];
    const void *src;
    dk_dtype src_type;
    void *dst;
    dk_dtype dst_type;
} dk_permute_args;

/* dst[row] = table[ids[row]], converted to f32. Every id is inside the table. */
typedef struct dk_embedding_args {
    int64_t rows, cols;
    const int32_t *ids;
    const void *table; /* [vocabulary][cols], any float type */
    dk_dtype table_type;
    float *dst; /* [rows][cols] */
} dk_embedding_args;

typedef struct dk_device_ops {
    const char *kind; /* "cpu" */
    void (*close)(dk_device *device);
    /* Waits for what is enqueued; NULL: every operation is done when it returns. */
    dk_status (*sync)(dk_device *device, dk_error *err);
    /* A place behind all that is enqueued so far, NULL: it failed; and waiting for it, once,
       from any thread. NULL: every operation is done when it returns. */
    void *(*mark)(dk_device *device);
    void (*wait_for)(void *mark);
    size_t (*scratch_bytes)(const dk_device *device);
    void (*forget_scratch)(dk_device *device);
    /* NULL: operations read weights where they lie. */
    void (*adopt)(dk_device *device, const dk_adoption *adoption);
    void (*disown)(dk_device *device, const void *host);
    void (*rest)(dk_device *device, dk_component component); /* NULL: nothing to do */
    dk_status (*alloc)(dk_device *device, void **out, size_t bytes, const char *what,
                       dk_error *err);
    void (*free)(dk_device *device, void *memory);
    void (*write)(dk_device *device, void *dst, const void *host, size_t bytes);
    void (*zero)(dk_device *device, void *dst, size_t bytes);
    void (*read)(dk_device *device, void *host, const void *src, size_t bytes);
    dk_status (*conv_prepare)(dk_device *device, void **packed, const void *weight,
                              dk_dtype weight_type, const int *shape, dk_error *err);
    dk_status (*linear_quantize)(dk_device *device, dk_linear_quantized **out,
                                 const void *weight, dk_dtype weight_type, int64_t cols,
                                 int64_t depth, dk_quantization kind, dk_error *err);
    void (*forget)(dk_device *device, const void *host);               /* NULL: nothing to do */
    void (*window)(dk_device *device, const void *host, size_t bytes); /* the same */
    void (*linear)(dk_device *device, const dk_linear_args *args, int count);
    void (*conv)(dk_device *device, const dk_conv_args *args);
    void (*attention)(dk_device *device, const dk_attention_args *args);
    void (*norm)(dk_device *device, const dk_norm_args *args);
    void (*norm_rope)(dk_device *device, const dk_norm_rope_args *args);
    void (*row_squares)(dk_device *device, const dk_norm_rope_args *args, float *squares);
    void (*merge)(dk_device *device, const dk_attention_merge_args *args);
    void (*map)(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                dk_dtype src_type, dk_activation activation, int64_t count);
    void (*combine)(dk_device *device, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count);
    void (*permute)(dk_device *device, const dk_permute_args *args);
    void (*embedding)(dk_device *device, const dk_embedding_args *args);
    /* NULL: the device's arithmetic needs no guard. */
    void (*absmax)(dk_device *device, uint32_t *flag, const void *src, dk_dtype type,
                   int64_t count);
    /* For measurements: the library's part of the latest matrix operation; NULL: none. */
    void (*repeat)(dk_device *device, int times);
} dk_device_ops;

#endif
