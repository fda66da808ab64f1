/* Attention over any micro-kernel: blocks of queries run through blocks of keys. */
#include "kernels/attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/attention_layout.h"
#include "kernels/x86/attention_x86.h"
#include "tensor/convert.h"

enum {
    QUERY_PANELS = 8, /* of mr queries in one block, at most */
    MOST_KEYS = DK_ATTENTION_KEYS,
};

static const float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;
/* For queries of zeros: times the scale of a masked column it is still -inf. */
static const float LEAST_SCALE = 1e-30f;
static const float LOWEST = -1e30f; /* the maximum before any key: finite, so no inf - inf */

static float score_c(const dk_softmax_args *args, int m, int n)
{
    const float *at = &args->scores[m * args->ld + n];
    if (args->key_scale == NULL) {
        return *at * args->scale;
    }
    int32_t sum;
    memcpy(&sum, at, sizeof sum);
    return (float)sum * args->key_scale[n] * (args->query_scale[m] * args->scale);
}

static void softmax_c(const dk_softmax_args *args)
{
    for (int m = 0; m < args->rows; m++) {
        float *row = args->scores + m * args->ld, top = args->max[m], sum = 0;
        for (int n = 0; n < args->cols; n++) {
            row[n] = score_c(args, m, n);
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
    dk_quantize_kernels_init(&kernels->quantize, cpu_flags);
    kernels->softmax = softmax_c;
    kernels->packed_group = 0;
    kernels->scale_row = scale_row_c;
    dk_attention_kernels_init_x86(kernels, cpu_flags);
}

/* Scratch of a task, in this order. */
typedef struct workspace {
    char *q, *p;                /* packed: the block's queries, a panel's probabilities */
    float *s, *o;               /* [mr][MOST_KEYS] scores of a panel, [block_q][o_ld] output */
    float *max, *sum, *shrink;  /* [block_q] */
    float *scales, *key_scales; /* [block_q], [MOST_KEYS] of quantised queries and keys */
    int8_t *values;             /* [block_q][head_dim] those queries, before they are packed */
    int64_t o_ld;
    size_t bytes;
} workspace;

static char *take(char **memory, size_t *bytes, size_t count)
{
    char *at = *memory;
    *bytes += dk_whole_lines(count);
    *memory = at != NULL ? at + dk_whole_lines(count) : NULL;
    return at;
}

/* memory: NULL for the size alone. */
static workspace lay_out(const dk_attention_plan *plan, const dk_attention_args *args,
                         char *memory)
{
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t rows = plan->block_q, dim = args->head_dim;
    size_t row = (size_t)rows * sizeof(float), quantized = plan->quantized ? 1 : 0;
    workspace w = {.o_ld = dk_ceil_div(dim, kernel->nr) * kernel->nr};
    w.q = take(&memory, &w.bytes, (size_t)dk_gemm_a_bytes(plan->score_kernel, rows, dim));
    w.p = take(&memory, &w.bytes,
               (size_t)dk_gemm_a_bytes(kernel, kernel->mr, dk_attention_key_block(plan)));
    w.s = (float *)(void *)take(&memory, &w.bytes,
                                (size_t)kernel->mr * MOST_KEYS * sizeof(float));
    w.o = (float *)(void *)take(&memory, &w.bytes, (size_t)w.o_ld * row);
    w.max = (float *)(void *)take(&memory, &w.bytes, row);
    w.sum = (float *)(void *)take(&memory, &w.bytes, row);
    w.shrink = (float *)(void *)take(&memory, &w.bytes, row);
    w.scales = (float *)(void *)take(&memory, &w.bytes, quantized * row);
    w.key_scales =
        (float *)(void *)take(&memory, &w.bytes, quantized * MOST_KEYS * sizeof(float));
    w.values = (int8_t *)take(&memory, &w.bytes, quantized * (size_t)(rows * dim));
    return w;
}

/* Scratch of a packing task: one key as f32, a panel of keys as int8. */
static size_t pack_scratch(const dk_attention_plan *plan, const dk_attention_args *args)
{
    size_t dim = (size_t)args->head_dim;
    return plan->quantized ? dk_whole_lines(dim * sizeof(float)) +
                                 dk_whole_lines((size_t)plan->kernel->nr * dim)
                           : 0;
}

/* Of equal blocks, of which every thread has one. Half the panels cost 1 to 2 %, a quarter of
   them 10 % on AVX2 and 19 % on AMX: keys then come from the third-level cache more often. */
static int query_panels(const dk_attention_args *args, int mr, int threads)
{
    int64_t panels = dk_ceil_div(args->q_len, mr), most = QUERY_PANELS;
    while (most > 1 && args->heads * dk_ceil_div(panels, most) < threads) {
        most /= 2;
    }
    return (int)dk_ceil_div(panels, dk_ceil_div(panels, most));
}

static void cut_queries(dk_attention_plan *plan, const dk_attention_args *args, int threads)
{
    int mr = plan->kernel->mr;
    plan->block_q = query_panels(args, mr, threads) * mr;
    plan->q_blocks = (int)dk_ceil_div(args->q_len, plan->block_q);
    plan->cut = dk_cut_blocks(args->heads * plan->q_blocks, threads);
}

void dk_attention_plan_init(dk_attention_plan *plan, const dk_attention_kernels *kernels,
                            const dk_attention_args *args, dk_attention_backend backend,
                            int threads)
{
    bool exact = backend == DK_ATTENTION_REFERENCE;
    const dk_gemm_kernel *kernel = exact ? &kernels->gemm.f32 : &kernels->gemm.bf16;
    *plan = (dk_attention_plan){.kernel = kernel, .score_kernel = kernel};
    /* A bias or a mask is added to scores in f32, which int8 scores never become. */
    plan->quantized = backend == DK_ATTENTION_SAGE && args->bias == NULL && !args->causal;
    if (plan->quantized) {
        plan->score_kernel = &kernels->gemm.int8;
        plan->mean_tasks = args->heads;
    }
    assert(kernel->nr <= MOST_KEYS && plan->score_kernel->nr == kernel->nr &&
           plan->score_kernel->mr == kernel->mr);
    int64_t pack_keys = DK_ATTENTION_PACK_BLOCKS * dk_attention_key_block(plan);
    cut_queries(plan, args, threads);
    plan->pack_blocks = (int)dk_ceil_div(args->kv_len, pack_keys);
    plan->packed_bytes = (size_t)args->heads * dk_attention_head_at(plan, args, NULL, 0).bytes;
    plan->scratch_bytes = lay_out(plan, args, NULL).bytes;
    if (pack_scratch(plan, args) > plan->scratch_bytes) {
        plan->scratch_bytes = pack_scratch(plan, args);
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
            rows[i] = m + i < count ? dk_attention_element(src, type, m + i, stride, 0) : NULL;
        }
        kernel->pack_rows(dst + m * unit, ld, rows, type, part, depth);
    }
}

/* The block's queries as the A operand of the scores. */
static void pack_queries(const block *at)
{
    const dk_attention_args *args = at->args;
    const char *q = dk_attention_element(args->q, args->type, at->q0, args->q_stride,
                                         at->head * args->head_dim);
    dk_dtype type = args->type;
    int64_t stride = args->q_stride;
    if (at->plan->quantized) {
        const dk_quantize_args quantize = {.cols = args->head_dim,
                                           .src = q,
                                           .src_type = type,
                                           .src_stride = stride,
                                           .dst = at->w.values,
                                           .dst_stride = args->head_dim,
                                           .scales = at->w.scales};
        at->kernels->quantize.quantize_rows(&quantize, 0, at->block_rows);
        for (int64_t m = 0; m < at->block_rows; m++) {
            at->w.scales[m] = at->w.scales[m] == 0.0f ? LEAST_SCALE : at->w.scales[m];
        }
        q = (const char *)at->w.values;
        type = DK_I8;
        stride = args->head_dim;
    }
    pack_rows(at->plan->score_kernel, at->w.q, at->plan->block_q, q, type, stride,
              at->block_rows, args->head_dim);
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

/* The panel's scores against the block's keys: f32, or int32 of quantised ones. Columns behind
   the last key become -inf, as 1 times the scale that stands there. */
static void multiply_keys(const block *at, const char *k_panels)
{
    const dk_gemm_kernel *kernel = at->plan->score_kernel;
    int64_t k_panel = dk_attention_k_panel(at->plan, at->args);
    const int32_t one = 1;
    const float masked = -INFINITY;
    const dk_gemm_a a = {
        .data = at->w.q, .ld = at->plan->block_q, .k = at->args->head_dim, .parts = 1};
    for (int64_t n = 0; n < at->keys; n += kernel->nr) {
        const char *b = k_panels + (at->key0 + n) / kernel->nr * k_panel;
        kernel->tile(at->w.s + n, MOST_KEYS, &a, at->m0, b, false);
    }
    for (int64_t m = 0; at->keys < at->cols && m < at->rows; m++) {
        for (int64_t n = at->keys; n < at->cols; n++) {
            memcpy(&at->w.s[m * MOST_KEYS + n],
                   at->plan->quantized ? (const void *)&one : (const void *)&masked,
                   sizeof one);
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
                                     .key_scale = at->plan->quantized ? at->w.key_scales : NULL,
                                     .query_scale = at->w.scales + at->m0,
                                     .packed = packs ? at->w.p : NULL,
                                     .packed_ld = kernel->mr};
    at->kernels->softmax(&softmax);
    if (!packs) {
        pack_rows(kernel, at->w.p, kernel->mr, at->w.s, DK_F32, MOST_KEYS, at->rows, at->keys);
    }
}

/* Whether earlier keys, of this part or of parts before it, have been attended to. */
static bool goes_on(const block *at)
{
    return at->key0 > 0 || (at->args->sum != NULL && !at->args->first);
}

/* o = o * shrink + p · v for the panel and the block's keys. */
static void add_values(const block *at, const char *v_panels)
{
    const dk_gemm_kernel *kernel = at->plan->kernel;
    int64_t v_panel = dk_attention_v_panel(at->plan), ld = at->w.o_ld;
    const dk_gemm_a a = {.data = at->w.p, .ld = kernel->mr, .k = at->keys, .parts = 1};
    float *o = at->w.o + at->m0 * ld;
    for (int64_t m = 0; goes_on(at) && m < at->rows; m++) {
        float shrink = at->w.shrink[at->m0 + m];
        if (shrink != 1.0f) {
            at->kernels->scale_row(o + m * ld, DK_F32, o + m * ld, shrink, ld);
        }
    }
    for (int64_t n = 0; n < at->args->head_dim; n += kernel->nr, v_panels += v_panel) {
        kernel->tile(o + n, ld, &a, 0, v_panels, goes_on(at));
    }
}

/* What taking the mean from the keys took from every score of row m. */
static float lost_score(const block *at, const float *mean, int64_t m)
{
    const dk_attention_args *args = at->args;
    float sum = 0;
    for (int64_t i = 0; at->plan->quantized && i < args->head_dim; i++) {
        const char *q = dk_attention_element(args->q, args->type, at->q0 + m, args->q_stride,
                                             at->head * args->head_dim + i);
        float value;
        dk_convert_to_f32(&value, q, args->type, 1);
        sum += value * mean[i];
    }
    return sum * args->scale;
}

/* Row m between parts of the keys. */
typedef struct saved_row {
    float *o, *max, *sum;
} saved_row;

static saved_row saved_row_of(const block *at, int64_t m)
{
    const dk_attention_args *args = at->args;
    int64_t row = at->q0 + m, lies = at->head * args->q_len + row;
    return (saved_row){.o = args->sum + (row * args->heads + at->head) * args->head_dim,
                       .max = args->running + lies,
                       .sum = args->running + (int64_t)args->heads * args->q_len + lies};
}

/* As it stands before any key, or where the part before ended. */
static void begin_rows(const block *at, const float *mean)
{
    const workspace *w = &at->w;
    size_t bytes = (size_t)at->args->head_dim * sizeof(float);
    size_t padding = (size_t)w->o_ld * sizeof(float) - bytes;
    for (int64_t m = 0; m < at->block_rows; m++) {
        w->max[m] = LOWEST;
        w->sum[m] = 0;
        if (goes_on(at)) {
            const saved_row saved = saved_row_of(at, m);
            float *o = w->o + m * w->o_ld;
            memcpy(o, saved.o, bytes);
            memset(o + at->args->head_dim, 0, padding);
            w->max[m] = *saved.max - lost_score(at, mean, m) * LOG2_E;
            w->sum[m] = *saved.sum;
        }
    }
}

static void save_rows(const block *at, const float *mean)
{
    const workspace *w = &at->w;
    for (int64_t m = 0; m < at->block_rows; m++) {
        const saved_row saved = saved_row_of(at, m);
        memcpy(saved.o, w->o + m * w->o_ld, (size_t)at->args->head_dim * sizeof(float));
        *saved.max = w->max[m] + lost_score(at, mean, m) * LOG2_E;
        *saved.sum = w->sum[m];
    }
}

static void store_block(const block *at, const float *mean)
{
    const dk_attention_args *args = at->args;
    const workspace *w = &at->w;
    size_t width = dk_dtype_bytes(args->type);
    for (int64_t m = 0; m < at->block_rows; m++) {
        int64_t to = (at->q0 + m) * args->dst_stride + at->head * args->head_dim;
        float factor = w->sum[m] > 0 ? 1.0f / w->sum[m] : 0.0f;
        at->kernels->scale_row((char *)args->dst + (size_t)to * width, args->type,
                               w->o + m * w->o_ld, factor, args->head_dim);
        if (args->lse != NULL) {
            args->lse[at->head * args->q_len + at->q0 + m] =
                LN_2 * (w->max[m] + log2f(w->sum[m])) + lost_score(at, mean, m);
        }
    }
}

/* Panel by panel, so that scores and probabilities never leave the first-level cache; the
   block's keys and values come from the second. */
static void run_block(block *at, const dk_attention_head *head)
{
    enum { VECTOR = 16 }; /* the softmax takes whole vectors */
    const dk_attention_plan *plan = at->plan;
    const char *v_panels = head->v;
    int64_t step = dk_attention_key_block(plan), mr = plan->kernel->mr;
    for (at->key0 = 0; at->key0 < at->args->kv_len; at->key0 += step) {
        at->keys = dk_smaller(step, at->args->kv_len - at->key0);
        at->cols = dk_ceil_div(at->keys, VECTOR) * VECTOR;
        for (int64_t n = 0; plan->quantized && n < at->cols; n++) {
            at->w.key_scales[n] = n < at->keys ? head->scales[at->key0 + n] : -INFINITY;
        }
        for (at->m0 = 0; at->m0 < at->block_rows; at->m0 += mr) {
            at->rows = dk_smaller(mr, at->block_rows - at->m0);
            multiply_keys(at, head->k);
            take_softmax(at);
            add_values(at, v_panels);
        }
        v_panels += dk_attention_v_block(plan, at->args);
    }
}

/* The queries of a task; false: there are none, where a block has fewer than four panels or is
   its head's last. */
static bool take_queries(block *at, int task)
{
    const dk_attention_plan *plan = at->plan;
    int64_t mr = plan->kernel->mr;
    dk_cut_task panels = dk_cut_task_at(&plan->cut, task, plan->block_q / mr);
    int64_t begin = panels.block % plan->q_blocks * plan->block_q;
    at->head = panels.block / plan->q_blocks;
    at->q0 = begin + panels.begin * mr;
    at->block_rows = dk_smaller(begin + panels.end * mr, at->args->q_len) - at->q0;
    return at->block_rows > 0;
}

void dk_attention_block(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                        const dk_attention_args *args, int task, const void *packed,
                        void *scratch)
{
    block at = {
        .kernels = kernels, .plan = plan, .args = args, .w = lay_out(plan, args, scratch)};
    if (!take_queries(&at, task)) {
        return;
    }
    const dk_attention_head head = dk_attention_head_at(plan, args, packed, at.head);
    begin_rows(&at, head.mean);
    pack_queries(&at);
    dk_gemm_begin(plan->kernel);
    run_block(&at, &head);
    dk_gemm_end(plan->kernel);
    if (args->sum != NULL && !args->last) {
        save_rows(&at, head.mean);
    } else {
        store_block(&at, head.mean);
    }
}
