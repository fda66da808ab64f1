/* Linear layers and convolutions by simple kernels of our own (cl/product.cl), in f32: for
   shapes whose products by oneDNN are wrong, and blocks that are computed carefully. */
#ifndef DK_DEVICE_XPU_OWN_PRODUCTS_H
#define DK_DEVICE_XPU_OWN_PRODUCTS_H

#include "device/xpu/xpu.h"

/* A linear layer by our own kernel. */
void dk_xpu_own_linear(dk_xpu *xpu, const dk_linear_args *args, const dk_xpu_stored *stored);

/* src is contiguous, of src_type; sums: f32 [frames][pixels][out_channels] in scratch. */
void dk_xpu_own_conv(dk_xpu *xpu, const dk_conv_args *args, const dk_xpu_stored *stored,
                     void *src, dk_dtype src_type, void *sums);

/* For tests: whether a product of this weight is to be spoiled. gated: a linear layer with a
 * gate. */
bool dk_xpu_spoils(const dk_xpu *xpu, const dk_xpu_stored *stored, bool gated);
/* For tests: makes the first number of what a product has just written a NaN. */
void dk_xpu_spoil(dk_xpu *xpu, void *dst, dk_dtype type);

#endif
