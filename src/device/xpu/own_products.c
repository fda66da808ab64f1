/* Products computed by kernels of our own, and what looks at results. */
#include "device/xpu/own_products.h"

#include "device/xpu/linear.h"

enum { OWN_TILE = 16 }; /* of cl/product.cl */

/* The weight as it is stored, in bf16 where the file has that, else in f32. */
static dk_xpu_form *plain_weight(dk_xpu *xpu, const dk_xpu_stored *stored, bool *bf16)
{
    *bf16 = stored->quantized == NULL && stored->type == DK_BF16;
    dnnl_memory_desc_t desc = dk_xpu_desc(xpu, stored->rank, stored->dims, stored->strides,
                                          *bf16 ? dnnl_bf16 : dnnl_f32);
    dk_xpu_form *form = desc != NULL ? dk_xpu_weight_in(xpu, stored, desc) : NULL;
    dnnl_memory_desc_destroy(desc);
    return form;
}

static void *address_of(dk_xpu *xpu, const void *operand)
{
    return xpu->head.dry ? NULL : dk_xpu_operand(xpu, operand);
}

void dk_xpu_own_linear(dk_xpu *xpu, const dk_linear_args *a, const dk_xpu_stored *stored)
{
    bool bf16;
    dk_xpu_form *form = plain_weight(xpu, stored, &bf16);
    void *weight = form != NULL ? dk_xpu_form_begin(xpu, form) : NULL;
    void *sums = dk_xpu_scratch(xpu, (size_t)(a->rows * a->cols) * sizeof(float));
    if (form == NULL || (weight == NULL && !xpu->head.dry)) {
        return;
    }
    dk_xpu_args args = {0};
    dk_xpu_arg_pointer(&args, sums);
    dk_xpu_arg_pointer(&args, address_of(xpu, a->src));
    dk_xpu_arg_pointer(&args, weight);
    dk_xpu_arg_pointer(&args, address_of(xpu, a->bias));
    dk_xpu_arg_i32(&args, (int32_t)a->rows);
    dk_xpu_arg_i32(&args, (int32_t)a->cols);
    dk_xpu_arg_i32(&args, (int32_t)a->depth);
    dk_xpu_arg_i64(&args, a->src_stride);
    dk_xpu_launch(xpu, dk_xpu_variant(DK_XPU_PRODUCT_F32_F32, a->src_type == DK_BF16, bf16),
                  &args,
                  (size_t[]){(size_t)(a->cols + OWN_TILE - 1) / OWN_TILE,
                             (size_t)(a->rows + OWN_TILE - 1) / OWN_TILE, 1},
                  (size_t[]){OWN_TILE, OWN_TILE, 1});
    DPCTLSyclEventRef event = NULL;
    if (dk_xpu_form_moves(form) && !xpu->head.dry) {
        event = DPCTLQueue_SubmitBarrier(xpu->queue);
    }
    dk_xpu_form_end(xpu, form, event);
    dk_xpu_linear_finish(xpu, a, sums, NULL);
}

void dk_xpu_own_conv(dk_xpu *xpu, const dk_conv_args *a, const dk_xpu_stored *stored, void *src,
                     dk_dtype src_type, void *sums)
{
    enum { CHANNELS = 16, PIXELS = 16 };
    bool bf16;
    dk_xpu_form *form = plain_weight(xpu, stored, &bf16);
    void *weight = form != NULL ? dk_xpu_form_begin(xpu, form) : NULL;
    if (form == NULL || (weight == NULL && !xpu->head.dry)) {
        return;
    }
    dk_xpu_args args = {0};
    const int numbers[] = {a->in_channels,
                           a->out_channels,
                           a->height * a->upsample,
                           a->width * a->upsample,
                           a->out_height,
                           a->out_width,
                           a->kernel_t,
                           a->kernel_h,
                           a->kernel_w,
                           a->stride_t,
                           a->stride,
                           a->pad_top,
                           a->pad_left};
    dk_xpu_arg_pointer(&args, sums);
    dk_xpu_arg_pointer(&args, src);
    dk_xpu_arg_pointer(&args, weight);
    dk_xpu_arg_pointer(&args, address_of(xpu, a->bias));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        dk_xpu_arg_i32(&args, numbers[i]);
    }
    int pixels = a->out_height * a->out_width;
    dk_xpu_launch(xpu, dk_xpu_variant(DK_XPU_CONVOLVE_F32_F32, src_type == DK_BF16, bf16),
                  &args,
                  (size_t[]){(size_t)(a->out_channels + CHANNELS - 1) / CHANNELS,
                             (size_t)(pixels + PIXELS - 1) / PIXELS, (size_t)a->out_frames},
                  (size_t[]){CHANNELS, PIXELS, 1});
    DPCTLSyclEventRef event = NULL;
    if (dk_xpu_form_moves(form) && !xpu->head.dry) {
        event = DPCTLQueue_SubmitBarrier(xpu->queue);
    }
    dk_xpu_form_end(xpu, form, event);
}

void dk_xpu_absmax(dk_device *device, uint32_t *flag, const void *src, dk_dtype type,
                   int64_t count)
{
    enum { GROUPS = 64, LOCAL = 256 };
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_args args = {0};
    dk_xpu_arg_pointer(&args, dk_xpu_operand(xpu, flag));
    dk_xpu_arg_pointer(&args, dk_xpu_operand(xpu, src));
    dk_xpu_arg_i64(&args, count);
    dk_xpu_launch(xpu, type == DK_BF16 ? DK_XPU_ABSMAX_BF16 : DK_XPU_ABSMAX_F32, &args,
                  (size_t[]){GROUPS, 1, 1}, (size_t[]){LOCAL, 1, 1});
}

bool dk_xpu_spoils(const dk_xpu *xpu, const dk_xpu_stored *stored, bool gated)
{
    const dk_xpu_adopted *from = xpu->unchecked ? dk_xpu_adopted_at(xpu, stored->host) : NULL;
    bool component = from != NULL && from->component == xpu->spoiled_component;
    bool all = xpu->spoiled_component != DK_COMPONENT_TRANSFORMER;
    return xpu->spoils || (component && (all || gated));
}

void dk_xpu_spoil(dk_xpu *xpu, void *dst, dk_dtype type)
{
    if (!xpu->head.dry) {
        dk_xpu_args args = {0};
        dk_xpu_arg_pointer(&args, dst);
        dk_xpu_arg_i64(&args, 0);
        dk_xpu_launch(xpu, type == DK_BF16 ? DK_XPU_SPOIL_BF16 : DK_XPU_SPOIL_F32, &args,
                      (size_t[]){1, 1, 1}, (size_t[]){1, 1, 1});
    }
}
