/* Packing of convolution weights, once when a model is opened. In the file the taps of a
   channel lie together; panels want the channels of a tap together. Rows are decoded in the
   order of the file, a few channels at a time, and sorted by tap into a buffer. */
#include <assert.h>

#include "kernels/blocking.h"
#include "kernels/conv.h"
#include "tensor/convert.h"

enum {
    GATHERED = 64 * 1024, /* f32 values of the buffer */
    CHUNK = 512,          /* elements decoded at a time: whole blocks of every stored type */
};

typedef struct packing {
    const dk_gemm_kernel *kernel;
    const dk_stored_format *stored;
    const dk_conv_weight *weight;
    int64_t tap0, taps;   /* at work */
    int64_t c0, channels; /* at work */
    float *gathered;      /* [taps][nr][channels] */
} packing;

static void decode(const packing *at, float *dst, const char *row, int64_t k0, int64_t count)
{
    if (at->stored->decode != NULL) {
        at->stored->decode(dst, row, k0, count);
    } else {
        dk_convert_to_f32(dst, row + dk_stored_bytes(at->stored, k0), at->weight->type, count);
    }
}

/* The taps and channels at work of output channel n0 + n. */
static void gather_row(const packing *at, const char *row, int n)
{
    float values[CHUNK];
    int64_t taps = at->weight->taps, block = at->stored->block;
    int64_t end = (at->c0 + at->channels) * taps, first = at->c0 * taps / block * block;
    int64_t channel = first / taps - at->c0, tap = first % taps;
    for (; first < end; first += CHUNK) {
        int64_t count = dk_smaller(CHUNK, end - first);
        decode(at, values, row, first, count);
        for (int64_t i = 0; i < count; i++) {
            int64_t t = tap - at->tap0;
            if (channel >= 0 && t >= 0 && t < at->taps) {
                at->gathered[(t * at->kernel->nr + n) * at->channels + channel] = values[i];
            }
            if (++tap == taps) {
                tap = 0;
                channel++;
            }
        }
    }
}

/* All taps and channels at work of the output channels [n0, n0 + cols). */
static void pack_slice(const packing *at, char *packed, int n0, int cols)
{
    const dk_conv_weight *w = at->weight;
    int64_t nr = at->kernel->nr, tap_bytes = dk_gemm_b_bytes(at->kernel, w->in_channels);
    size_t row_bytes = dk_stored_bytes(at->stored, (int64_t)w->in_channels * w->taps);
    for (int n = 0; n < cols; n++) {
        gather_row(at, (const char *)w->data + (size_t)(n0 + n) * row_bytes, n);
    }
    for (int64_t t = 0; t < at->taps; t++) {
        char *panel = packed + (n0 / nr * w->taps + at->tap0 + t) * tap_bytes;
        at->kernel->pack_weight(panel + dk_gemm_b_bytes(at->kernel, at->c0),
                                at->gathered + t * nr * at->channels, DK_F32, at->channels,
                                cols, at->channels);
    }
}

void dk_conv_pack_weight(void *packed, const dk_gemm_kernel *kernel,
                         const dk_decode_kernels *decoders, const dk_conv_weight *weight)
{
    float gathered[GATHERED];
    packing at = {.kernel = kernel,
                  .stored = dk_stored_format_of(decoders, weight->type),
                  .weight = weight,
                  .gathered = gathered};
    int64_t group = dk_smaller(weight->taps, GATHERED / (kernel->nr * kernel->b_group));
    int64_t slice = GATHERED / (kernel->nr * group) / kernel->b_group * kernel->b_group;
    assert(group > 0 && CHUNK % at.stored->block == 0);
    for (int n0 = 0; n0 < weight->out_channels; n0 += kernel->nr) {
        int cols = (int)dk_smaller(kernel->nr, weight->out_channels - n0);
        for (at.tap0 = 0; at.tap0 < weight->taps; at.tap0 += group) {
            at.taps = dk_smaller(group, weight->taps - at.tap0);
            for (at.c0 = 0; at.c0 < weight->in_channels; at.c0 += slice) {
                at.channels = dk_smaller(slice, weight->in_channels - at.c0);
                pack_slice(&at, packed, n0, cols);
            }
        }
    }
}
