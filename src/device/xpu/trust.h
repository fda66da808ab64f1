/* Trust nothing: drivers and libraries are known that give wrong numbers for some shapes. The
   first time a shape is used, its product is compared with f32 sums on the host, on random rows
   and at a sample of places, all of its numbers being finite. What fails is computed by kernels
   of our own from then on (cl/product.cl), and the log says so. */
#ifndef DK_DEVICE_XPU_TRUST_H
#define DK_DEVICE_XPU_TRUST_H

#include "device/xpu/xpu.h"

/* The check of a linear layer's primitive, whose weight is `form`: sets checked and wrong. */
void dk_xpu_check_linear(dk_xpu *xpu, dk_xpu_primitive *primitive, dk_xpu_form *form,
                         const dk_xpu_stored *stored, const dk_linear_args *args);
void dk_xpu_check_conv(dk_xpu *xpu, dk_xpu_primitive *primitive, dk_xpu_form *form,
                       const dk_xpu_stored *stored, const dk_conv_args *args);
/* Whether the product of `count` queries with all keys of a call, int8 to int32, is right: each
   sum that is looked at, exactly. Checks once. */
bool dk_xpu_check_scores(dk_xpu *xpu, dk_xpu_primitive *primitive,
                         const dk_attention_args *args, int64_t count);

#endif
