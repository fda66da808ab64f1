/* The device's front: counts work, honours the dry run and a kept failure, then dispatches. */
#include "device/device.h"

void dk_device_close(dk_device **device)
{
    if (*device != NULL) {
        (*device)->ops->close(*device);
        *device = NULL;
    }
}

void dk_device_set_dry(dk_device *device, bool dry)
{
    device->dry = dry;
}

dk_status dk_device_sync(dk_device *device, dk_error *err)
{
    dk_status status = device->failed;
    device->failed = DK_OK;
    return status == DK_OK ? DK_OK : dk_fail(err, status, "%s", device->failure.message);
}

dk_status dk_device_alloc(dk_device *device, void **out, size_t bytes, const char *what,
                          dk_error *err)
{
    return device->ops->alloc(device, out, bytes, what, err);
}

void dk_device_free(dk_device *device, void *memory)
{
    if (memory != NULL) {
        device->ops->free(device, memory);
    }
}

void dk_device_write(dk_device *device, void *dst, const void *host, size_t bytes)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->write(device, dst, host, bytes);
    }
}

void dk_device_zero(dk_device *device, void *dst, size_t bytes)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->zero(device, dst, bytes);
    }
}

void dk_device_read(dk_device *device, void *host, const void *src, size_t bytes)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->read(device, host, src, bytes);
    }
}

dk_status dk_device_conv_prepare(dk_device *device, void **packed, const void *weight,
                                 dk_dtype weight_type, const int shape[5], dk_error *err)
{
    return device->ops->conv_prepare(device, packed, weight, weight_type, shape, err);
}

dk_status dk_device_linear_quantize(dk_device *device, dk_linear_int8 **out, const void *weight,
                                    dk_dtype weight_type, int64_t cols, int64_t depth,
                                    dk_error *err)
{
    return device->ops->linear_quantize(device, out, weight, weight_type, cols, depth, err);
}

void dk_device_linear(dk_device *device, const dk_linear_args *args)
{
    device->flops += 2.0 * (double)args->rows * (double)args->cols * (double)args->depth;
    if (device->failed == DK_OK) {
        device->ops->linear(device, args);
    }
}

void dk_device_conv(dk_device *device, const dk_conv_args *args)
{
    double taps = (double)args->kernel_t * args->kernel_h * args->kernel_w;
    double pixels = (double)args->out_frames * args->out_height * args->out_width;
    device->flops += 2.0 * taps * pixels * args->in_channels * args->out_channels;
    if (device->failed == DK_OK) {
        device->ops->conv(device, args);
    }
}

void dk_device_attention(dk_device *device, const dk_attention_args *args)
{
    double scores = (double)args->heads * (double)args->q_len * (double)args->kv_len;
    device->flops += 4.0 * scores * args->head_dim;
    if (device->failed == DK_OK) {
        device->ops->attention(device, args);
    }
}

void dk_device_norm(dk_device *device, const dk_norm_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->norm(device, args);
    }
}

void dk_device_norm_rope(dk_device *device, const dk_norm_rope_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->norm_rope(device, args);
    }
}

void dk_device_map(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                   dk_dtype src_type, dk_activation activation, int64_t count)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->map(device, dst, dst_type, src, src_type, activation, count);
    }
}

void dk_device_combine(dk_device *device, float *dst, const float *const *src,
                       const float *coef, int terms, int64_t count)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->combine(device, dst, src, coef, terms, count);
    }
}

void dk_device_permute(dk_device *device, const dk_permute_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->permute(device, args);
    }
}

void dk_device_embedding(dk_device *device, const dk_embedding_args *args)
{
    if (device->failed == DK_OK && !device->dry) {
        device->ops->embedding(device, args);
    }
}
