/* Convolutions as matrix multiplies whose A panels are gathered tap by tap. */
#include "kernels/conv.h"

#include <assert.h>

enum {
    BLOCK_PIXELS = 216, /* of one task */
    BLOCK_COLS = 256,
    GROUP_DEPTH = 384, /* elements of depth (taps x channels) that are packed at a time */
    MOST_MR = 64,
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t block_size(int64_t total, int64_t most, int64_t unit)
{
    int64_t blocks = ceil_div(total, most);
    return ceil_div(ceil_div(total, blocks), unit) * unit;
}

static size_t align(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Depth of one tap in a panel: whole groups of kg. */
static int64_t tap_depth(const dk_gemm_kernel *kernel, int in_channels)
{
    return ceil_div(in_channels, kernel->kg) * kernel->kg;
}

size_t dk_conv_packed_bytes(const dk_gemm_kernel *kernel, int out_channels, int in_channels,
                            int taps)
{
    int64_t panels = ceil_div(out_channels, kernel->nr);
    return align(
        (size_t)(panels * taps * dk_gemm_panel_bytes(kernel, kernel->nr, in_channels)));
}

void dk_conv_pack_weight(void *packed, const dk_gemm_kernel *kernel, const void *weight,
                         dk_dtype weight_type, int out_channels, int in_channels, int taps)
{
    /* One tap of a panel's columns lies strided in the file: it is gathered as bytes first. */
    enum { MOST_NR = 64, GATHER = 1024 };
    char gathered[MOST_NR * GATHER * 4];
    size_t width = dk_dtype_bytes(weight_type);
    assert(kernel->nr <= MOST_NR && width <= 8);
    char *panel = packed;
    int64_t slice =
        (int64_t)sizeof gathered / (int64_t)width / kernel->nr / kernel->kg * kernel->kg;
    for (int n0 = 0; n0 < out_channels; n0 += kernel->nr) {
        int cols = out_channels - n0 < kernel->nr ? out_channels - n0 : kernel->nr;
        for (int tap = 0; tap < taps; tap++) {
            for (int64_t c0 = 0; c0 < in_channels; c0 += slice) {
                int64_t count = in_channels - c0 < slice ? in_channels - c0 : slice;
                char *out = gathered;
                for (int n = 0; n < cols; n++) {
                    for (int64_t c = c0; c < c0 + count; c++, out += width) {
                        int64_t at = ((int64_t)(n0 + n) * in_channels + c) * taps + tap;
                        const char *in = (const char *)weight + (size_t)at * width;
                        for (size_t i = 0; i < width; i++) {
                            out[i] = in[i];
                        }
                    }
                }
                kernel->pack_weight(panel, gathered, weight_type, count, cols, count);
                panel += dk_gemm_panel_bytes(kernel, kernel->nr, count);
            }
        }
    }
}

/* Taps whose panels are multiplied in one call. */
static int group_taps(const dk_gemm_kernel *kernel, const dk_conv_args *args)
{
    int taps = args->kernel_t * args->kernel_h * args->kernel_w;
    int64_t group = GROUP_DEPTH / tap_depth(kernel, args->in_channels);
    group = group < 1 ? 1 : group;
    return group < taps ? (int)group : taps;
}

static size_t a_bytes(const dk_conv_plan *plan, const dk_conv_args *args)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t panels = plan->block_pixels / kernel->mr;
    int64_t depth = group_taps(kernel, args) * tap_depth(kernel, args->in_channels);
    return align((size_t)(panels * dk_gemm_panel_bytes(kernel, kernel->mr, depth)));
}

void dk_conv_plan_init(dk_conv_plan *plan, const dk_gemm_kernel *kernel,
                       const dk_conv_args *args)
{
    int64_t pixels = (int64_t)args->out_height * args->out_width;
    *plan = (dk_conv_plan){.kernel = kernel};
    plan->block_pixels = (int)block_size(pixels, BLOCK_PIXELS, kernel->mr);
    plan->block_cols = (int)block_size(args->out_channels, BLOCK_COLS, kernel->nr);
    plan->pixel_blocks = (int)ceil_div(pixels, plan->block_pixels);
    plan->col_blocks = (int)ceil_div(args->out_channels, plan->block_cols);
    plan->tasks = args->out_frames * plan->pixel_blocks * plan->col_blocks;
    size_t c_bytes = (size_t)plan->block_pixels * (size_t)plan->block_cols * sizeof(float);
    plan->scratch_bytes = a_bytes(plan, args) + align(c_bytes);
}

/* Where the input of output pixel `pixel` lies for one tap; NULL outside the picture. */
static const void *tap_source(const dk_conv_args *args, const void *frame, int64_t pixel,
                              int tap_y, int tap_x)
{
    int64_t y = pixel / args->out_width * args->stride + tap_y - args->pad_top;
    int64_t x = pixel % args->out_width * args->stride + tap_x - args->pad_left;
    if (y < 0 || x < 0 || y >= (int64_t)args->height * args->upsample ||
        x >= (int64_t)args->width * args->upsample) {
        return NULL;
    }
    int64_t at = (y / args->upsample * args->width + x / args->upsample) * args->in_channels;
    return (const char *)frame + (size_t)at * dk_dtype_bytes(args->src_type);
}

/* A panels of taps [tap0, tap1): panel by panel, the taps of a panel one behind the other. */
static void gather(const dk_conv_plan *plan, const dk_conv_args *args, int frame, int64_t p0,
                   int64_t p1, int tap0, int tap1, char *panels)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t tap_bytes = dk_gemm_panel_bytes(kernel, kernel->mr, args->in_channels);
    const void *rows[MOST_MR];
    assert(kernel->mr <= MOST_MR);
    for (int64_t p = p0; p < p1; p += kernel->mr) {
        int count = (int)(p1 - p < kernel->mr ? p1 - p : kernel->mr);
        for (int tap = tap0; tap < tap1; tap++, panels += tap_bytes) {
            int plane = tap % (args->kernel_h * args->kernel_w);
            int tap_t = tap / (args->kernel_h * args->kernel_w);
            const void *src = args->frames[frame * args->stride_t + tap_t];
            for (int i = 0; i < count; i++) {
                rows[i] = src == NULL ? NULL
                                      : tap_source(args, src, p + i, plane / args->kernel_w,
                                                   plane % args->kernel_w);
            }
            kernel->pack_rows(panels, rows, args->src_type, count, args->in_channels);
        }
    }
}

/* True when the taps from tap0 on all read a frame of zeros. */
static bool reads_zeros(const dk_conv_args *args, int frame, int tap0, int tap1)
{
    int plane = args->kernel_h * args->kernel_w;
    for (int t = tap0 / plane; t <= (tap1 - 1) / plane; t++) {
        if (args->frames[frame * args->stride_t + t] != NULL) {
            return false;
        }
    }
    return true;
}

static void store(const dk_linear_kernels *kernels, const dk_conv_args *args, int frame,
                  int64_t p0, int64_t p1, int64_t n0, int64_t n1, const float *c, int64_t ld)
{
    size_t start = (size_t)(frame * args->dst_frame_stride) * dk_dtype_bytes(args->dst_type);
    const dk_linear_args epilogue = {
        .rows = (int64_t)args->out_height * args->out_width,
        .cols = args->out_channels,
        .bias = args->bias,
        .activation = args->activation,
        .residual = args->residual != NULL ? (const char *)args->residual + start : NULL,
        .dst = (char *)args->dst + start,
        .dst_type = args->dst_type,
        .dst_stride = args->out_channels,
    };
    kernels->store(&epilogue, p0, n0, (int)(p1 - p0), (int)(n1 - n0), c, ld);
}

void dk_conv_block(const dk_conv_plan *plan, const dk_linear_kernels *kernels,
                   const dk_conv_args *args, int task, void *scratch)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int col_block = task % plan->col_blocks, rest = task / plan->col_blocks;
    int frame = rest / plan->pixel_blocks;
    int64_t pixels = (int64_t)args->out_height * args->out_width;
    int64_t p0 = (int64_t)(rest % plan->pixel_blocks) * plan->block_pixels;
    int64_t p1 = p0 + plan->block_pixels < pixels ? p0 + plan->block_pixels : pixels;
    int64_t n0 = (int64_t)col_block * plan->block_cols;
    int64_t n1 =
        n0 + plan->block_cols < args->out_channels ? n0 + plan->block_cols : args->out_channels;
    int taps = args->kernel_t * args->kernel_h * args->kernel_w;
    int group = group_taps(kernel, args);
    int64_t b_tap = dk_gemm_panel_bytes(kernel, kernel->nr, args->in_channels);
    int64_t a_tap = dk_gemm_panel_bytes(kernel, kernel->mr, args->in_channels);
    char *a = scratch;
    float *c = (float *)(void *)(a + a_bytes(plan, args));
    bool started = false;
    for (int tap0 = 0; tap0 < taps; tap0 += group) {
        int tap1 = tap0 + group < taps ? tap0 + group : taps;
        if (reads_zeros(args, frame, tap0, tap1) && (started || tap1 < taps)) {
            continue;
        }
        gather(plan, args, frame, p0, p1, tap0, tap1, a);
        int64_t depth = (tap1 - tap0) * tap_depth(kernel, args->in_channels);
        for (int64_t n = n0; n < n1; n += kernel->nr) {
            const char *b =
                (const char *)args->packed_weight + (n / kernel->nr * taps + tap0) * b_tap;
            for (int64_t p = p0; p < p1; p += kernel->mr) {
                kernel->tile(c + (p - p0) * plan->block_cols + (n - n0), plan->block_cols,
                             a + (p - p0) / kernel->mr * (tap1 - tap0) * a_tap, b, depth,
                             started);
            }
        }
        started = true;
    }
    store(kernels, args, frame, p0, p1, n0, n1, c, plan->block_cols);
}
