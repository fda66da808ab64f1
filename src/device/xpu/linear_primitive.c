/* Describing linear layers to oneDNN. */
#include <string.h>

#include "device/xpu/linear.h"

enum { KIND_LINEAR = 1, OPERANDS = DK_XPU_LINEAR_OPERANDS };

void dk_xpu_linear_operands(const dk_xpu_linear_plan *plan, bool has[DK_XPU_LINEAR_OPERANDS])
{
    const dk_linear_args *a = plan->args;
    memset(has, 0, OPERANDS * sizeof *has);
    has[DK_XPU_LINEAR_SRC] = has[DK_XPU_LINEAR_DST] = has[DK_XPU_LINEAR_WEIGHT] = true;
    has[DK_XPU_LINEAR_BIAS] = a->bias != NULL && plan->product != DK_XPU_PRODUCT_INT8;
    has[DK_XPU_LINEAR_COL_SCALE] = plan->product != DK_XPU_PRODUCT_FLOAT;
    if (!plan->wide) {
        has[DK_XPU_LINEAR_MULTIPLY] = a->multiply != NULL;
        has[DK_XPU_LINEAR_GATE] = a->gate != NULL;
        has[DK_XPU_LINEAR_RESIDUAL] = a->residual != NULL && a->residual != a->dst;
    }
}

static dk_xpu_key key_of(const dk_xpu *xpu, const dk_xpu_linear_plan *p)
{
    const dk_linear_args *a = p->args;
    int residual = a->residual == NULL ? 0 : a->residual == a->dst ? 1 : 2;
    int64_t group = a->quantized != NULL ? dk_xpu_quantized_of(a->quantized)->group : 0;
    return (dk_xpu_key){{KIND_LINEAR, a->rows, a->cols, a->depth, p->casts ? 0 : a->src_stride,
                         p->wide ? 0 : a->dst_stride, (int64_t)p->type, (int64_t)p->weight_type,
                         (int64_t)a->dst_type, (int64_t)p->product,
                         p->casts + 2 * dk_xpu_passes(xpu, a->weight), p->wide, a->bias != NULL,
                         p->wide ? 0 : (int64_t)a->activation, !p->wide && a->multiply != NULL,
                         p->wide || a->gate == NULL ? -1 : a->gate_stride,
                         p->wide ? 0 : residual,
                         p->product == DK_XPU_PRODUCT_COMPRESSED ? group : 0}};
}

/* A primitive on its way. */
typedef struct maker {
    dk_xpu *xpu;
    const dk_xpu_linear_plan *plan;
    bool has[OPERANDS];
    dnnl_memory_desc_t desc[OPERANDS]; /* of those that it has */
    int arg[OPERANDS];
    dnnl_post_ops_t ops;
    dnnl_primitive_attr_t attr;
} maker;

static dnnl_memory_desc_t matrix(dk_xpu *xpu, int64_t rows, int64_t cols, int64_t stride,
                                 dnnl_data_type_t type)
{
    return dk_xpu_desc(xpu, 2, (int64_t[]){rows, cols}, (int64_t[]){stride, 1}, type);
}

/* What the operands are, as matrices. */
static void describe_operands(maker *m)
{
    const dk_xpu_linear_plan *p = m->plan;
    const dk_linear_args *a = p->args;
    dnnl_data_type_t out = p->wide ? dnnl_f32 : dk_xpu_dnnl_type(a->dst_type);
    int64_t stride = p->wide ? a->cols : a->dst_stride;
    int64_t groups = p->product == DK_XPU_PRODUCT_COMPRESSED
                         ? a->depth / dk_xpu_quantized_of(a->quantized)->group
                         : 1;
    const struct {
        int64_t rows, cols, stride;
        dnnl_data_type_t type;
        int arg;
    } shapes[OPERANDS] = {
        [DK_XPU_LINEAR_SRC] = {a->rows, a->depth, p->casts ? a->depth : a->src_stride,
                               dk_xpu_dnnl_type(p->type), DNNL_ARG_SRC},
        [DK_XPU_LINEAR_DST] = {a->rows, a->cols, stride, out, DNNL_ARG_DST},
        [DK_XPU_LINEAR_BIAS] = {1, a->cols, a->cols, dnnl_f32, DNNL_ARG_BIAS},
        [DK_XPU_LINEAR_COL_SCALE] = {groups, a->cols, a->cols, dnnl_f32,
                                     DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS},
        [DK_XPU_LINEAR_MULTIPLY] = {a->rows, a->cols, stride, out, 0},
        [DK_XPU_LINEAR_GATE] = {a->gate_stride != 0 ? a->rows : 1, a->cols,
                                a->gate_stride != 0 ? a->gate_stride : a->cols, dnnl_f32, 0},
        [DK_XPU_LINEAR_RESIDUAL] = {a->rows, a->cols, stride, out, 0},
    };
    for (int i = 0; i < OPERANDS; i++) {
        if (m->has[i] && i != DK_XPU_LINEAR_WEIGHT) {
            m->desc[i] = matrix(m->xpu, shapes[i].rows, shapes[i].cols, shapes[i].stride,
                                shapes[i].type);
            m->arg[i] = shapes[i].arg;
        }
    }
    m->arg[DK_XPU_LINEAR_WEIGHT] = DNNL_ARG_WEIGHTS;
}

static void append(maker *m, int operand, dnnl_alg_kind_t kind)
{
    if (m->has[operand] && m->desc[operand] != NULL) {
        m->arg[operand] =
            DNNL_ARG_ATTR_MULTIPLE_POST_OP(dnnl_post_ops_len(m->ops)) | DNNL_ARG_SRC_1;
        dk_xpu_dnnl_ok(m->xpu, dnnl_post_ops_append_binary(m->ops, kind, m->desc[operand]),
                       "an epilogue");
    }
}

void dk_xpu_append_activation(dk_xpu *xpu, dnnl_post_ops_t ops, dk_activation activation)
{
    if (activation != DK_ACT_NONE) {
        bool silu = activation == DK_ACT_SILU;
        dk_xpu_dnnl_ok(
            xpu,
            dnnl_post_ops_append_eltwise(
                ops, silu ? dnnl_eltwise_swish : dnnl_eltwise_gelu_tanh, silu ? 1.0f : 0.0f, 0),
            "an activation");
    }
}

/* What follows the product, in the order of dk_linear_args. Products of whole numbers are
   scaled before the bias, which therefore is one of these operations. */
static void append_tail(maker *m)
{
    const dk_linear_args *a = m->plan->args;
    dk_xpu_dnnl_ok(m->xpu, dnnl_post_ops_create(&m->ops), "an epilogue");
    if (m->plan->wide) {
        return;
    }
    dk_xpu_append_activation(m->xpu, m->ops, a->activation);
    append(m, DK_XPU_LINEAR_MULTIPLY, dnnl_binary_mul);
    append(m, DK_XPU_LINEAR_GATE, dnnl_binary_mul);
    append(m, DK_XPU_LINEAR_RESIDUAL, dnnl_binary_add);
    if (a->residual != NULL && a->residual == a->dst) {
        dk_xpu_dnnl_ok(m->xpu, dnnl_post_ops_append_sum(m->ops, 1.0f, 0, dnnl_data_type_undef),
                       "an epilogue");
    }
}

/* Weights of fewer bits are scaled inside the product. All but those of INT8, whose rows are
   whole numbers too, are computed with in floats. */
static bool set_attributes(maker *m)
{
    enum { EVERY_COLUMN = 1 << 1, EVERY_GROUP = 1 << 0 };
    const dk_xpu_linear_plan *p = m->plan;
    if (!dk_xpu_attr(m->xpu, &m->attr, m->ops)) {
        return false;
    }
    if (p->product == DK_XPU_PRODUCT_FLOAT) {
        return true;
    }
    const dk_xpu_quantized *weight = dk_xpu_quantized_of(p->args->quantized);
    bool grouped = weight->group != p->args->depth;
    const dnnl_dims_t group = {weight->group, 1};
    dnnl_status_t status = dnnl_primitive_attr_set_scales(
        m->attr, DNNL_ARG_WEIGHTS, grouped ? EVERY_GROUP | EVERY_COLUMN : EVERY_COLUMN,
        grouped ? 2 : 0, grouped ? group : NULL, dnnl_f32);
    dnnl_fpmath_mode_t mode =
        p->type == DK_BF16 ? dnnl_fpmath_mode_bf16 : dnnl_fpmath_mode_strict;
    return dk_xpu_dnnl_ok(m->xpu, status, "scales of a weight") &&
           (p->product == DK_XPU_PRODUCT_INT8 ||
            dk_xpu_dnnl_ok(m->xpu, dnnl_primitive_attr_set_fpmath_mode_v2(m->attr, mode, 1),
                           "arithmetic of a weight of fewer bits"));
}

static dnnl_status_t describe_as(const maker *m, dnnl_primitive_desc_t *out,
                                 const_dnnl_memory_desc_t weight)
{
    return dnnl_matmul_primitive_desc_create(out, m->xpu->engine, m->desc[DK_XPU_LINEAR_SRC],
                                             weight, m->desc[DK_XPU_LINEAR_BIAS],
                                             m->desc[DK_XPU_LINEAR_DST], m->attr);
}

/* The layout that an earlier shape has put this weight into serves again where an optimised
   implementation takes it: one copy of the weight, not one for each number of rows. */
static dnnl_primitive_desc_t describe(const maker *m, bool *lacks)
{
    const dk_xpu_linear_plan *p = m->plan;
    dnnl_primitive_desc_t desc = NULL;
    const_dnnl_memory_desc_t held =
        dk_xpu_weight_layout(m->xpu, p->stored.host, p->weight_type);
    const char *name = "";
    if (held != NULL && describe_as(m, &desc, held) == dnnl_success) {
        dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
        if (strstr(name, "ref") == NULL) {
            return desc;
        }
        dnnl_primitive_desc_destroy(desc);
        desc = NULL;
    }
    /* Two numbers in a byte cannot be reordered everywhere: they stay as stored. */
    bool as_stored = p->weight_type == dnnl_s4 || dk_xpu_passes(m->xpu, p->args->weight);
    dnnl_memory_desc_t asked = NULL;
    const dnnl_dims_t dims = {p->args->depth, p->args->cols};
    dnnl_status_t status = dnnl_memory_desc_create_with_tag(
        &asked, 2, dims, p->weight_type, as_stored ? dnnl_ba : dnnl_format_tag_any);
    if (status == dnnl_success) {
        status = describe_as(m, &desc, asked);
    }
    dnnl_memory_desc_destroy(asked);
    bool slow = false;
    if (status == dnnl_success && p->product != DK_XPU_PRODUCT_FLOAT) {
        dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
        slow = strstr(name, "ref") != NULL; /* hundreds of times slower than a float product */
    }
    if (slow) {
        dnnl_primitive_desc_destroy(desc);
        desc = NULL;
        status = dnnl_unimplemented;
    }
    *lacks = status == dnnl_unimplemented && p->product != DK_XPU_PRODUCT_FLOAT;
    if (status != dnnl_success && !*lacks) {
        dk_xpu_dnnl_ok(m->xpu, status, "a linear layer");
    }
    return status == dnnl_success ? desc : NULL;
}

/* Operands go to the primitive in their order; it takes their descriptors over. */
static void hand_over(maker *m, dk_xpu_primitive *made)
{
    for (int i = 0; i < OPERANDS; i++) {
        if (m->has[i]) {
            bool weight = i == DK_XPU_LINEAR_WEIGHT;
            dk_xpu_primitive_operand(made, m->arg[i],
                                     weight ? dk_xpu_clone(made->weights) : m->desc[i]);
            m->desc[i] = NULL;
        }
    }
}

static dk_xpu_primitive *make(maker *m, const dk_xpu_key *key, bool *lacks)
{
    dk_xpu_primitive *made = NULL;
    describe_operands(m);
    append_tail(m);
    dnnl_primitive_desc_t desc =
        m->xpu->head.failed == DK_OK && set_attributes(m) ? describe(m, lacks) : NULL;
    if (desc != NULL) {
        dnnl_memory_desc_t weights =
            dk_xpu_clone(dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
        made = dk_xpu_primitive_add(m->xpu, key, desc);
        if (made != NULL) {
            made->weights = weights;
            hand_over(m, made);
        } else {
            dnnl_memory_desc_destroy(weights);
        }
    }
    for (int i = 0; i < OPERANDS; i++) {
        dnnl_memory_desc_destroy(m->desc[i]);
    }
    dnnl_primitive_attr_destroy(m->attr);
    dnnl_post_ops_destroy(m->ops);
    return made;
}

dk_xpu_primitive *dk_xpu_linear_primitive(dk_xpu *xpu, const dk_xpu_linear_plan *plan,
                                          bool *lacks)
{
    dk_xpu_key key = key_of(xpu, plan);
    dk_xpu_primitive *found = dk_xpu_primitive_find(xpu, &key);
    *lacks = false;
    if (found != NULL) {
        return found;
    }
    maker m = {.xpu = xpu, .plan = plan};
    dk_xpu_linear_operands(plan, m.has);
    return make(&m, &key, lacks);
}
