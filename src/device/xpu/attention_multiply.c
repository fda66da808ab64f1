/* Attention by oneDNN's products and our softmax (cl/attention.cl). */
#include <string.h>

#include "device/xpu/trust.h"
#include "device/xpu/xpu.h"

enum { KIND_SCORES = 3, KIND_MIX = 4 };
enum { SCORE_BYTES = 64 * 1024 * 1024 }; /* of scores that are computed at a time */

/* Batches of matrices, one per head, as oneDNN counts them. */
typedef struct matrices {
    int64_t heads, rows, cols;
    int64_t head, row, col; /* strides in elements */
    dnnl_data_type_t type;
} matrices;

static dnnl_memory_desc_t desc_of(dk_xpu *xpu, const matrices *m)
{
    return dk_xpu_desc(xpu, 3, (int64_t[]){m->heads, m->rows, m->cols},
                       (int64_t[]){m->head, m->row, m->col}, m->type);
}

/* A product of whole numbers may be missing, or be the library's reference, hundreds of times
   slower than a product of floats: then NULL, and no failure. */
static dnnl_primitive_desc_t describe(dk_xpu *xpu, dnnl_memory_desc_t left,
                                      dnnl_memory_desc_t right, dnnl_memory_desc_t out,
                                      dnnl_primitive_attr_t attr, bool whole)
{
    dnnl_primitive_desc_t desc = NULL;
    const char *name = "";
    dnnl_status_t status =
        dnnl_matmul_primitive_desc_create(&desc, xpu->engine, left, right, NULL, out, attr);
    if (status == dnnl_success && whole) {
        dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    }
    if (strstr(name, "ref") != NULL) {
        dnnl_primitive_desc_destroy(desc);
        return NULL;
    }
    if (status != dnnl_success && !(whole && status == dnnl_unimplemented)) {
        dk_xpu_dnnl_ok(xpu, status, "attention");
    }
    return status == dnnl_success ? desc : NULL;
}

/* The primitive dst = a b; NULL: see above, or a failure that is kept. */
static dk_xpu_primitive *product(dk_xpu *xpu, int kind, const matrices *dst, const matrices *a,
                                 const matrices *b)
{
    dk_xpu_key key = {{kind, a->heads, a->rows, a->cols, b->cols, a->head, a->row, a->col,
                       b->head, b->row, b->col, dst->head, dst->row, dst->col, (int64_t)a->type,
                       (int64_t)dst->type}};
    dk_xpu_primitive *primitive = dk_xpu_primitive_find(xpu, &key);
    if (primitive != NULL) {
        return primitive;
    }
    dnnl_memory_desc_t left = desc_of(xpu, a), right = desc_of(xpu, b), out = desc_of(xpu, dst);
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dk_xpu_dnnl_ok(xpu, dnnl_post_ops_create(&ops), "attention");
    if (xpu->head.failed == DK_OK && dk_xpu_attr(xpu, &attr, ops)) {
        desc = describe(xpu, left, right, out, attr, a->type == dnnl_s8);
    }
    if (desc != NULL) {
        primitive = dk_xpu_primitive_add(xpu, &key, desc);
    }
    if (primitive != NULL) {
        dk_xpu_primitive_operand(primitive, DNNL_ARG_SRC, left);
        dk_xpu_primitive_operand(primitive, DNNL_ARG_WEIGHTS, right);
        dk_xpu_primitive_operand(primitive, DNNL_ARG_DST, out);
    } else {
        dnnl_memory_desc_destroy(left);
        dnnl_memory_desc_destroy(right);
        dnnl_memory_desc_destroy(out);
    }
    dnnl_primitive_attr_destroy(attr);
    dnnl_post_ops_destroy(ops);
    return primitive;
}

/* One operand as the products read it: rows of all heads. */
typedef struct rows {
    char *data;
    int64_t stride;
} rows;

static rows operand_of(dk_xpu *xpu, const dk_attention_args *a, dk_dtype type, const void *data,
                       int64_t count, int64_t stride)
{
    int64_t cols = (int64_t)a->heads * a->head_dim;
    if (a->type == type) {
        return (rows){xpu->head.dry ? NULL : dk_xpu_operand(xpu, data), stride};
    }
    char *copy = dk_xpu_scratch(xpu, (size_t)(count * cols) * dk_dtype_bytes(type));
    dk_xpu_cast(xpu, copy, type, data, a->type, count, cols, stride);
    return (rows){copy, cols};
}

typedef struct call {
    const dk_attention_args *args;
    dk_dtype type;
    const dk_xpu_whole *whole; /* or NULL */
    rows q, k, v, dst;
    char *scores, *weights; /* f32; probabilities in `type`, the same memory for f32 */
} call;

static void softmax(dk_xpu *xpu, const call *c, int64_t first, int64_t count)
{
    const dk_attention_args *a = c->args;
    dk_xpu_args args = {0};
    bool dry = xpu->head.dry;
    dk_xpu_arg_pointer(&args, c->weights);
    dk_xpu_arg_pointer(&args, c->scores);
    dk_xpu_arg_pointer(&args, dry ? NULL : dk_xpu_operand(xpu, a->bias));
    dk_xpu_arg_pointer(&args, dry ? NULL : dk_xpu_operand(xpu, a->lse));
    dk_xpu_arg_f32(&args, a->scale);
    dk_xpu_arg_i32(&args, a->causal);
    dk_xpu_arg_i64(&args, a->heads);
    dk_xpu_arg_i64(&args, count);
    dk_xpu_arg_i64(&args, a->kv_len);
    dk_xpu_arg_i64(&args, first);
    dk_xpu_arg_i64(&args, a->q_len);
    dk_xpu_arg_i64(&args, a->bias_head);
    dk_xpu_arg_i64(&args, a->bias_q);
    dk_xpu_arg_i64(&args, a->bias_k);
    dk_xpu_arg_pointer(&args, c->whole != NULL ? c->whole->q_scale : NULL);
    dk_xpu_arg_pointer(&args, c->whole != NULL ? c->whole->k_scale : NULL);
    dk_xpu_arg_pointer(&args, c->whole != NULL ? c->whole->lost : NULL);
    dk_xpu_arg_i32(&args, c->whole != NULL && c->whole->type == DK_I8);
    dk_xpu_launch_rows(xpu, c->type == DK_BF16 ? DK_XPU_SOFTMAX_BF16 : DK_XPU_SOFTMAX_F32,
                       &args, a->heads * count);
}

/* The product of `count` queries with all keys. whole numbers: sums of int32. */
static dk_xpu_primitive *score_product(dk_xpu *xpu, const dk_attention_args *a, dk_dtype type,
                                       int64_t q_stride, int64_t k_stride, int64_t count)
{
    int64_t d = a->head_dim, keys = a->kv_len;
    dnnl_data_type_t in = dk_xpu_dnnl_type(type), out = type == DK_I8 ? dnnl_s32 : dnnl_f32;
    const matrices q = {a->heads, count, d, d, q_stride, 1, in};
    const matrices k = {a->heads, d, keys, d, 1, k_stride, in};
    const matrices scores = {a->heads, count, keys, count * keys, keys, 1, out};
    return product(xpu, KIND_SCORES, &scores, &q, &k);
}

/* Queries [first, first + count) of all heads. */
static void run_block(dk_xpu *xpu, const call *c, int64_t first, int64_t count)
{
    const dk_attention_args *a = c->args;
    int64_t d = a->head_dim, keys = a->kv_len, width = (int64_t)dk_dtype_bytes(c->type);
    dk_dtype scored = c->whole != NULL ? c->whole->type : c->type;
    int64_t q_row = c->q.stride * (int64_t)dk_dtype_bytes(scored);
    dnnl_data_type_t type = dk_xpu_dnnl_type(c->type);
    const matrices v = {a->heads, keys, d, d, c->v.stride, 1, type};
    const matrices weights = {a->heads, count, keys, count * keys, keys, 1, type};
    const matrices dst = {a->heads, count, d, d, c->dst.stride, 1, type};
    dk_xpu_primitive *score = score_product(xpu, a, scored, c->q.stride, c->k.stride, count);
    dk_xpu_primitive *mix = product(xpu, KIND_MIX, &dst, &weights, &v);
    if (score == NULL || mix == NULL) {
        return;
    }
    bool dry = xpu->head.dry;
    dk_xpu_execute(xpu, score,
                   (void *[]){dry ? NULL : c->q.data + first * q_row, c->k.data, c->scores},
                   NULL);
    softmax(xpu, c, first, count);
    dk_xpu_execute(xpu, mix,
                   (void *[]){c->weights, c->v.data,
                              dry ? NULL : c->dst.data + first * c->dst.stride * width},
                   NULL);
}

/* Queries whose scores are in memory at a time. */
static int64_t block_of(const dk_attention_args *a)
{
    int64_t most = SCORE_BYTES / (int64_t)sizeof(float) / (a->heads * a->kv_len);
    return most < 1 ? 1 : most < a->q_len ? most : a->q_len;
}

void dk_xpu_attention_multiply(dk_xpu *xpu, const dk_attention_args *a, dk_dtype type,
                               const dk_xpu_whole *whole)
{
    int64_t cols = (int64_t)a->heads * a->head_dim, block = block_of(a);
    size_t scores = (size_t)(a->heads * block * a->kv_len);
    call c = {.args = a, .type = type, .whole = whole};
    if (whole != NULL) {
        c.q = (rows){whole->q, cols};
        c.k = (rows){whole->k, cols};
    } else {
        c.q = operand_of(xpu, a, type, a->q, a->q_len, a->q_stride);
        c.k = operand_of(xpu, a, type, a->k, a->kv_len, a->k_stride);
    }
    c.v = operand_of(xpu, a, type, a->v, a->kv_len, a->v_stride);
    if (a->type == type) {
        c.dst = (rows){xpu->head.dry ? NULL : dk_xpu_operand(xpu, a->dst), a->dst_stride};
    } else {
        c.dst = (rows){dk_xpu_scratch(xpu, (size_t)(a->q_len * cols) * sizeof(float)), cols};
    }
    c.scores = dk_xpu_scratch(xpu, scores * sizeof(float));
    c.weights = type == DK_F32 ? c.scores : dk_xpu_scratch(xpu, scores * dk_dtype_bytes(type));
    for (int64_t first = 0; first < a->q_len; first += block) {
        run_block(xpu, &c, first, block < a->q_len - first ? block : a->q_len - first);
    }
    if (a->type != type) {
        dk_xpu_epilogue(xpu, &(dk_xpu_epilogue_args){.sums = c.dst.data,
                                                     .rows = a->q_len,
                                                     .cols = cols,
                                                     .dst = a->dst,
                                                     .dst_type = a->type,
                                                     .block = a->q_len,
                                                     .stride = a->dst_stride});
    }
}

bool dk_xpu_attention_multiplies_whole(dk_xpu *xpu, const dk_attention_args *a)
{
    int64_t cols = (int64_t)a->heads * a->head_dim, block = block_of(a);
    const int64_t counts[] = {block, a->q_len % block};
    bool right = true;
    for (int i = 0; i < 2 && right; i++) {
        if (counts[i] > 0) {
            dk_xpu_primitive *score = score_product(xpu, a, DK_I8, cols, cols, counts[i]);
            right = score != NULL && dk_xpu_check_scores(xpu, score, a, counts[i]);
        }
    }
    return right;
}
