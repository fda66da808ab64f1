/* How linear layers are computed here: shared by linear.c and linear_primitive.c. */
#ifndef DK_DEVICE_XPU_LINEAR_H
#define DK_DEVICE_XPU_LINEAR_H

#include "device/xpu/quantize.h"
#include "device/xpu/xpu.h"

typedef enum dk_xpu_product {
    DK_XPU_PRODUCT_FLOAT,      /* operands of one float type */
    DK_XPU_PRODUCT_INT8,       /* whole numbers, a scale per row and per column */
    DK_XPU_PRODUCT_COMPRESSED, /* weights of fewer bits, scaled inside the product */
} dk_xpu_product;

typedef struct dk_xpu_linear_plan {
    const dk_linear_args *args;
    dk_xpu_product product;
    dk_dtype type; /* of the rows as they are multiplied: F32, BF16, I8 */
    bool casts;    /* src is cast (or quantised) into scratch first */
    bool wide;     /* the result goes to scratch as f32, the epilogue follows */
    dk_xpu_stored stored;
    dnnl_data_type_t weight_type; /* of the form that is asked for */
} dk_xpu_linear_plan;

/* Operands of the primitive in this order; those that a call lacks are left out. */
enum {
    DK_XPU_LINEAR_SRC,
    DK_XPU_LINEAR_DST,
    DK_XPU_LINEAR_WEIGHT,
    DK_XPU_LINEAR_BIAS,
    DK_XPU_LINEAR_COL_SCALE, /* [groups][cols] */
    DK_XPU_LINEAR_MULTIPLY,
    DK_XPU_LINEAR_GATE,
    DK_XPU_LINEAR_RESIDUAL,
    DK_XPU_LINEAR_OPERANDS
};
/* Which of them this plan's primitive has. */
void dk_xpu_linear_operands(const dk_xpu_linear_plan *plan, bool has[DK_XPU_LINEAR_OPERANDS]);

/* What follows a product whose f32 sums lie in scratch. row_scale: of whole numbers' rows,
   whose bias then is still to come; NULL: of floats, bias included. */
void dk_xpu_linear_finish(dk_xpu *xpu, const dk_linear_args *args, void *sums, void *row_scale);

/* The primitive of a plan; NULL when the device has none (*lacks, nothing is kept) or after a
   failure that is kept. */
dk_xpu_primitive *dk_xpu_linear_primitive(dk_xpu *xpu, const dk_xpu_linear_plan *plan,
                                          bool *lacks);

#endif
