/* Weights in fewer bits on the XPU: as whole numbers (or fp8) with scales on the host, adopted
   like any weight; products take them as they are where oneDNN can. */
#ifndef DK_DEVICE_XPU_QUANTIZE_H
#define DK_DEVICE_XPU_QUANTIZE_H

#include "device/device.h"
#include "device/xpu/weights.h"

typedef struct dk_xpu_quantized {
    dk_linear_quantized head; /* first: what layers hold */
    dk_quantization kind;
    void *values;  /* [cols][depth], host, owned, adopted; int4: two in a byte, the first low */
    float *scales; /* [depth / group][cols], host, owned, adopted */
    int64_t group; /* elements of depth that share a scale */
    dk_xpu_stored stored;
} dk_xpu_quantized;

static inline const dk_xpu_quantized *dk_xpu_quantized_of(const dk_linear_quantized *weight)
{
    return (const dk_xpu_quantized *)weight;
}

dnnl_data_type_t dk_xpu_quantized_type(dk_quantization kind);

/* Elements [first, first + count) of a column, as numbers: value * scale. */
void dk_xpu_dequantize(const dk_xpu_quantized *weight, float *dst, int64_t col, int64_t first,
                       int64_t count);

#endif
