/* Making weights of fewer bits. */
#include "device/xpu/quantize.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "device/xpu/xpu.h"
#include "tensor/convert.h"

static const struct {
    dnnl_data_type_t type;
    int bits;
    float most; /* the largest value */
} kinds[DK_QUANTIZATION_COUNT] = {
    [DK_QUANTIZATION_INT8] = {dnnl_s8, 8, 127.0f},
    [DK_QUANTIZATION_INT8_WEIGHTS] = {dnnl_s8, 8, 127.0f},
    [DK_QUANTIZATION_INT4_WEIGHTS] = {dnnl_s4, 4, 7.0f},
    [DK_QUANTIZATION_FP8_WEIGHTS] = {dnnl_f8_e4m3, 8, 448.0f},
};

dnnl_data_type_t dk_xpu_quantized_type(dk_quantization kind)
{
    return kinds[kind].type;
}

static float scale_of(const float *values, int64_t count, float most)
{
    float largest = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(values[i]));
    }
    return largest > 0 ? largest / most : 1.0f;
}

/* Stores `count` values of a column from element `first` on, divided by the scale. */
static void store(const dk_xpu_quantized *w, int64_t col, int64_t first, const float *values,
                  int64_t count, float scale)
{
    int64_t at = col * w->head.depth + first;
    uint8_t *bytes = w->values;
    for (int64_t i = 0; i < count; i++, at++) {
        float value = values[i] / scale;
        if (w->kind == DK_QUANTIZATION_FP8_WEIGHTS) {
            dk_convert_from_f32(bytes + at, DK_F8_E4M3, &value, 1);
        } else if (w->kind == DK_QUANTIZATION_INT4_WEIGHTS) {
            uint8_t bits = (uint8_t)lrintf(value) & 15, other = bytes[at / 2];
            bytes[at / 2] = at % 2 == 0 ? (uint8_t)((other & 0xf0) | bits)
                                        : (uint8_t)((other & 0x0f) | bits << 4);
        } else {
            bytes[at] = (uint8_t)(int8_t)lrintf(value);
        }
    }
}

static dk_status fill(dk_xpu_quantized *w, const void *weight, dk_dtype type, dk_error *err)
{
    int64_t depth = w->head.depth, cols = w->head.cols;
    size_t row_bytes = (size_t)depth * dk_dtype_bytes(type);
    void *memory;
    DK_TRY(dk_try_alloc(&memory, (size_t)depth * sizeof(float), "a row of a weight", err));
    float *row = memory;
    for (int64_t col = 0; col < cols; col++) {
        dk_convert_to_f32(row, (const char *)weight + (size_t)col * row_bytes, type, depth);
        for (int64_t first = 0; first < depth; first += w->group) {
            float scale = scale_of(row + first, w->group, kinds[w->kind].most);
            w->scales[first / w->group * cols + col] = scale;
            store(w, col, first, row + first, w->group, scale);
        }
    }
    dk_free(memory);
    return DK_OK;
}

void dk_xpu_dequantize(const dk_xpu_quantized *weight, float *dst, int64_t col, int64_t first,
                       int64_t count)
{
    int64_t at = col * weight->head.depth + first;
    const uint8_t *bytes = weight->values;
    for (int64_t i = 0; i < count; i++, at++) {
        float value;
        if (weight->kind == DK_QUANTIZATION_FP8_WEIGHTS) {
            dk_convert_to_f32(&value, bytes + at, DK_F8_E4M3, 1);
        } else if (weight->kind == DK_QUANTIZATION_INT4_WEIGHTS) {
            int bits = bytes[at / 2] >> (at % 2 * 4) & 15;
            value = (float)(bits < 8 ? bits : bits - 16);
        } else {
            value = (float)(int8_t)bytes[at];
        }
        int64_t group = (first + i) / weight->group;
        dst[i] = value * weight->scales[group * weight->head.cols + col];
    }
}

static void release(dk_xpu *xpu, void *memory)
{
    dk_xpu_quantized *w = memory;
    dk_xpu_disown(&xpu->head, w->values);
    dk_xpu_disown(&xpu->head, w->scales);
    dk_free(w->values);
    dk_free(w->scales);
    dk_free(w);
}

static void adopt(dk_xpu *xpu, const dk_xpu_quantized *w, const void *weight, size_t bytes,
                  size_t scale_bytes)
{
    const dk_xpu_adopted *from = dk_xpu_adopted_at(xpu, weight);
    dk_adoption adoption = {.host = w->values,
                            .bytes = bytes,
                            .name = from != NULL ? from->name : "a quantised weight",
                            .component =
                                from != NULL ? from->component : DK_COMPONENT_TRANSFORMER};
    dk_xpu_adopt(&xpu->head, &adoption);
    adoption.host = w->scales;
    adoption.bytes = scale_bytes;
    adoption.vectors = true;
    dk_xpu_adopt(&xpu->head, &adoption);
}

dk_status dk_xpu_linear_quantize(dk_device *device, dk_linear_quantized **out,
                                 const void *weight, dk_dtype weight_type, int64_t cols,
                                 int64_t depth, dk_quantization kind, dk_error *err)
{
    dk_xpu *xpu = dk_xpu_of(device);
    bool grouped = kind == DK_QUANTIZATION_INT4_WEIGHTS;
    int64_t group = grouped ? DK_INT4_GROUP : depth;
    if (depth % group != 0) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "a linear layer of depth %lld, int4 weights need a multiple of %d",
                       (long long)depth, DK_INT4_GROUP);
    }
    size_t bytes = (size_t)(cols * depth) * (size_t)kinds[kind].bits / 8;
    size_t scale_bytes = (size_t)(depth / group * cols) * sizeof(float);
    dk_xpu_quantized *w = dk_alloc(sizeof *w);
    w->head = (dk_linear_quantized){.cols = cols, .depth = depth, .bytes = bytes + scale_bytes};
    w->kind = kind;
    w->group = group;
    void *values = NULL, *scales = NULL;
    dk_status status = dk_try_alloc(&values, bytes, "a quantised weight", err);
    if (status == DK_OK) {
        memset(values, 0, bytes);
        status = dk_try_alloc(&scales, scale_bytes, "scales of a quantised weight", err);
    }
    w->values = values;
    w->scales = scales;
    if (status == DK_OK) {
        status = fill(w, weight, weight_type, err);
    }
    if (status != DK_OK) {
        dk_free(values);
        dk_free(scales);
        dk_free(w);
        return status;
    }
    w->stored = (dk_xpu_stored){.host = values,
                                .quantized = w,
                                .rank = 2,
                                .dims = {depth, cols},
                                .strides = {1, depth}};
    adopt(xpu, w, weight, bytes, scale_bytes);
    dk_xpu_keep(xpu, w, release);
    *out = &w->head;
    return DK_OK;
}
