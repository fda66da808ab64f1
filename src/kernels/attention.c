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

static void softmax_block_c(float *scores, int64_t ld, int rows, int cols, float scale,
                            float *row_max, float *row_sum, float *shrink)
{
    for (int m = 0; m < rows; m++) {
        float *row = scores + m * ld, top = row_max[m], sum = 0;
        for (int n = 0; n < cols; n++) {
            row[n] *= scale;
            top = row[n] > top ? row[n] : top;
        }
        for (int n = 0; n < cols; n++) {
            row[n] = exp2f(row[n] - top);
            sum += row[n];
        }
        shrink[m] = exp2f(row_max[m] - top);
        row_sum[m] = row_sum[m] * shrink[m] + sum;
        row_max[m] = top;
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
    kernels->softmax_block = softmax_block_c;
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
    char *q, *p;               /* packed rows of queries and of probabilities */
    float *s, *o;              /* [block_q][MOST_KEYS] scores, [block_q][o_ld] output */
    float *max, *sum, *shrink; /* [block_q] */
    int64_t o_ld;
    size_t bytes;
} workspace;

static workspace lay_out(const dk_gemm_kernel *kernel, const dk_attention_args *args,
                         int block_q, char *memory)
{
    workspace w = {.o_ld = dk_ceil_div(args->head_dim, kernel->nr) * kernel->nr};
    size_t q = dk_whole_lines((size_t)dk_gemm_a_bytes(kernel, block_q, args->head_dim));
    size_t p = dk_whole_lines((size_t)dk_gemm_a_bytes(kernel, block_q, key_block(kernel)));
    size_t s = dk_whole_lines((size_t)block_q * MOST_KEYS * sizeof(float));
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

typedef struct block {
    int64_t head, q0, rows;   /* queries of this task */
    int64_t key0, keys, cols; /* keys of this block; cols: rounded up, masked with -inf */
} block;

/* The block's rows of queries or probabilities as the A operand; rows behind the last one are
   zeros. */
static void pack_block(const dk_attention_plan *plan, const block *at, char *dst,
                       const void *src, dk_dtype type, int64_t stride, int64_t depth)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t unit = kernel->a_group * (int64_t)dk_dtype_bytes(kernel->type);
    const void *rows[DK_GEMM_PACK_ROWS];
    int64_t end = dk_gemm_round_up(at->rows, kernel->mr);
    for (int64_t m = 0; m < end; m += DK_GEMM_PACK_ROWS) {
        int count = (int)dk_smaller(DK_GEMM_PACK_ROWS, end - m);
        for (int i = 0; i < count; i++) {
            rows[i] = m + i < at->rows ? element(src, type, m + i, stride, 0) : NULL;
        }
        kernel->pack_rows(dst + m * unit, plan->block_q, rows, type, count, depth);
    }
}

/* Scores that need more than a factor: bias and the causal mask. */
static void adjust_scores(const dk_attention_args *args, const block *at, float *scores)
{
    for (int64_t m = 0; m < at->rows; m++) {
        float *row = scores + m * MOST_KEYS;
        int64_t q = at->q0 + m, seen = args->kv_len;
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

static void scores_of(const dk_attention_plan *plan, const dk_attention_args *args,
                      const block *at, const char *k_panels, const workspace *w)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t k_panel = dk_gemm_b_bytes(kernel, args->head_dim);
    const dk_gemm_a a = {.data = w->q, .ld = plan->block_q, .k = args->head_dim, .parts = 1};
    for (int64_t n = 0; n < at->keys; n += kernel->nr) {
        const char *b = k_panels + (at->key0 + n) / kernel->nr * k_panel;
        for (int64_t m = 0; m < at->rows; m += kernel->mr) {
            kernel->tile(w->s + m * MOST_KEYS + n, MOST_KEYS, &a, m, b, false);
        }
    }
    for (int64_t m = 0; m < at->rows; m++) {
        for (int64_t n = at->keys; n < at->cols; n++) {
            w->s[m * MOST_KEYS + n] = -INFINITY;
        }
    }
}

/* o = o * shrink + p · v for one block of keys. */
static void add_values(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                       const dk_attention_args *args, const block *at, const char *v_panels,
                       const workspace *w)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t v_panel = dk_gemm_b_bytes(kernel, key_block(kernel));
    const dk_gemm_a a = {.data = w->p, .ld = plan->block_q, .k = at->keys, .parts = 1};
    pack_block(plan, at, w->p, w->s, DK_F32, MOST_KEYS, at->keys);
    for (int64_t m = 0; at->key0 > 0 && m < at->rows; m++) {
        if (w->shrink[m] != 1.0f) {
            float *row = w->o + m * w->o_ld;
            kernels->scale_row(row, DK_F32, row, w->shrink[m], w->o_ld);
        }
    }
    for (int64_t n = 0; n < args->head_dim; n += kernel->nr, v_panels += v_panel) {
        for (int64_t m = 0; m < at->rows; m += kernel->mr) {
            kernel->tile(w->o + m * w->o_ld + n, w->o_ld, &a, m, v_panels, at->key0 > 0);
        }
    }
}

void dk_attention_block(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                        const dk_attention_args *args, int task, const void *packed,
                        void *scratch)
{
    enum { VECTOR = 16 }; /* the softmax takes whole vectors */
    const dk_gemm_kernel *kernel = plan->kernel;
    workspace w = lay_out(kernel, args, plan->block_q, scratch);
    block at = {.head = task / plan->q_blocks,
                .q0 = (int64_t)(task % plan->q_blocks) * plan->block_q};
    at.rows = dk_smaller(plan->block_q, args->q_len - at.q0);
    const char *k_panels = (const char *)packed + at.head * head_bytes(kernel, args);
    const char *v_panels = k_panels + k_head_bytes(kernel, args);
    bool adjusted = args->bias != NULL || args->causal;
    for (int64_t m = 0; m < at.rows; m++) {
        w.max[m] = LOWEST;
        w.sum[m] = 0;
    }
    pack_block(plan, &at, w.q,
               element(args->q, args->type, at.q0, args->q_stride, at.head * args->head_dim),
               args->type, args->q_stride, args->head_dim);
    dk_gemm_begin(kernel);
    for (at.key0 = 0; at.key0 < args->kv_len; at.key0 += key_block(kernel)) {
        at.keys = dk_smaller(key_block(kernel), args->kv_len - at.key0);
        at.cols = dk_ceil_div(at.keys, VECTOR) * VECTOR;
        scores_of(plan, args, &at, k_panels, &w);
        if (adjusted) {
            adjust_scores(args, &at, w.s);
        }
        kernels->softmax_block(w.s, MOST_KEYS, (int)at.rows, (int)at.cols,
                               adjusted ? LOG2_E : args->scale * LOG2_E, w.max, w.sum,
                               w.shrink);
        add_values(kernels, plan, args, &at, v_panels, &w);
        v_panels += v_block_bytes(kernel, args);
    }
    dk_gemm_end(kernel);
    size_t width = dk_dtype_bytes(args->type);
    for (int64_t m = 0; m < at.rows; m++) {
        int64_t to = (at.q0 + m) * args->dst_stride + at.head * args->head_dim;
        kernels->scale_row((char *)args->dst + (size_t)to * width, args->type, w.o + m * w.o_ld,
                           w.sum[m] > 0 ? 1.0f / w.sum[m] : 0.0f, args->head_dim);
        if (args->lse != NULL) {
            args->lse[at.head * args->q_len + at.q0 + m] = LN_2 * (w.max[m] + log2f(w.sum[m]));
        }
    }
}
