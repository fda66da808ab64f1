/* Convolutions as matrix multiplies whose A operand is the picture itself: the pixels under a
   block of the output are packed with a border, line after line, so that output pixel p of the
   block and tap (y, x) meet at packed row p + y * pitch + x. Rows computed for the border
   itself are never stored. With a stride, pixels are packed by phase, one plane each. */
#include "kernels/conv.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/blocking.h"

enum {
    CACHE_BYTES = 448 * 1024, /* packed pixels and results of a task */
    MOST_PIXELS = 448,        /* of a task */
    LEAST_PIXELS = 96,
    BLOCK_WIDTH = 64,
    BLOCK_COLS = 128,
    MOST_TAPS = 256, /* of one plane of the kernel */
    TASKS_PER_THREAD = 4,
};

size_t dk_conv_packed_bytes(const dk_gemm_kernel *kernel, int out_channels, int in_channels,
                            int taps)
{
    int64_t panels = dk_ceil_div(out_channels, kernel->nr);
    return dk_whole_lines((size_t)(panels * taps * dk_gemm_b_bytes(kernel, in_channels)));
}

/* Elements of depth that are multiplied at a time. Where a row's group is shorter than a cache
   line, the lines that a tile touches hold other rows too and take the place of half the
   slice. Where it is a line, on AMX, twice the slice takes 10 % less time. */
static int slice_of(const dk_gemm_kernel *kernel)
{
    enum { LINE_BYTES = 64 };
    bool narrow = kernel->a_group * (int)dk_dtype_bytes(kernel->type) < LINE_BYTES;
    return narrow ? kernel->slice / 2 : 2 * kernel->slice;
}

/* Taps of one plane whose products are summed in one call. */
static int group_taps(const dk_gemm_kernel *kernel, const dk_conv_args *args)
{
    int taps = args->kernel_h * args->kernel_w;
    int group = slice_of(kernel) / args->in_channels;
    return group < 1 ? 1 : group < taps ? group : taps;
}

/* Channels of one tap that are summed in one call: all, unless they are more than a slice. */
static int64_t channel_step(const dk_gemm_kernel *kernel, const dk_conv_args *args)
{
    int unit = kernel->a_group > kernel->b_group ? kernel->a_group : kernel->b_group;
    return dk_block_size(args->in_channels, slice_of(kernel), unit);
}

static int64_t block_rows(const dk_conv_plan *plan)
{
    return dk_gemm_round_up((int64_t)plan->block_height * plan->pitch, plan->kernel->mr);
}

/* Packed row that tap (y, x) adds to an output pixel's. */
static int64_t tap_offset(const dk_conv_plan *plan, const dk_conv_args *args, int y, int x)
{
    int s = args->stride;
    return (int64_t)(y % s * s + x % s) * plan->phase_rows + y / s * plan->pitch + x / s;
}

static void lay_out(dk_conv_plan *plan, const dk_conv_args *args)
{
    int s = args->stride;
    plan->pitch = plan->block_width + (args->kernel_w - 1) / s;
    plan->phase_rows = (plan->block_height + (args->kernel_h - 1) / s) * plan->pitch;
    int64_t last = 0;
    for (int y = 0; y < args->kernel_h; y++) {
        for (int x = 0; x < args->kernel_w; x++) {
            int64_t offset = tap_offset(plan, args, y, x);
            last = offset > last ? offset : last;
        }
    }
    /* The last tile may read behind the last line: rows that only border results use. */
    int64_t rows = block_rows(plan) + last, packed = (int64_t)s * s * plan->phase_rows;
    plan->ld = dk_gemm_round_up(rows > packed ? rows : packed, 16);
    /* Groups lie an odd number of cache lines apart, so that they spread over all cache sets.
     */
    plan->ld += plan->ld % 32 == 0 ? 16 : 0;
    plan->blocks_x = (int)dk_ceil_div(args->out_width, plan->block_width);
    plan->blocks_y = (int)dk_ceil_div(args->out_height, plan->block_height);
    plan->tasks = args->out_frames * plan->blocks_y * plan->blocks_x * plan->col_blocks;
}

static size_t a_bytes(const dk_conv_plan *plan, const dk_conv_args *args)
{
    return dk_whole_lines(
        (size_t)dk_gemm_a_bytes(plan->kernel, plan->ld, channel_step(plan->kernel, args)));
}

void dk_conv_plan_init(dk_conv_plan *plan, const dk_gemm_kernel *kernel,
                       const dk_conv_args *args, int threads)
{
    *plan = (dk_conv_plan){.kernel = kernel};
    plan->block_cols = (int)dk_block_size(args->out_channels, BLOCK_COLS, kernel->nr);
    plan->col_blocks = (int)dk_ceil_div(args->out_channels, plan->block_cols);
    int64_t pixel_bytes =
        dk_gemm_a_bytes(kernel, 1, args->in_channels) * args->stride * args->stride * 3 / 2 +
        plan->block_cols * (int64_t)sizeof(float);
    int64_t pixels = CACHE_BYTES / pixel_bytes;
    pixels = pixels < LEAST_PIXELS ? LEAST_PIXELS : dk_smaller(pixels, MOST_PIXELS);
    plan->block_width = (int)dk_block_size(args->out_width, BLOCK_WIDTH, 1);
    plan->block_height =
        (int)dk_block_size(args->out_height, dk_ceil_div(pixels, plan->block_width), 1);
    lay_out(plan, args);
    while (plan->tasks < TASKS_PER_THREAD * threads && plan->block_height > 2) {
        plan->block_height = (plan->block_height + 1) / 2;
        lay_out(plan, args);
    }
    size_t c_bytes = (size_t)block_rows(plan) * (size_t)plan->block_cols * sizeof(float);
    plan->scratch_bytes = a_bytes(plan, args) + dk_whole_lines(c_bytes);
}

/* One task. */
typedef struct block {
    const dk_conv_plan *plan;
    const dk_conv_args *args;
    int frame, x0, y0, n0, n1;
    int64_t rows;         /* packed rows that have results, whole tiles */
    int64_t c0, channels; /* the slice of input channels at work */
    char *a;
    float *c; /* [rows][block_cols] */
} block;

/* Where the slice's channels of the input pixel at (y, x) of the enlarged picture lie; NULL
   outside. */
static const void *pixel(const block *at, const void *frame, int64_t y, int64_t x)
{
    const dk_conv_args *args = at->args;
    if (y < 0 || x < 0 || y >= (int64_t)args->height * args->upsample ||
        x >= (int64_t)args->width * args->upsample) {
        return NULL;
    }
    int64_t first = (y / args->upsample * args->width + x / args->upsample) * args->in_channels;
    return (const char *)frame + (size_t)(first + at->c0) * dk_dtype_bytes(args->src_type);
}

/* One line of one phase. */
static void pack_line(const block *at, const void *frame, int phase, int line)
{
    const dk_conv_plan *plan = at->plan;
    const dk_conv_args *args = at->args;
    const dk_gemm_kernel *kernel = plan->kernel;
    int s = args->stride;
    int64_t y = (int64_t)(at->y0 + line) * s + phase / s - args->pad_top;
    int64_t row = (int64_t)phase * plan->phase_rows + (int64_t)line * plan->pitch;
    int64_t unit = kernel->a_group * (int64_t)dk_dtype_bytes(kernel->type);
    for (int i0 = 0; i0 < plan->pitch; i0 += DK_GEMM_PACK_ROWS) {
        const void *rows[DK_GEMM_PACK_ROWS];
        int count = (int)dk_smaller(DK_GEMM_PACK_ROWS, plan->pitch - i0);
        for (int i = 0; i < count; i++) {
            int64_t x = (int64_t)(at->x0 + i0 + i) * s + phase % s - args->pad_left;
            rows[i] = pixel(at, frame, y, x);
        }
        kernel->pack_rows(at->a + (row + i0) * unit, plan->ld, rows, args->src_type, count,
                          at->channels);
    }
}

static void pack_pixels(const block *at, const void *frame)
{
    const dk_conv_plan *plan = at->plan;
    for (int phase = 0; phase < at->args->stride * at->args->stride; phase++) {
        for (int line = 0; line < plan->phase_rows / plan->pitch; line++) {
            pack_line(at, frame, phase, line);
        }
    }
}

/* The taps from `tap` on that `a` lists, for all tiles of the block. */
static void multiply_taps(const block *at, int64_t tap, const dk_gemm_a *a, bool accumulate)
{
    const dk_conv_plan *plan = at->plan;
    const dk_conv_args *args = at->args;
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t taps = (int64_t)args->kernel_t * args->kernel_h * args->kernel_w;
    int64_t tap_bytes = dk_gemm_b_bytes(kernel, args->in_channels);
    for (int n = at->n0; n < at->n1; n += kernel->nr) {
        const char *b = (const char *)args->packed_weight +
                        (n / kernel->nr * taps + tap) * tap_bytes +
                        dk_gemm_b_bytes(kernel, at->c0);
        for (int64_t m = 0; m < at->rows; m += kernel->mr) {
            kernel->tile(at->c + m * plan->block_cols + (n - at->n0), plan->block_cols, a, m, b,
                         accumulate);
        }
    }
}

/* The slice's products with one plane of the kernel, a few taps at a time. */
static void multiply_plane(const block *at, int plane, bool accumulate)
{
    const dk_conv_args *args = at->args;
    int64_t offset[MOST_TAPS];
    int taps = args->kernel_h * args->kernel_w;
    int group = group_taps(at->plan->kernel, args);
    assert(taps <= MOST_TAPS);
    for (int tap = 0; tap < taps; tap++) {
        offset[tap] = tap_offset(at->plan, args, tap / args->kernel_w, tap % args->kernel_w);
    }
    for (int tap0 = 0; tap0 < taps; tap0 += group) {
        const dk_gemm_a a = {.data = at->a,
                             .ld = at->plan->ld,
                             .k = at->channels,
                             .parts = (int)dk_smaller(group, taps - tap0),
                             .offset = &offset[tap0]};
        multiply_taps(at, (int64_t)plane * taps + tap0, &a, accumulate || tap0 > 0);
    }
}

static void store(const dk_linear_kernels *kernels, const block *at)
{
    const dk_conv_args *args = at->args;
    const dk_conv_plan *plan = at->plan;
    size_t start =
        (size_t)(at->frame * args->dst_frame_stride) * dk_dtype_bytes(args->dst_type);
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
    int width = (int)dk_smaller(plan->block_width, args->out_width - at->x0);
    for (int line = 0; line < plan->block_height && at->y0 + line < args->out_height; line++) {
        kernels->store(&epilogue, (int64_t)(at->y0 + line) * args->out_width + at->x0, at->n0,
                       width, at->n1 - at->n0,
                       at->c + (int64_t)line * plan->pitch * plan->block_cols,
                       plan->block_cols);
    }
}

void dk_conv_block(const dk_conv_plan *plan, const dk_linear_kernels *kernels,
                   const dk_conv_args *args, int task, void *scratch)
{
    int col_block = task % plan->col_blocks, rest = task / plan->col_blocks;
    block at = {.plan = plan,
                .args = args,
                .frame = rest / (plan->blocks_x * plan->blocks_y),
                .x0 = rest % plan->blocks_x * plan->block_width,
                .y0 = rest / plan->blocks_x % plan->blocks_y * plan->block_height,
                .n0 = col_block * plan->block_cols,
                .rows = block_rows(plan),
                .a = scratch};
    at.n1 = (int)dk_smaller(at.n0 + plan->block_cols, args->out_channels);
    at.c = (float *)(void *)(at.a + a_bytes(plan, args));
    bool started = false;
    int64_t step = channel_step(plan->kernel, args);
    dk_gemm_begin(plan->kernel);
    for (int t = 0; t < args->kernel_t; t++) {
        const void *frame = args->frames[at.frame * args->stride_t + t];
        for (at.c0 = 0; frame != NULL && at.c0 < args->in_channels; at.c0 += step) {
            at.channels = dk_smaller(step, args->in_channels - at.c0);
            pack_pixels(&at, frame);
            multiply_plane(&at, t, started);
            started = true;
        }
    }
    dk_gemm_end(plan->kernel);
    if (!started) {
        memset(at.c, 0, (size_t)(at.rows * plan->block_cols) * sizeof(float));
    }
    store(kernels, &at);
}
