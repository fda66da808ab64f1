/* Linear layers: a matrix product of oneDNN with its epilogue fused, or, where the device lacks
   a type, one whose f32 sums a kernel of ours finishes. */
#include <string.h>

#include "device/xpu/xpu.h"

enum { KIND_LINEAR = 1 };

/* How one call is computed. */
typedef struct plan {
    const dk_linear_args *args;
    dk_dtype type; /* of both operands */
    bool casts;    /* src is cast first */
    bool wide;     /* sums go to scratch, as f32; the epilogue follows */
} plan;

static plan plan_of(const dk_xpu *xpu, const dk_linear_args *args)
{
    dk_dtype type = dk_xpu_compute_type(xpu);
    return (plan){.args = args,
                  .type = type,
                  .casts = args->src_type != type,
                  .wide = type == DK_F32 && args->dst_type != DK_F32};
}

static dk_xpu_key key_of(const plan *p)
{
    const dk_linear_args *a = p->args;
    int residual = a->residual == NULL ? 0 : a->residual == a->dst ? 1 : 2;
    return (dk_xpu_key){
        {KIND_LINEAR, a->rows, a->cols, a->depth, p->casts ? 0 : a->src_stride,
         p->wide ? 0 : a->dst_stride, (int64_t)p->type, (int64_t)a->dst_type, p->casts, p->wide,
         a->bias != NULL, p->wide ? 0 : (int64_t)a->activation, !p->wide && a->multiply != NULL,
         p->wide || a->gate == NULL ? -1 : a->gate_stride, p->wide ? 0 : residual}};
}

/* What follows the product, in the order of dk_linear_args; the descriptors of its operands. */
typedef struct tail {
    dnnl_post_ops_t ops;
    dnnl_memory_desc_t desc[3]; /* multiply, gate, residual; NULL: none as an operand */
    int index[3];               /* of the post-op */
} tail;

static void append_binary(dk_xpu *xpu, tail *t, int which, dnnl_alg_kind_t kind,
                          const int64_t dims[2], const int64_t strides[2], dk_dtype type)
{
    t->desc[which] = dk_xpu_desc(xpu, 2, dims, strides, dk_xpu_dnnl_type(type));
    t->index[which] = dnnl_post_ops_len(t->ops);
    if (t->desc[which] != NULL) {
        dk_xpu_dnnl_ok(xpu, dnnl_post_ops_append_binary(t->ops, kind, t->desc[which]),
                       "an epilogue");
    }
}

void dk_xpu_append_activation(dk_xpu *xpu, dnnl_post_ops_t ops, dk_activation activation)
{
    if (activation != DK_ACT_NONE) {
        bool silu = activation == DK_ACT_SILU;
        dk_xpu_dnnl_ok(xpu,
                       dnnl_post_ops_append_eltwise(
                           ops, silu ? dnnl_eltwise_swish : dnnl_eltwise_gelu_tanh,
                           silu ? 1.0f : 0.0f, 0.0f),
                       "an activation");
    }
}

static void make_tail(dk_xpu *xpu, tail *t, const plan *p)
{
    const dk_linear_args *a = p->args;
    const int64_t all[2] = {a->rows, a->cols}, strides[2] = {a->dst_stride, 1};
    *t = (tail){0};
    dk_xpu_dnnl_ok(xpu, dnnl_post_ops_create(&t->ops), "an epilogue");
    if (p->wide) {
        return;
    }
    dk_xpu_append_activation(xpu, t->ops, a->activation);
    if (a->multiply != NULL) {
        append_binary(xpu, t, 0, dnnl_binary_mul, all, strides, a->dst_type);
    }
    if (a->gate != NULL) {
        const int64_t rows[2] = {a->gate_stride != 0 ? a->rows : 1, a->cols};
        const int64_t gates[2] = {a->gate_stride != 0 ? a->gate_stride : a->cols, 1};
        append_binary(xpu, t, 1, dnnl_binary_mul, rows, gates, DK_F32);
    }
    if (a->residual != NULL && a->residual == a->dst) {
        dk_xpu_dnnl_ok(xpu, dnnl_post_ops_append_sum(t->ops, 1.0f, 0, dnnl_data_type_undef),
                       "an epilogue");
    } else if (a->residual != NULL) {
        append_binary(xpu, t, 2, dnnl_binary_add, all, strides, a->dst_type);
    }
}

/* The layout that an earlier shape has put this weight into serves again where an optimised
   implementation takes it: one copy of the weight, not one for each number of rows. */
static dnnl_primitive_desc_t describe(dk_xpu *xpu, const dk_linear_args *a, dk_dtype type,
                                      dnnl_memory_desc_t src, dnnl_memory_desc_t bias,
                                      dnnl_memory_desc_t dst, dnnl_primitive_attr_t attr)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_data_type_t wanted = dk_xpu_dnnl_type(type);
    const_dnnl_memory_desc_t held = dk_xpu_weight_layout(xpu, a->weight, wanted);
    const char *name = "";
    if (held != NULL && dnnl_matmul_primitive_desc_create(&desc, xpu->engine, src, held, bias,
                                                          dst, attr) == dnnl_success) {
        dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
        if (strstr(name, "ref") == NULL) {
            return desc;
        }
        dnnl_primitive_desc_destroy(desc);
        desc = NULL;
    }
    dnnl_memory_desc_t any = NULL;
    dnnl_dims_t dims = {a->depth, a->cols};
    bool fine =
        dk_xpu_dnnl_ok(
            xpu, dnnl_memory_desc_create_with_tag(&any, 2, dims, wanted, dnnl_format_tag_any),
            "describing a weight") &&
        dk_xpu_dnnl_ok(
            xpu,
            dnnl_matmul_primitive_desc_create(&desc, xpu->engine, src, any, bias, dst, attr),
            "a linear layer");
    dnnl_memory_desc_destroy(any);
    return fine ? desc : NULL;
}

static dk_xpu_primitive *make(dk_xpu *xpu, const dk_xpu_key *key, const plan *p)
{
    const dk_linear_args *a = p->args;
    dnnl_data_type_t type = dk_xpu_dnnl_type(p->type);
    dnnl_data_type_t out = p->wide ? dnnl_f32 : dk_xpu_dnnl_type(a->dst_type);
    dnnl_memory_desc_t src =
        dk_xpu_desc(xpu, 2, (int64_t[]){a->rows, a->depth},
                    (int64_t[]){p->casts ? a->depth : a->src_stride, 1}, type);
    dnnl_memory_desc_t dst =
        dk_xpu_desc(xpu, 2, (int64_t[]){a->rows, a->cols},
                    (int64_t[]){p->wide ? a->cols : a->dst_stride, 1}, out);
    dnnl_memory_desc_t bias = a->bias != NULL ? dk_xpu_desc(xpu, 2, (int64_t[]){1, a->cols},
                                                            (int64_t[]){a->cols, 1}, dnnl_f32)
                                              : NULL;
    dnnl_primitive_attr_t attr = NULL;
    dk_xpu_primitive *made = NULL;
    tail t;
    make_tail(xpu, &t, p);
    if (dk_xpu_attr(xpu, &attr, t.ops)) {
        dnnl_primitive_desc_t desc = describe(xpu, a, p->type, src, bias, dst, attr);
        dnnl_memory_desc_t weights = NULL;
        if (desc != NULL) {
            dnnl_memory_desc_clone(
                &weights, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
            made = dk_xpu_primitive_add(xpu, key, desc);
        }
        if (made != NULL) {
            made->weights = weights;
            dk_xpu_primitive_operand(made, DNNL_ARG_SRC, src);
            dk_xpu_primitive_operand(made, DNNL_ARG_DST, dst);
            dk_xpu_primitive_operand(made, DNNL_ARG_WEIGHTS, dk_xpu_clone(weights));
            if (bias != NULL) {
                dk_xpu_primitive_operand(made, DNNL_ARG_BIAS, bias);
            }
            for (int i = 0; i < 3; i++) {
                if (t.desc[i] != NULL) {
                    dk_xpu_primitive_operand(
                        made, DNNL_ARG_ATTR_MULTIPLE_POST_OP(t.index[i]) | DNNL_ARG_SRC_1,
                        t.desc[i]);
                }
            }
        }
    }
    dnnl_primitive_attr_destroy(attr);
    dnnl_post_ops_destroy(t.ops);
    return made;
}

static dk_xpu_stored stored_of(const dk_linear_args *a)
{
    return (dk_xpu_stored){.host = a->weight,
                           .type = a->weight_type,
                           .rank = 2,
                           .dims = {a->depth, a->cols},
                           .strides = {1, a->depth}};
}

/* The rows that the product reads: src, or a cast copy in scratch. */
static void *rows_of(dk_xpu *xpu, const plan *p)
{
    const dk_linear_args *a = p->args;
    if (!p->casts) {
        return xpu->head.dry ? NULL : dk_xpu_operand(xpu, a->src);
    }
    void *copy = dk_xpu_scratch(xpu, (size_t)(a->rows * a->depth) * dk_dtype_bytes(p->type));
    dk_xpu_cast(xpu, copy, p->type, a->src, a->src_type, a->rows, a->depth, a->src_stride);
    return copy;
}

static void finish(dk_xpu *xpu, const dk_linear_args *a, void *sums)
{
    dk_xpu_epilogue(xpu, &(dk_xpu_epilogue_args){.sums = sums,
                                                 .rows = a->rows,
                                                 .cols = a->cols,
                                                 .activation = a->activation,
                                                 .multiply = a->multiply,
                                                 .gate = a->gate,
                                                 .gate_stride = a->gate_stride,
                                                 .residual = a->residual,
                                                 .dst = a->dst,
                                                 .dst_type = a->dst_type,
                                                 .block = a->rows,
                                                 .stride = a->dst_stride});
}

static void run(dk_xpu *xpu, const dk_linear_args *a)
{
    plan p = plan_of(xpu, a);
    void *addresses[DK_XPU_MOST_OPERANDS], *sums = NULL;
    int count = 0;
    void *rows = rows_of(xpu, &p);
    if (p.wide) {
        sums = dk_xpu_scratch(xpu, (size_t)(a->rows * a->cols) * sizeof(float));
    }
    if (xpu->head.plans_only) {
        return;
    }
    dk_xpu_key key = key_of(&p);
    dk_xpu_primitive *primitive = dk_xpu_primitive_find(xpu, &key);
    primitive = primitive != NULL ? primitive : make(xpu, &key, &p);
    if (primitive == NULL) {
        return;
    }
    dk_xpu_stored stored = stored_of(a);
    dk_xpu_form *form = dk_xpu_weight_in(xpu, &stored, primitive->weights);
    void *weight = form != NULL ? dk_xpu_form_begin(xpu, form) : NULL;
    DPCTLSyclEventRef event = NULL;
    if (form == NULL || (weight == NULL && !xpu->head.dry)) {
        return;
    }
    if (!xpu->head.dry) {
        addresses[count++] = rows;
        addresses[count++] = p.wide ? sums : dk_xpu_operand(xpu, a->dst);
        addresses[count++] = weight;
        const void *rest[] = {a->bias, p.wide ? NULL : a->multiply, p.wide ? NULL : a->gate,
                              p.wide || a->residual == a->dst ? NULL : a->residual};
        for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
            if (rest[i] != NULL) {
                addresses[count++] = dk_xpu_operand(xpu, rest[i]);
            }
        }
    }
    dk_xpu_execute(xpu, primitive, addresses, dk_xpu_form_moves(form) ? &event : NULL);
    dk_xpu_form_end(xpu, form, event);
    if (p.wide) {
        finish(xpu, a, sums);
    }
}

void dk_xpu_linear(dk_device *device, const dk_linear_args *args, int count)
{
    dk_xpu *xpu = dk_xpu_of(device);
    for (int i = 0; i < count && device->failed == DK_OK; i++) {
        run(xpu, &args[i]);
        dk_xpu_scratch_end(xpu);
    }
}
