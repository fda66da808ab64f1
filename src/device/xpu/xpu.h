/* The XPU device's inside: an Intel GPU, or the CPU, through SYCL's C interface (dpctl), oneDNN
   and OpenCL C kernels of our own (cl/). Everything goes through one in-order queue; weights
   travel on a second one. Operations enqueue and return; a failure is kept in the device. */
#ifndef DK_DEVICE_XPU_XPU_H
#define DK_DEVICE_XPU_XPU_H

#include <dpctl_sycl_context_interface.h>
#include <dpctl_sycl_device_interface.h>
#include <dpctl_sycl_event_interface.h>
#include <dpctl_sycl_queue_interface.h>
#include <dpctl_sycl_usm_interface.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_sycl.h>

#include "device/device.h"
#include "device/xpu/attention.h"
#include "device/xpu/kernels.h"
#include "device/xpu/memory.h"
#include "device/xpu/primitives.h"
#include "device/xpu/spans.h"
#include "device/xpu/weights.h"

typedef struct dk_xpu {
    dk_device head; /* first: a dk_device pointer is a dk_xpu pointer */
    const dk_log *log;
    DPCTLSyclDeviceRef device;
    char identity[256]; /* the device and its driver */
    DPCTLSyclContextRef context;
    DPCTLSyclQueueRef queue;    /* in order: compute */
    DPCTLSyclQueueRef transfer; /* in order: weights that come and go */
    dnnl_engine_t engine;
    dnnl_stream_t stream; /* of queue */
    bool multiplies_bf16; /* oneDNN has matrix products of bf16 on this device */
    dk_xpu_memory memory;
    dk_xpu_kernels kernels;
    dk_xpu_primitives primitives;
    dk_xpu_weights weights;
    dk_xpu_spans spans;
    bool lacks[DK_QUANTIZATION_COUNT]; /* oneDNN has no products of this kind here */
    int depth;      /* operations that may be enqueued ahead; 0: any number */
    int ahead;      /* that were, since the host waited */
    bool checks;    /* a product is being checked: what it needs is at hand */
    bool spoils;    /* for tests: products of oneDNN give a NaN */
    bool unchecked; /* for tests: those of spoiled_component do, and no check finds out */
    dk_component spoiled_component; /* of the transformer: its gated layers alone */
    char *loss; /* for tests: the device is lost when this file is there, which goes; owned */
    bool lost;
    dk_xpu_attention_state attention;
    struct {
        const dk_xpu_primitive *primitive; /* NULL: none so far */
        dnnl_exec_arg_t args[DK_XPU_MOST_OPERANDS + 1];
        int count;
    } latest; /* primitive that was executed: for measurements */
} dk_xpu;

static inline dk_xpu *dk_xpu_of(dk_device *device)
{
    return (dk_xpu *)device;
}

DK_MUST_USE dk_status dk_xpu_device_open(dk_device **out, const dk_device_options *options,
                                         dk_error *err);

/* Keeps a failure, the first one; nothing is enqueued after it. */
void dk_xpu_fail(dk_xpu *xpu, dk_status status, const char *format, ...) DK_PRINTF(3, 4);

/* Counts an operation that was given to the driver. */
void dk_xpu_enqueued(dk_xpu *xpu);

/* What matrix products are computed in: bf16, or f32 when the device has no bf16, --dtype f32
   asks for it, or a block is computed carefully. */
static inline dk_dtype dk_xpu_compute_type(const dk_xpu *xpu)
{
    bool plain = xpu->head.exact || xpu->head.careful;
    return xpu->multiplies_bf16 && !plain ? DK_BF16 : DK_F32;
}

/* Parts that operations share. Addresses are operands; scratch is known by itself. */

/* dst[rows][cols] in scratch = src cast, rows of src `stride` elements apart. */
void dk_xpu_cast(dk_xpu *xpu, void *scratch, dk_dtype dst_type, const void *src,
                 dk_dtype src_type, int64_t rows, int64_t cols, int64_t stride);

/* The same to whole numbers in [-127, 127], each row with its own scale, [rows]. */
void dk_xpu_quantize_rows(dk_xpu *xpu, void *scratch, void *scales, const void *src,
                          dk_dtype src_type, int64_t rows, int64_t cols, int64_t stride);

/* Finishes f32 sums [rows][cols] in scratch, see cl/epilogue.cl. */
typedef struct dk_xpu_epilogue_args {
    void *sums;        /* scratch */
    void *row_scale;   /* [rows] in scratch, or NULL */
    const float *bias; /* [cols], or NULL where the sums have it */
    int64_t rows, cols;
    dk_activation activation;
    const void *multiply;
    const float *gate;
    int64_t gate_stride;
    const void *residual;
    void *dst;
    dk_dtype dst_type;
    int64_t block, block_stride,
        stride; /* row r at r / block * block_stride + r % block * stride */
} dk_xpu_epilogue_args;
void dk_xpu_epilogue(dk_xpu *xpu, const dk_xpu_epilogue_args *args);

/* Enqueues a kernel that gives each row a sub-group. */
void dk_xpu_launch_rows(dk_xpu *xpu, dk_xpu_kernel kernel, dk_xpu_args *args, int64_t rows);

void dk_xpu_append_activation(dk_xpu *xpu, dnnl_post_ops_t ops, dk_activation activation);

void dk_xpu_absmax(dk_device *device, uint32_t *flag, const void *src, dk_dtype type,
                   int64_t count);
void dk_xpu_linear(dk_device *device, const dk_linear_args *args, int count);
void dk_xpu_conv(dk_device *device, const dk_conv_args *args);
dk_status dk_xpu_conv_prepare(dk_device *device, void **packed, const void *weight,
                              dk_dtype weight_type, const int *shape, dk_error *err);
dk_status dk_xpu_linear_quantize(dk_device *device, dk_linear_quantized **out,
                                 const void *weight, dk_dtype weight_type, int64_t cols,
                                 int64_t depth, dk_quantization kind, dk_error *err);
void dk_xpu_attention(dk_device *device, const dk_attention_args *args);
void dk_xpu_norm(dk_device *device, const dk_norm_args *args);
void dk_xpu_norm_rope(dk_device *device, const dk_norm_rope_args *args);
void dk_xpu_row_squares(dk_device *device, const dk_norm_rope_args *args, float *squares);
void dk_xpu_merge(dk_device *device, const dk_attention_merge_args *args);
void dk_xpu_map(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                dk_dtype src_type, dk_activation activation, int64_t count);
void dk_xpu_combine(dk_device *device, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count);
void dk_xpu_permute(dk_device *device, const dk_permute_args *args);
void dk_xpu_embedding(dk_device *device, const dk_embedding_args *args);

#endif
