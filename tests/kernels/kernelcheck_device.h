/* Operations through a device: the operands of a case are sent to its memory, the result comes
   back to where the kernels would have left it, so that one oracle judges both. */
#ifndef DK_TESTS_KERNELCHECK_DEVICE_H
#define DK_TESTS_KERNELCHECK_DEVICE_H

#include "device/device.h"
#include "kernels/kernelcheck.h"

/* Each runs dry first, as every caller of a device does, then in earnest. Operands lie in
   memory of their own between borders that are checked; in odd rounds they start one element
   behind an aligned address, vectors are adopted instead, and a convolution's frames lie
   together. */
void kc_device_linear(kc *k, const dk_linear_args *args, int count);
void kc_device_conv(kc *k, const dk_conv_args *args, const dk_conv_weight *weight);
/* biases: all the numbers of which args->bias is one. */
void kc_device_attention(kc *k, const dk_attention_args *args, const float *biases,
                         int64_t bias_count);
/* Rows [first, last) alone; args->rows of them are there. */
void kc_device_norm(kc *k, const dk_norm_args *args, int64_t first, int64_t last);
void kc_device_norm_rope(kc *k, const dk_norm_rope_args *args, int64_t first, int64_t last);
void kc_device_row_squares(kc *k, const dk_norm_rope_args *args, float *squares, int64_t first,
                           int64_t last);
void kc_device_merge(kc *k, const dk_attention_merge_args *args);
void kc_device_map(kc *k, void *dst, dk_dtype dst_type, const void *src, dk_dtype src_type,
                   dk_activation activation, int64_t count);
void kc_device_combine(kc *k, float *dst, const float *const *src, const float *coef, int terms,
                       int64_t count);

/* The parts of such a call. Sends an operand of elements of `width` bytes; what was sent before
   in this call has the same address. NULL: NULL. */
void *kc_send(kc *k, const void *host, size_t bytes, size_t width);
/* Parameters: sent, or adopted and left on the host. */
const float *kc_send_vector(kc *k, const float *host, int64_t count);
/* Names a matrix that stays on the host. */
void kc_adopt(kc *k, const void *host, size_t bytes, bool vectors);
/* What was sent from there comes back. */
void kc_receive(kc *k, void *host);
/* Ends the call: waits, reports a failure, checks the borders, frees. */
void kc_device_end(kc *k);

#endif
