/* Attention whose scores are sums of whole numbers. Zhang et al., "SageAttention: Accurate
   8-Bit Attention for Plug-and-play Inference Acceleration" (2024). Where oneDNN's products of
   int8 are not to be had, the same numbers are multiplied as floats: whole numbers of up to 127
   are exact in bf16, and sums of 512 of their products in f32. */
#include "device/xpu/xpu.h"

enum { SIDE = 16 }; /* of cl/sage.cl */

static void *address_of(dk_xpu *xpu, const void *operand)
{
    return xpu->head.dry ? NULL : dk_xpu_operand(xpu, operand);
}

static void take_mean(dk_xpu *xpu, const dk_attention_args *a, float *mean)
{
    int cols = a->heads * a->head_dim;
    dk_xpu_args args = {0};
    dk_xpu_arg_pointer(&args, mean);
    dk_xpu_arg_pointer(&args, address_of(xpu, a->k));
    dk_xpu_arg_i64(&args, a->kv_len);
    dk_xpu_arg_i32(&args, cols);
    dk_xpu_arg_i64(&args, a->k_stride);
    dk_xpu_launch(xpu, a->type == DK_BF16 ? DK_XPU_SAGE_MEAN_BF16 : DK_XPU_SAGE_MEAN_F32, &args,
                  (size_t[]){(size_t)(cols + SIDE - 1) / SIDE, 1, 1},
                  (size_t[]){SIDE, SIDE, 1});
}

/* Rows of queries or keys. */
typedef struct side {
    const void *src;
    int64_t count, stride;
    bool keys;
} side;

static void quantize(dk_xpu *xpu, const dk_attention_args *a, const side *s, dk_dtype type,
                     void *dst, float *scales, float *lost, float *mean)
{
    dk_xpu_args args = {0};
    dk_xpu_kernel kernel = type == DK_I8     ? DK_XPU_SAGE_ROWS_I8_F32
                           : type == DK_BF16 ? DK_XPU_SAGE_ROWS_BF16_F32
                                             : DK_XPU_SAGE_ROWS_F32_F32;
    dk_xpu_arg_pointer(&args, dst);
    dk_xpu_arg_pointer(&args, scales);
    dk_xpu_arg_pointer(&args, lost);
    dk_xpu_arg_pointer(&args, address_of(xpu, s->src));
    dk_xpu_arg_pointer(&args, mean);
    dk_xpu_arg_i32(&args, s->keys);
    dk_xpu_arg_f32(&args, a->scale);
    dk_xpu_arg_i32(&args, (int32_t)s->count);
    dk_xpu_arg_i32(&args, a->heads);
    dk_xpu_arg_i32(&args, a->head_dim);
    dk_xpu_arg_i64(&args, s->stride);
    dk_xpu_launch_rows(xpu, kernel + (a->type == DK_BF16), &args, s->count * a->heads);
}

/* The type that holds the whole numbers. */
static dk_dtype holder(dk_xpu *xpu, const dk_attention_args *a)
{
    dk_xpu_attention_state *state = &xpu->attention;
    if (xpu->head.plans_only) { /* nothing is checked for a plan, and this takes more memory */
        return dk_xpu_compute_type(xpu);
    }
    if (!state->whole_fails && !dk_xpu_attention_multiplies_whole(xpu, a)) {
        state->whole_fails = true;
        dk_log_warn(xpu->log,
                    "%s: oneDNN has no fast and right products of int8 for attention's scores "
                    "here: the same numbers are multiplied as %s",
                    xpu->head.description, dk_dtype_name(dk_xpu_compute_type(xpu)));
    }
    return state->whole_fails ? dk_xpu_compute_type(xpu) : DK_I8;
}

void dk_xpu_attention_sage(dk_xpu *xpu, const dk_attention_args *a, dk_dtype type)
{
    size_t cols = (size_t)a->heads * (size_t)a->head_dim, heads = (size_t)a->heads;
    size_t queries = (size_t)a->q_len, keys = (size_t)a->kv_len;
    dk_xpu_whole whole = {.type = holder(xpu, a)};
    size_t width = dk_dtype_bytes(whole.type);
    float *mean = dk_xpu_scratch(xpu, cols * sizeof *mean);
    whole.q = dk_xpu_scratch(xpu, queries * cols * width);
    whole.k = dk_xpu_scratch(xpu, keys * cols * width);
    whole.q_scale = dk_xpu_scratch(xpu, queries * heads * sizeof(float));
    whole.k_scale = dk_xpu_scratch(xpu, keys * heads * sizeof(float));
    if (a->lse != NULL) {
        whole.lost = dk_xpu_scratch(xpu, queries * heads * sizeof(float));
    }
    if (!xpu->head.plans_only) {
        const side q = {a->q, a->q_len, a->q_stride, false};
        const side k = {a->k, a->kv_len, a->k_stride, true};
        take_mean(xpu, a, mean);
        quantize(xpu, a, &q, whole.type, whole.q, whole.q_scale, whole.lost, mean);
        quantize(xpu, a, &k, whole.type, whole.k, whole.k_scale, NULL, mean);
    }
    dk_xpu_attention_multiply(xpu, a, type, &whole);
}
