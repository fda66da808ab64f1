/* The CPU device's inside: its state and its operations, one function per entry of
   dk_device_ops. */
#ifndef DK_DEVICE_CPU_CPU_OPS_H
#define DK_DEVICE_CPU_CPU_OPS_H

#include "base/team.h"
#include "device/device.h"

typedef struct dk_cpu_device {
    dk_device head; /* first: a dk_device pointer is a dk_cpu_device pointer */
    dk_topology topology;
    dk_team *team;
    dk_linear_kernels linear;
    dk_attention_kernels attention;
    dk_norm_kernels norm;
    dk_elementwise_kernels elementwise;
    void *scratch;        /* [threads][scratch_bytes] */
    size_t scratch_bytes; /* per thread, a multiple of 64 */
    void *shared;         /* packed operands of one operation */
    size_t shared_bytes;
} dk_cpu_device;

static inline dk_cpu_device *dk_cpu_device_of(dk_device *device)
{
    return (dk_cpu_device *)device;
}

/* Makes both scratch areas large enough; false (with the failure kept in the device) when there
   is no memory. */
bool dk_cpu_reserve(dk_cpu_device *cpu, size_t thread_bytes, size_t shared_bytes);
void *dk_cpu_scratch(const dk_cpu_device *cpu, int thread);

dk_status dk_cpu_conv_prepare(dk_device *device, void **packed, const void *weight,
                              dk_dtype weight_type, const int *shape, dk_error *err);
dk_status dk_cpu_linear_quantize(dk_device *device, dk_linear_quantized **out,
                                 const void *weight, dk_dtype weight_type, int64_t cols,
                                 int64_t depth, dk_quantization kind, dk_error *err);
void dk_cpu_linear(dk_device *device, const dk_linear_args *args, int count);
void dk_cpu_conv(dk_device *device, const dk_conv_args *args);
void dk_cpu_attention(dk_device *device, const dk_attention_args *args);
void dk_cpu_norm(dk_device *device, const dk_norm_args *args);
void dk_cpu_norm_rope(dk_device *device, const dk_norm_rope_args *args);
void dk_cpu_row_squares(dk_device *device, const dk_norm_rope_args *args, float *squares);
void dk_cpu_merge(dk_device *device, const dk_attention_merge_args *args);
void dk_cpu_map(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                dk_dtype src_type, dk_activation activation, int64_t count);
void dk_cpu_combine(dk_device *device, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count);
void dk_cpu_permute(dk_device *device, const dk_permute_args *args);
void dk_cpu_embedding(dk_device *device, const dk_embedding_args *args);

#endif
