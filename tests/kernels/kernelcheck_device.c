/* Operands on their way to a device and back, and one call of each operation. */
#include "kernels/kernelcheck_device.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { BORDER_BYTES = DK_ALIGNMENT, BORDER = 0xc5, MOST_SENT = 48 };

/* [border][operand, one element later in odd rounds][border] on the device. */
struct kc_sent {
    const void *host;
    char *memory; /* NULL: adopted */
    size_t bytes, at, whole;
};

static struct kc_sent *sent_of(const kc *k, const void *host)
{
    for (int i = 0; i < k->sent_count; i++) {
        if (k->sent[i].host == host && k->sent[i].memory != NULL) {
            return &k->sent[i];
        }
    }
    return NULL;
}

static struct kc_sent *new_sent(kc *k)
{
    if (k->sent == NULL) {
        k->sent = calloc(MOST_SENT, sizeof *k->sent);
    }
    if (k->sent == NULL || k->sent_count == MOST_SENT) {
        abort();
    }
    return &k->sent[k->sent_count++];
}

void *kc_send(kc *k, const void *host, size_t bytes, size_t width)
{
    dk_error err;
    void *memory = NULL;
    struct kc_sent *sent = sent_of(k, host);
    if (host == NULL) {
        return NULL;
    }
    if (sent == NULL) {
        size_t at = BORDER_BYTES + (k->round % 2 ? width : 0),
               whole = at + bytes + BORDER_BYTES;
        char *image = malloc(whole);
        if (image == NULL ||
            dk_device_alloc(k->device, &memory, whole, "an operand", &err) != DK_OK) {
            abort();
        }
        memset(image, BORDER, whole);
        memcpy(image + at, host, bytes);
        dk_device_write(k->device, memory, image, whole);
        free(image);
        sent = new_sent(k);
        *sent = (struct kc_sent){host, memory, bytes, at, whole};
    }
    return sent->memory + sent->at;
}

void kc_adopt(kc *k, const void *host, size_t bytes, bool vectors)
{
    if (host != NULL) {
        const dk_adoption adoption = {.host = host,
                                      .bytes = bytes,
                                      .name = "weight",
                                      .component = DK_COMPONENT_TRANSFORMER,
                                      .vectors = vectors};
        dk_device_adopt(k->device, &adoption);
        *new_sent(k) = (struct kc_sent){.host = host};
    }
}

const float *kc_send_vector(kc *k, const float *host, int64_t count)
{
    size_t bytes = (size_t)count * sizeof *host;
    if (k->round % 2 == 0) {
        return kc_send(k, host, bytes, sizeof *host);
    }
    kc_adopt(k, host, bytes, true);
    return host;
}

void kc_receive(kc *k, void *host)
{
    const struct kc_sent *sent = sent_of(k, host);
    dk_device_read(k->device, host, sent->memory + sent->at, sent->bytes);
}

static void check_borders(kc *k, const struct kc_sent *sent)
{
    unsigned char *image = malloc(sent->whole);
    size_t wrong = 0;
    if (image == NULL) {
        abort();
    }
    dk_device_read(k->device, image, sent->memory, sent->whole);
    for (size_t i = 0; i < sent->whole; i++) {
        bool inside = i >= sent->at && i < sent->at + sent->bytes;
        wrong += !inside && image[i] != BORDER;
    }
    if (wrong > 0) {
        kc_fail(k, "%zu bytes around an operand of %zu were written", wrong, sent->bytes);
    }
    free(image);
}

void kc_device_end(kc *k)
{
    dk_error err;
    if (dk_device_sync(k->device, &err) != DK_OK) {
        kc_fail(k, "%s", err.message);
    }
    for (int i = 0; i < k->sent_count; i++) {
        if (k->sent[i].memory != NULL) {
            check_borders(k, &k->sent[i]);
            dk_device_free(k->device, k->sent[i].memory);
        } else {
            dk_device_disown(k->device, k->sent[i].host);
        }
    }
    k->sent_count = 0;
}

/* --- one call of each operation ----------------------------------------------------------- */

static size_t strided(int64_t rows, int64_t stride, int64_t cols, size_t width)
{
    return (size_t)((rows - 1) * stride + cols) * width;
}

static void send_layer(kc *k, dk_linear_args *a)
{
    size_t src = dk_dtype_bytes(a->src_type), dst = dk_dtype_bytes(a->dst_type);
    size_t all = strided(a->rows, a->dst_stride, a->cols, dst);
    kc_adopt(k, a->weight, (size_t)(a->cols * a->depth) * dk_dtype_bytes(a->weight_type),
             false);
    a->src = kc_send(k, a->src, strided(a->rows, a->src_stride, a->depth, src), src);
    a->bias = kc_send_vector(k, a->bias, a->cols);
    a->multiply = kc_send(k, a->multiply, all, dst);
    a->gate = kc_send(k, a->gate, strided(a->rows, a->gate_stride, a->cols, sizeof(float)),
                      sizeof(float));
    a->residual = kc_send(k, a->residual, all, dst);
    a->dst = kc_send(k, a->dst, all, dst);
}

void kc_device_linear(kc *k, const dk_linear_args *args, int count)
{
    enum { MOST_LAYERS = 4 };
    dk_linear_args layers[MOST_LAYERS];
    for (int i = 0; i < count; i++) {
        layers[i] = args[i];
        send_layer(k, &layers[i]);
    }
    for (int dry = 1; dry >= 0; dry--) {
        dk_device_set_dry(k->device, dry);
        dk_device_linear_group(k->device, layers, count);
    }
    for (int i = 0; i < count; i++) {
        kc_receive(k, args[i].dst);
    }
    kc_device_end(k);
}

/* Frames one by one, or, in odd rounds, those that follow each other in one piece. */
static void send_frames(kc *k, const dk_conv_args *a, const void **frames, int count)
{
    size_t width = dk_dtype_bytes(a->src_type);
    size_t bytes = (size_t)a->height * (size_t)a->width * (size_t)a->in_channels * width;
    char *together = kc_alloc(k, (size_t)count * bytes);
    for (int i = 0; i < count; i++) {
        if (a->frames[i] != NULL) {
            memcpy(together + (size_t)i * bytes, a->frames[i], bytes);
        }
    }
    char *start = k->round % 2 ? kc_send(k, together, (size_t)count * bytes, width) : NULL;
    for (int i = 0; i < count; i++) {
        const void *frame = a->frames[i];
        if (frame != NULL) {
            frame = start != NULL ? start + (size_t)i * bytes : kc_send(k, frame, bytes, width);
        }
        frames[i] = frame;
    }
}

void kc_device_conv(kc *k, const dk_conv_args *args, const dk_conv_weight *weight)
{
    enum { MOST_FRAMES = 16 };
    const void *frames[MOST_FRAMES];
    dk_conv_args a = *args;
    dk_error err;
    void *packed = NULL;
    const int shape[5] = {a.out_channels, a.in_channels, a.kernel_t, a.kernel_h, a.kernel_w};
    size_t width = dk_dtype_bytes(a.dst_type), elements = (size_t)a.out_channels;
    size_t all = (size_t)(a.out_frames * a.dst_frame_stride) * width;
    elements *= (size_t)a.in_channels * (size_t)weight->taps;
    kc_adopt(k, weight->data, elements * dk_dtype_bytes(weight->type), false);
    if (dk_device_conv_prepare(k->device, &packed, weight->data, weight->type, shape, &err) !=
        DK_OK) {
        kc_fail(k, "%s", err.message);
        return;
    }
    send_frames(k, args, frames, (a.out_frames - 1) * a.stride_t + a.kernel_t);
    a.frames = frames;
    a.packed_weight = packed;
    a.bias = kc_send_vector(k, a.bias, a.out_channels);
    a.residual = kc_send(k, a.residual, all, width);
    a.dst = kc_send(k, a.dst, all, width);
    for (int dry = 1; dry >= 0; dry--) {
        dk_device_set_dry(k->device, dry);
        dk_device_conv(k->device, &a);
    }
    kc_receive(k, args->dst);
    dk_device_free(k->device, packed);
    kc_device_end(k);
}

void kc_device_attention(kc *k, const dk_attention_args *args, const float *biases,
                         int64_t bias_count)
{
    dk_attention_args a = *args;
    size_t width = dk_dtype_bytes(a.type);
    int64_t cols = (int64_t)a.heads * a.head_dim;
    a.q = kc_send(k, a.q, strided(a.q_len, a.q_stride, cols, width), width);
    a.k = kc_send(k, a.k, strided(a.kv_len, a.k_stride, cols, width), width);
    a.v = kc_send(k, a.v, strided(a.kv_len, a.v_stride, cols, width), width);
    a.dst = kc_send(k, a.dst, strided(a.q_len, a.dst_stride, cols, width), width);
    a.lse = kc_send(k, a.lse, (size_t)(a.heads * a.q_len) * sizeof(float), sizeof(float));
    if (a.bias != NULL) {
        const float *start =
            kc_send(k, biases, (size_t)bias_count * sizeof(float), sizeof(float));
        a.bias = start + (a.bias - biases);
    }
    for (int dry = 1; dry >= 0; dry--) {
        dk_device_set_dry(k->device, dry);
        dk_device_attention(k->device, &a);
    }
    kc_receive(k, args->dst);
    kc_receive(k, args->lse);
    kc_device_end(k);
}

void kc_device_norm(kc *k, const dk_norm_args *args, int64_t first, int64_t last)
{
    dk_norm_args a = *args;
    size_t src = dk_dtype_bytes(a.src_type), dst = dk_dtype_bytes(a.dst_type);
    int64_t all = a.rows * a.cols, skipped = first * a.modulation_stride;
    size_t modulation = strided(a.rows, a.modulation_stride, a.cols, sizeof(float));
    a.dst = kc_send(k, a.dst, (size_t)all * dst, dst);
    a.src = kc_send(k, a.src, (size_t)all * src, src);
    a.weight = kc_send_vector(k, a.weight, a.cols);
    a.bias = kc_send_vector(k, a.bias, a.cols);
    a.scale = kc_send(k, a.scale, modulation, sizeof(float));
    a.shift = kc_send(k, a.shift, modulation, sizeof(float));
    a.src = (const char *)a.src + (size_t)(first * a.cols) * src;
    a.dst = (char *)a.dst + (size_t)(first * a.cols) * dst;
    a.scale = a.scale != NULL ? a.scale + skipped : NULL;
    a.shift = a.shift != NULL ? a.shift + skipped : NULL;
    a.rows = last - first;
    dk_device_norm(k->device, &a);
    kc_receive(k, args->dst);
    kc_device_end(k);
}

void kc_device_norm_rope(kc *k, const dk_norm_rope_args *args, int64_t first, int64_t last)
{
    dk_norm_rope_args a = *args;
    size_t width = dk_dtype_bytes(a.type);
    int64_t cols = (int64_t)a.heads * a.head_dim, pairs = a.head_dim / 2;
    size_t table = (size_t)(a.rows * pairs) * sizeof(float);
    a.data = kc_send(k, a.data, strided(a.rows, a.stride, cols, width), width);
    a.weight = kc_send_vector(k, a.weight, a.per_head ? a.head_dim : cols);
    a.squares = kc_send(k, a.squares, (size_t)a.rows * sizeof(float), sizeof(float));
    a.squares = a.squares != NULL ? a.squares + first : NULL;
    a.cos = kc_send(k, a.cos, table, sizeof(float));
    a.sin = kc_send(k, a.sin, table, sizeof(float));
    a.data = (char *)a.data + (size_t)(first * a.stride) * width;
    a.cos = a.cos != NULL ? a.cos + first * pairs : NULL;
    a.sin = a.sin != NULL ? a.sin + first * pairs : NULL;
    a.rows = last - first;
    dk_device_norm_rope(k->device, &a);
    kc_receive(k, args->data);
    kc_device_end(k);
}

void kc_device_row_squares(kc *k, const dk_norm_rope_args *args, float *squares, int64_t first,
                           int64_t last)
{
    dk_norm_rope_args a = *args;
    size_t width = dk_dtype_bytes(a.type);
    int64_t cols = (int64_t)a.heads * a.head_dim;
    a.data = kc_send(k, a.data, strided(a.rows, a.stride, cols, width), width);
    float *there = kc_send(k, squares, (size_t)a.rows * sizeof(float), sizeof(float));
    a.data = (char *)a.data + (size_t)(first * a.stride) * width;
    a.rows = last - first;
    dk_device_row_squares(k->device, &a, there + first);
    kc_receive(k, squares);
    kc_device_end(k);
}

void kc_device_merge(kc *k, const dk_attention_merge_args *args)
{
    dk_attention_merge_args a = *args;
    size_t count = (size_t)(a.rows * a.heads * a.head_dim), width = dk_dtype_bytes(a.type);
    size_t lse = (size_t)(a.rows * a.heads) * sizeof(float);
    a.sum = kc_send(k, a.sum, count * sizeof(float), sizeof(float));
    a.sum_lse = kc_send(k, a.sum_lse, lse, sizeof(float));
    a.part = kc_send(k, a.part, count * width, width);
    a.part_lse = kc_send(k, a.part_lse, lse, sizeof(float));
    dk_device_merge(k->device, &a);
    kc_receive(k, args->sum);
    kc_receive(k, args->sum_lse);
    kc_device_end(k);
}

void kc_device_map(kc *k, void *dst, dk_dtype dst_type, const void *src, dk_dtype src_type,
                   dk_activation activation, int64_t count)
{
    size_t to = dk_dtype_bytes(dst_type), from = dk_dtype_bytes(src_type);
    void *there = kc_send(k, dst, (size_t)count * to, to);
    dk_device_map(k->device, there, dst_type, kc_send(k, src, (size_t)count * from, from),
                  src_type, activation, count);
    kc_receive(k, dst);
    kc_device_end(k);
}

void kc_device_combine(kc *k, float *dst, const float *const *src, const float *coef, int terms,
                       int64_t count)
{
    const float *there[DK_COMBINE_MAX_TERMS];
    size_t bytes = (size_t)count * sizeof(float);
    for (int i = 0; i < terms; i++) {
        there[i] = kc_send(k, src[i], bytes, sizeof(float));
    }
    dk_device_combine(k->device, kc_send(k, dst, bytes, sizeof(float)), there, coef, terms,
                      count);
    kc_receive(k, dst);
    kc_device_end(k);
}
