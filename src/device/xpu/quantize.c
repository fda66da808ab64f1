/* Weights of fewer bits. */
#include "device/xpu/xpu.h"

dk_status dk_xpu_linear_quantize(dk_device *device, dk_linear_int8 **out, const void *weight,
                                 dk_dtype weight_type, int64_t cols, int64_t depth,
                                 dk_error *err)
{
    (void)out;
    (void)weight;
    (void)weight_type;
    (void)cols;
    (void)depth;
    return dk_fail(err, DK_UNSUPPORTED, "%s: no int8 weights", device->description);
}
