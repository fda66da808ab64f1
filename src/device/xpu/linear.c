/* Linear layers: a matrix product of oneDNN with its epilogue fused, or, where the device lacks
   a type, one whose f32 result a kernel of ours finishes. */
#include "device/xpu/linear.h"

#include "device/xpu/own_products.h"
#include "device/xpu/trust.h"

static dk_xpu_linear_plan plan_of(const dk_xpu *xpu, const dk_linear_args *args)
{
    dk_dtype type = dk_xpu_compute_type(xpu);
    dk_xpu_linear_plan p = {.args = args,
                            .type = type,
                            .weight_type = dk_xpu_dnnl_type(type),
                            .wide = type == DK_F32 && args->dst_type != DK_F32,
                            .stored = {.host = args->weight,
                                       .type = args->weight_type,
                                       .rank = 2,
                                       .dims = {args->depth, args->cols},
                                       .strides = {1, args->depth}}};
    if (args->quantized != NULL) {
        const dk_xpu_quantized *weight = dk_xpu_quantized_of(args->quantized);
        bool whole = weight->kind == DK_QUANTIZATION_INT8;
        p.stored = weight->stored;
        if (!xpu->lacks[weight->kind]) {
            p.wide = p.wide || whole;
            p.product = whole ? DK_XPU_PRODUCT_INT8 : DK_XPU_PRODUCT_COMPRESSED;
            p.type = whole ? DK_I8 : type;
            p.weight_type = dk_xpu_quantized_type(weight->kind);
        }
    }
    p.casts = args->src_type != p.type;
    return p;
}

/* From now on this kind is multiplied in floats. */
static void give_up(dk_xpu *xpu, dk_xpu_linear_plan *plan, const char *why)
{
    dk_quantization kind = dk_xpu_quantized_of(plan->args->quantized)->kind;
    xpu->lacks[kind] = true;
    dk_log_warn(
        xpu->log,
        "%s: %s of %s here: the same numbers are kept and multiplied as %s, which saves "
        "no memory",
        xpu->head.description, why, dk_quantization_name(kind),
        dk_dtype_name(dk_xpu_compute_type(xpu)));
    *plan = plan_of(xpu, plan->args);
}

static dk_xpu_primitive *primitive_of(dk_xpu *xpu, dk_xpu_linear_plan *plan)
{
    bool lacks = false;
    dk_xpu_primitive *primitive = dk_xpu_linear_primitive(xpu, plan, &lacks);
    if (primitive == NULL && lacks) {
        give_up(xpu, plan, "oneDNN has no fast products");
        primitive = dk_xpu_linear_primitive(xpu, plan, &lacks);
    }
    return primitive;
}

/* The rows that the product reads, and their scales when they are whole numbers. */
static void *rows_of(dk_xpu *xpu, const dk_xpu_linear_plan *p, void **scales)
{
    const dk_linear_args *a = p->args;
    if (!p->casts) {
        return xpu->head.dry ? NULL : dk_xpu_operand(xpu, a->src);
    }
    void *copy = dk_xpu_scratch(xpu, (size_t)(a->rows * a->depth) * dk_dtype_bytes(p->type));
    if (p->type == DK_I8) {
        *scales = dk_xpu_scratch(xpu, (size_t)a->rows * sizeof(float));
        dk_xpu_quantize_rows(xpu, copy, *scales, a->src, a->src_type, a->rows, a->depth,
                             a->src_stride);
    } else {
        dk_xpu_cast(xpu, copy, p->type, a->src, a->src_type, a->rows, a->depth, a->src_stride);
    }
    return copy;
}

void dk_xpu_linear_finish(dk_xpu *xpu, const dk_linear_args *a, void *sums, void *row_scale)
{
    dk_xpu_epilogue(xpu, &(dk_xpu_epilogue_args){.sums = sums,
                                                 .row_scale = row_scale,
                                                 .bias = row_scale != NULL ? a->bias : NULL,
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

/* Device addresses of the primitive's operands, in its order. */
static void name_operands(dk_xpu *xpu, const dk_xpu_linear_plan *p,
                          void *known[DK_XPU_LINEAR_OPERANDS],
                          void *addresses[DK_XPU_MOST_OPERANDS])
{
    const dk_linear_args *a = p->args;
    bool has[DK_XPU_LINEAR_OPERANDS];
    const void *named[DK_XPU_LINEAR_OPERANDS] = {
        [DK_XPU_LINEAR_DST] = a->dst,
        [DK_XPU_LINEAR_BIAS] = a->bias,
        [DK_XPU_LINEAR_COL_SCALE] = p->product != DK_XPU_PRODUCT_FLOAT
                                        ? dk_xpu_quantized_of(a->quantized)->scales
                                        : NULL,
        [DK_XPU_LINEAR_MULTIPLY] = a->multiply,
        [DK_XPU_LINEAR_GATE] = a->gate,
        [DK_XPU_LINEAR_RESIDUAL] = a->residual};
    int count = 0;
    dk_xpu_linear_operands(p, has);
    for (int i = 0; i < DK_XPU_LINEAR_OPERANDS; i++) {
        if (has[i]) {
            addresses[count++] = known[i] != NULL ? known[i] : dk_xpu_operand(xpu, named[i]);
        }
    }
}

/* The primitive and its weight, checked; false after a failure. */
static bool prepare(dk_xpu *xpu, dk_xpu_linear_plan *p, dk_xpu_primitive **primitive,
                    dk_xpu_form **form)
{
    *primitive = primitive_of(xpu, p);
    if (xpu->head.plans_only) { /* no weight is needed, and none is there */
        return *primitive != NULL;
    }
    *form =
        *primitive != NULL ? dk_xpu_weight_in(xpu, &p->stored, (*primitive)->weights) : NULL;
    bool there = *form == NULL || !(*form)->passing || !xpu->head.dry;
    if (*form != NULL && !(*primitive)->checked && !xpu->checks && !xpu->unchecked && there) {
        dk_xpu_check_linear(xpu, *primitive, *form, &p->stored, p->args);
    }
    if (*form != NULL && (*primitive)->wrong && p->product != DK_XPU_PRODUCT_FLOAT) {
        give_up(xpu, p, "oneDNN gives wrong products");
        return prepare(xpu, p, primitive, form);
    }
    return *form != NULL;
}

static void run(dk_xpu *xpu, const dk_linear_args *a)
{
    dk_xpu_linear_plan p = plan_of(xpu, a);
    dk_xpu_primitive *primitive = NULL;
    dk_xpu_form *form = NULL;
    void *known[DK_XPU_LINEAR_OPERANDS] = {0}, *addresses[DK_XPU_MOST_OPERANDS] = {0};
    bool plans = xpu->head.plans_only, own = xpu->head.careful && !plans;
    if (!own && !prepare(xpu, &p, &primitive, &form)) {
        return;
    }
    if (own || (primitive != NULL && primitive->wrong)) {
        dk_xpu_own_linear(xpu, a, &p.stored);
        return;
    }
    void *row_scale = NULL;
    known[DK_XPU_LINEAR_SRC] = rows_of(xpu, &p, &row_scale);
    if (p.wide) {
        known[DK_XPU_LINEAR_DST] =
            dk_xpu_scratch(xpu, (size_t)(a->rows * a->cols) * sizeof(float));
    }
    if (plans) {
        dk_xpu_execute(xpu, primitive, NULL, NULL);
        return;
    }
    known[DK_XPU_LINEAR_WEIGHT] = dk_xpu_form_begin(xpu, form);
    if (known[DK_XPU_LINEAR_WEIGHT] == NULL && !xpu->head.dry) {
        return;
    }
    if (!xpu->head.dry) {
        name_operands(xpu, &p, known, addresses);
    }
    DPCTLSyclEventRef event = NULL;
    dk_xpu_execute(xpu, primitive, addresses, dk_xpu_form_moves(form) ? &event : NULL);
    dk_xpu_form_end(xpu, form, event);
    if (dk_xpu_spoils(xpu, &p.stored, a->gate != NULL)) {
        dk_xpu_spoil(xpu, addresses[DK_XPU_LINEAR_DST], p.wide ? DK_F32 : a->dst_type);
    }
    if (p.wide) {
        dk_xpu_linear_finish(xpu, a, known[DK_XPU_LINEAR_DST], row_scale);
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
