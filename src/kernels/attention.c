/* Attention over any micro-kernel: blocks of queries run through blocks of keys. */
#include "kernels/attention.h"

#include <assert.h>
#include <math.h>

#include "kernels/blocking.h"
#include "kernels/x86/attention_x86.h"
#include "tensor/convert.h"

enum {
    QUERY_PANELS = 8, /* of mr queries in one task */
    MOST_KEYS = 256,  /* keys whose scores are held at a time */
    PACK_BLOCKS = 4,  /* such blocks of keys in one packing task */
};

static const float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;
static const float LOWEST = -1e30f; /* the maximum before any key: finite, so no inf - inf */

static void softmax_c(const dk_softmax_args *args)
{
    for (int m = 0; m < args->rows; m++) {
        float *row = args->scores + m * args->ld, top = args->max[m], sum = 0;
        for (int n = 0; n < args->cols; n++) {
            row[n] *= args->scale;
            top = row[n] > top ? row[n] : top;
        }
        for (int n = 0; n < args->cols; n++) {
            row[n] = exp2f(row[n] - top);
            sum += row[n];
        }
        args->shrink[m] = exp2f(args->max[m] - top);
        args->sum[m] = args->sum[m] * args->shrink[m] + sum;
        args->max[m] = top;
    }
}

static void scale_row_c(void *dst, dk_dtype type, const float *src, float factor, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (type == DK_F32) {
            ((float *)dst)[i] = src[i] * factor;
        } else {
            ((uint16_t *)dst)[i] = dk_bf16_from_f32(src[i] * factor);
        }
    }
}

void dk_attention_kernels_init(dk_attention_kernels *kernels, unsigned cpu_flags)
{
    dk_gemm_kernels_init(&kernels->gemm, cpu_flags);
    kernels->softmax = softmax_c;
    kernels->packed_group = 0;
    kernels->scale_row = scale_row_c;
    dk_attention_kernels_init_x86(kernels, cpu_flags);
}

/* Keys of a block: whole panels. */
static int64_t key_block(const dk_gemm_kernel *kernel)
{
    return MOST_KEYS / kernel->nr * kernel->nr;
}

/* Packed memory: for each head its K panels, then for each block of keys its V panels. */
static int64_t k_head_bytes(const dk_gemm_kernel *kernel, const dk_attention_args *args)
{
    return dk_ceil_div(args->kv_len, kernel->nr) * dk_gemm_b_bytes(kernel, args->head_dim);
}

static int64_t v_block_bytes(const dk_gemm_kernel *kernel, const dk_attention_args *args)
{
    return dk_ceil_div(args->head_dim, kernel->nr) * dk_gemm_b_bytes(kernel, key_block(kernel));
}

static int64_t head_bytes(const dk_gemm_kernel *kernel, const dk_attention_args *args)
{
    return (int64_t)dk_whole_lines(
        (size_t)(k_head_bytes(kernel, args) +
                 dk_ceil_div(args->kv_len, key_block(kernel)) * v_block_bytes(kernel, args)));
}

/* Scratch of a task, in this order. */
typedef struct workspace {
    char *q, *p;               /* packed: the block's queries, a panel's probabilities */
    float *s, *o;              /* [mr][MOST_KEYS] scores of a panel, [block_q][o_ld] output */
    float *max, *sum, *shrink; /* [block_q] */
    int64_t o_ld;
    size_t bytes;
} workspace;

static workspace lay_out(const dk_gemm_kernel *kernel, const dk_attention_args *args,
                         int block_q, char *memory)
{
    workspace w = {.o_ld = dk_ceil_div(args->head_dim, kernel->nr) * kernel->nr};
    size_t q = dk_whole_lines((size_t)dk_gemm_a_bytes(kernel, block_q, args->head_dim));
    size_t p = dk_whole_lines((size_t)dk_gemm_a_bytes(kernel, kernel->mr, key_block(kernel)));
    size_t s = dk_whole_lines((size_t)kernel->mr * MOST_KEYS * sizeof(float));
    size_t o = dk_whole_lines((size_t)(block_q * w.o_ld) * sizeof(float));
    size_t row = dk_whole_lines((size_t)block_q * sizeof(float));
    w.bytes = q + p + s + o + 3 * row;
    if (memory != NULL) {
        w.q = memory;
        w.p = w.q + q;
        w.s = (float *)(void *)(w.p + p);
        w.o = w.s + s / sizeof(float);
        w.max = w.o + o / sizeof(float);
        w.sum = w.max + row / sizeof(float);
        w.shrink = w.sum + row / sizeof(float);
    }
    return w;
}

void dk_attention_plan_init(dk_attention_plan *plan, const dk_attention_kernels *kernels,
                            const dk_attention_args *args, bool exact)
{
    const dk_gemm_kernel *kernel = exact ? &kernels->gemm.f32 : &kernels->gemm.bf16;
    int64_t panels = dk_ceil_div(args->q_len, kernel->mr);
    panels = dk_ceil_div(panels, dk_ceil_div(panels, QUERY_PANELS));
    assert(kernel->nr <= MOST_KEYS);
    *plan = (dk_attention_plan){.kernel = kernel};
    plan->block_q = (int)panels * kernel->mr;
    plan->q_blocks = (int)dk_ceil_div(args->q_len, plan->block_q);
    plan->pack_blocks = (int)dk_ceil_div(args->kv_len, PACK_BLOCKS * key_block(kernel));
    plan->packed_bytes = (size_t)(args->heads * head_bytes(kernel, args));
    plan->scratch_bytes = lay_out(kernel, args, plan->block_q, NULL).bytes;
}

static const char *element(const void *base, dk_dtype type, int64_t row, int64_t stride,
                           int64_t column)
{
    return (const char *)base + (size_t)(row * stride + column) * dk_dtype_bytes(type);
}

void dk_attention_pack(const dk_attention_plan *plan, const dk_attention_args *args, int task,
                       void *packed)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t head = task / plan->pack_blocks, column = head * args->head_dim;
    int64_t step = key_block(kernel);
    int64_t key0 = (int64_t)(task % plan->pack_blocks) * PACK_BLOCKS * step;
    int64_t key1 = dk_smaller(key0 + PACK_BLOCKS * step, args->kv_len);
    char *k_panels = (char *)packed + head * head_bytes(kernel, args);
    char *v_panels = k_panels + k_head_bytes(kernel, args);
    int64_t k_panel = dk_gemm_b_bytes(kernel, args->head_dim);
    int64_t v_panel = dk_gemm_b_bytes(kernel, key_block(kernel));
    for (int64_t key = key0; key < key1; key += kernel->nr) {
        kernel->pack_weight(k_panels + key / kernel->nr * k_panel,
                            element(args->k, args->type, key, args->k_stride, column),
                            args->type, args->k_stride, (int)dk_smaller(kernel->nr, key1 - key),
                            args->head_dim);
    }
    for (int64_t key = key0; key < key1; key += step) {
        char *panel = v_panels + key / step * v_block_bytes(kernel, args);
        for (int64_t n = 0; n < args->head_dim; n += kernel->nr, panel += v_panel) {
            kernel->pack_matrix(
                panel, element(args->v, args->type, key, args->v_stride, column + n),
                args->type, args->v_stride, (int)dk_smaller(kernel->nr, args->head_dim - n),
                dk_smaller(step, key1 - key));
        }
    }
}

/* Where a task stands. */
typedef struct block {
    const dk_attention_kernels *kernels;
    const dk_attention_plan *plan;
    const dk_attention_args *args;
    workspace w;
    int64_t head, q0, block_rows; /* queries of the task */
    int64_t m0, rows;             /* the panel at work: block rows m0 to m0 + rows */
    int64_t key0, keys, cols;     /* keys of this block; cols: rounded up, masked with -inf */
} block;

/* `count` rows as an A operand of whole panels; rows behind the last one are zeros. */
static void pack_rows(const dk_gemm_kernel *kernel, char *dst, int64_t ld, const void *src,
                      dk_dtype type, int64_t stride, int64_t count, int64_t depth)
{
    int64_t unit = kernel->a_group * (int64_t)dk_dtype_bytes(kernel->type);
    const void *rows[DK_GEMM_PACK_ROWS];
    int64_t end = dk_gemm_round_up(count, kernel->mr);
    for (int64_t m = 0; m < end; m += DK_GEMM_PACK_ROWS) {
        int part = (int)dk_smaller(DK_GEMM_PACK_ROWS, end - m);
        for (int i = 0; i < part; i++) {
            rows[i] = m + i < count ? element(src, type, m + i, stride, 0) : NULL;
        }
        kernel->pack_rows(dst + m * unit, ld, rows, type, part, depth);
    }
}

/* Scores that need more than a factor: bias and the causal mask. */
static void adjust_scores(const block *at)
{
    const dk_attention_args *args = at->args;
    for (int64_t m = 0; m < at->rows; m++) {
        float *row = at->w.s + m * MOST_KEYS;
        int64_t q = at->q0 + at->m0 + m, seen = args->kv_len;
        for (int64_t n = 0; n < at->keys; n++) {
            row[n] *= args->scale;
        }
        if (args->bias != NULL) {
            const float *bias = args->bias + at->head * args->bias_head + q * args->bias_q;
            for (int64_t n = 0; n < at->keys; n++) {
                row[n] += bias[(at->key0 + n) * args->bias_k];
            }
        }
        if (args->causal) {
            seen = q + args->kv_len - args->q_len + 1;
        }
        for (int64_t n = seen > at->key0 ? seen - at->key0 : 0; n < at->keys; n++) {
            row[n] = -INFINITY;
        }
    }
}

/* The panel's scores against the block's keys. */
static void multiply_keys(const block *at, const char *k_panels)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    int64_t k_panel = dk_gemm_b_bytes(kernel, at->args->head_dim);
    const dk_gemm_a a = {
        .data = at->w.q, .ld = at->plan->block_q, .k = at->args->head_dim, .parts = 1};
    for (int64_t n = 0; n < at->keys; n += kernel->nr) {
        const char *b = k_panels + (at->key0 + n) / kernel->nr * k_panel;
        kernel->tile(at->w.s + n, MOST_KEYS, &a, at->m0, b, false);
    }
    for (int64_t m = 0; at->keys < at->cols && m < at->rows; m++) {
        for (int64_t n = at->keys; n < at->cols; n++) {
            at->w.s[m * MOST_KEYS + n] = -INFINITY;
        }
    }
}

/* The panel's probabilities, packed. */
static void take_softmax(const block *at)
{
    const dk_attention_args *args = at->args;
    const dk_gemm_kernel *kernel = at->plan->kernel;
    bool adjusted = args->bias != NULL || args->causal;
    bool packs = at->kernels->packed_group == kernel->a_group && kernel->type == DK_BF16;
    if (adjusted) {
        adjust_scores(at);
    }
    const dk_softmax_args softmax = {.scores = at->w.s,
                                     .ld = MOST_KEYS,
                                     .rows = (int)at->rows,
                                     .cols = (int)at->cols,
                                     .scale = adjusted ? LOG2_E : args->scale * LOG2_E,
                                     .max = at->w.max + at->m0,
                                     .sum = at->w.sum + at->m0,
                                     .shrink = at->w.shrink + at->m0,
                                     .packed = packs ? at->w.p : NULL,
                                     .packed_ld = kernel->mr};
    at->kernels->softmax(&softmax);
    if (!packs) {
        pack_rows(kernel, at->w.p, kernel->mr, at->w.s, DK_F32, MOST_KEYS, at->rows, at->keys);
    }
}

/* o = o * shrink + p · v for the panel and the block's keys. */
static void add_values(const block *at, const char *v_panels)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    int64_t v_panel = dk_gemm_b_bytes(kernel, key_block(kernel)), ld = at->w.o_ld;
    const dk_gemm_a a = {.data = at->w.p, .ld = kernel->mr, .k = at->keys, .parts = 1};
    float *o = at->w.o + at->m0 * ld;
    for (int64_t m = 0; at->key0 > 0 && m < at->rows; m++) {
        float shrink = at->w.shrink[at->m0 + m];
        if (shrink != 1.0f) {
            at->kernels->scale_row(o + m * ld, DK_F32, o + m * ld, shrink, ld);
        }
    }
    for (int64_t n = 0; n < at->args->head_dim; n += kernel->nr, v_panels += v_panel) {
        kernel->tile(o + n, ld, &a, 0, v_panels, at->key0 > 0);
    }
}

static void store_block(const block *at)
{
    const dk_attention_args *args = at->args;
    const workspace *w = &at->w;
    size_t width = dk_dtype_bytes(args->type);
    for (int64_t m = 0; m < at->block_rows; m++) {
        int64_t to = (at->q0 + m) * args->dst_stride + at->head * args->head_dim;
        at->kernels->scale_row((char *)args->dst + (size_t)to * width, args->type,
                               w->o + m * w->o_ld, w->sum[m] > 0 ? 1.0f / w->sum[m] : 0.0f,
                               args->head_dim);
        if (args->lse != NULL) {
            args->lse[at->head * args->q_len + at->q0 + m] =
                LN_2 * (w->max[m] + log2f(w->sum[m]));
        }
    }
}

/* Panel by panel, so that scores and probabilities never leave the first-level cache; the
   block's keys and values come from the second. */
void dk_attention_block(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                        const dk_attention_args *args, int task, const void *packed,
                        void *scratch)
{
    enum { VECTOR = 16 }; /* the softmax takes whole vectors */
    const dk_gemm_kernel *kernel = plan->kernel;
    block at = {.kernels = kernels,
                .plan = plan,
                .args = args,
                .w = lay_out(kernel, args, plan->block_q, scratch),
                .head = task / plan->q_blocks,
                .q0 = (int64_t)(task % plan->q_blocks) * plan->block_q};
    at.block_rows = dk_smaller(plan->block_q, args->q_len - at.q0);
    const char *k_panels = (const char *)packed + at.head * head_bytes(kernel, args);
    const char *v_panels = k_panels + k_head_bytes(kernel, args);
    for (int64_t m = 0; m < at.block_rows; m++) {
        at.w.max[m] = LOWEST;
        at.w.sum[m] = 0;
    }
    pack_rows(kernel, at.w.q, plan->block_q,
              element(args->q, args->type, at.q0, args->q_stride, at.head * args->head_dim),
              args->type, args->q_stride, at.block_rows, args->head_dim);
    dk_gemm_begin(kernel);
    for (at.key0 = 0; at.key0 < args->kv_len; at.key0 += key_block(kernel)) {
        at.keys = dk_smaller(key_block(kernel), args->kv_len - at.key0);
        at.cols = dk_ceil_div(at.keys, VECTOR) * VECTOR;
        for (at.m0 = 0; at.m0 < at.block_rows; at.m0 += kernel->mr) {
            at.rows = dk_smaller(kernel->mr, at.block_rows - at.m0);
            multiply_keys(&at, k_panels);
            take_softmax(&at);
            add_values(&at, v_panels);
        }
        v_panels += v_block_bytes(kernel, args);
    }
    dk_gemm_end(kernel);
    store_block(&at);
}
