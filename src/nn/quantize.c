/* Quantising layers and measuring what it costs. */
#include "nn/quantize.h"

#include <math.h>

#include "base/alloc.h"
#include "tensor/random.h"

enum { PROBE_ROWS = 8 };

void dk_nn_quantized_release(dk_nn_quantized *quantized)
{
    for (int i = 0; i < quantized->layers; i++) {
        dk_device_free(quantized->device, quantized->weights[i]);
    }
    dk_free(quantized->weights);
    dk_string_release(&quantized->worst_name);
    dk_string_release(&quantized->kept_names);
    *quantized = (dk_nn_quantized){0};
}

char *dk_nn_quantized_text(const dk_nn_quantized *quantized)
{
    dk_string text = DK_STRING_EMPTY;
    dk_string_printf(&text,
                     "%s: %d layers, %.1f MB, largest error %.4f (%s), %d kept as stored",
                     dk_quantization_name(quantized->kind), quantized->layers,
                     (double)quantized->bytes * 1e-6, quantized->worst,
                     dk_string_text(&quantized->worst_name), quantized->kept);
    if (quantized->kept > 0) {
        dk_string_printf(&text, ": %s", dk_string_text(&quantized->kept_names));
    }
    return dk_string_take(&text);
}

/* Three matrices in device memory: activations, the layer's output in int8 and in f32. */
typedef struct probe {
    void *memory;
    dk_tensor src, quantized, exact;
} probe;

static dk_status open_probe(probe *p, dk_device *device, int64_t out, int64_t in, dk_error *err)
{
    int64_t inputs = PROBE_ROWS * in, outputs = PROBE_ROWS * out;
    size_t bytes = (size_t)(inputs + 2 * outputs) * sizeof(float);
    void *host;
    dk_generator generator;
    DK_TRY(dk_device_alloc(device, &p->memory, bytes, "a layer's probe", err));
    float *values = p->memory;
    p->src = DK_TENSOR(values, DK_F32, PROBE_ROWS, in);
    p->quantized = DK_TENSOR(values + inputs, DK_F32, PROBE_ROWS, out);
    p->exact = DK_TENSOR(values + inputs + outputs, DK_F32, PROBE_ROWS, out);
    dk_status status =
        dk_try_alloc(&host, (size_t)inputs * sizeof(float), "a layer's probe", err);
    if (status != DK_OK) {
        dk_device_free(device, p->memory);
        return status;
    }
    dk_generator_init(&generator, DK_NOISE_TORCH_CPU, 1);
    dk_generator_randn(&generator, host, inputs);
    dk_device_write(device, p->src.data, host, dk_tensor_bytes(&p->src));
    dk_free(host);
    return DK_OK;
}

/* Relative RMS of the int8 output: sqrt(sum (int8 - exact)^2 / sum exact^2). */
static dk_status compare(double *out, dk_device *device, const probe *p, dk_error *err)
{
    int64_t count = dk_tensor_count(&p->exact);
    void *host;
    DK_TRY(dk_try_alloc(&host, 2 * (size_t)count * sizeof(float), "a layer's probe", err));
    float *exact = host, *int8 = exact + count;
    dk_device_read(device, exact, p->exact.data, dk_tensor_bytes(&p->exact));
    dk_device_read(device, int8, p->quantized.data, dk_tensor_bytes(&p->quantized));
    dk_status status = dk_device_sync(device, err);
    double squares = 0, all = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = (double)int8[i] - (double)exact[i];
        squares += difference * difference;
        all += (double)exact[i] * (double)exact[i];
    }
    dk_free(host);
    bool nothing = all == 0.0 && squares == 0.0; /* weights of zeros */
    *out = nothing ? 0.0 : sqrt(squares / all);
    return status;
}

/* The error of `layer`, which has an int8 weight. */
static dk_status measure(double *out, dk_device *device, const dk_nn_linear *layer,
                         dk_error *err)
{
    probe p;
    dk_nn nn;
    dk_nn_linear stored = *layer;
    bool exact = device->exact;
    stored.quantized = NULL;
    DK_TRY(open_probe(&p, device, layer->weight.shape[0], layer->weight.shape[1], err));
    dk_nn_init(&nn, device, DK_F32, NULL);
    dk_nn_linear_forward(&nn, layer, &p.quantized, &p.src, NULL);
    device->exact = true;
    dk_nn_linear_forward(&nn, &stored, &p.exact, &p.src, NULL);
    device->exact = exact;
    dk_status status = compare(out, device, &p, err);
    dk_device_free(device, p.memory);
    return status;
}

/* A layer that the device cannot take in int8 has an infinite error. */
static void keep_stored(const dk_nn_quantizer *quantizer, const char *name, double error)
{
    dk_nn_quantized *out = quantizer->out;
    dk_string_printf(&out->kept_names, "%s%s (%.4f)", out->kept > 0 ? ", " : "", name, error);
    out->kept++;
    dk_log_warn(quantizer->log,
                "%s stays as stored: in %s its error is %.4f, accepted is up to %g", name,
                dk_quantization_name(quantizer->kind), error, quantizer->max_error);
}

static void add(dk_nn_quantized *out, dk_linear_quantized *weight, const char *name,
                double error)
{
    out->weights = dk_realloc(out->weights, (size_t)(out->layers + 1) * sizeof *out->weights);
    out->weights[out->layers++] = weight;
    out->bytes += weight->bytes;
    if (error >= out->worst) {
        out->worst = error;
        dk_string_clear(&out->worst_name);
        dk_string_puts(&out->worst_name, name);
    }
}

/* A weight that ranks share out goes to the store; what tells where it is stays here. */
static dk_status share_out(const dk_nn_quantizer *quantizer, dk_linear_quantized **weight,
                           dk_nn_linear *layer, dk_error *err)
{
    dk_linear_quantized *whole = *weight, *head;
    void *memory, *moved;
    if (quantizer->shards == NULL) {
        return DK_OK;
    }
    DK_TRY(dk_device_alloc(quantizer->device, &memory, sizeof *head, "int8 weight", err));
    dk_status status = dk_shards_replace(quantizer->shards, &moved, layer->weight.data, whole,
                                         whole->bytes, err);
    if (status != DK_OK) {
        dk_device_free(quantizer->device, memory);
        return status;
    }
    head = memory;
    *head = *whole;
    head->panels = (char *)moved + ((char *)whole->panels - (char *)whole);
    head->scales = (float *)(void *)((char *)moved + ((char *)whole->scales - (char *)whole));
    quantizer->device->packed_bytes -= whole->bytes;
    dk_device_free(quantizer->device, whole);
    layer->quantized = *weight = head;
    return DK_OK;
}

dk_status dk_nn_quantize(const dk_nn_quantizer *quantizer, dk_nn_linear *layer,
                         const char *name, dk_error *err)
{
    dk_device *device = quantizer->device;
    dk_linear_quantized *weight = NULL;
    double error = 0;
    if (quantizer->cancel != NULL &&
        atomic_load_explicit(quantizer->cancel, memory_order_relaxed)) {
        return dk_fail(err, DK_CANCELLED, "stopped on request while weights were quantised");
    }
    quantizer->out->device = device;
    quantizer->out->kind = quantizer->kind;
    if (quantizer->shards != NULL) {
        DK_TRY(dk_shards_read(quantizer->shards, layer->weight.data, err));
    }
    dk_status status = dk_device_linear_quantize(device, &weight, layer->weight.data,
                                                 layer->weight.dtype, layer->weight.shape[0],
                                                 layer->weight.shape[1], quantizer->kind, err);
    if (status == DK_UNSUPPORTED) {
        keep_stored(quantizer, name, INFINITY);
        return DK_OK;
    }
    DK_TRY(status);
    layer->quantized = weight;
    status = measure(&error, device, layer, err);
    dk_device_forget(device, layer->weight.data);
    bool fits = error <= quantizer->max_error; /* a NaN is above every bound */
    if (status == DK_OK && fits) {
        status = share_out(quantizer, &weight, layer, err);
    }
    if (status == DK_OK && fits) {
        add(quantizer->out, weight, name, error);
        return DK_OK;
    }
    layer->quantized = NULL;
    dk_device_free(device, weight);
    if (status == DK_OK) {
        keep_stored(quantizer, name, error);
    }
    return status;
}
