/* What all kernels share: bf16 as it lies in memory, and activations as in kernels/linear.h. */
#ifndef DK_XPU_CL_COMMON_H
#define DK_XPU_CL_COMMON_H

#pragma OPENCL EXTENSION cl_khr_subgroups : enable

typedef ushort bf16;
typedef float f32;

static inline float f32_from_bf16(bf16 x)
{
    return as_float((uint)x << 16);
}

/* To the nearest, ties to even; NaN stays NaN. */
static inline bf16 bf16_from_f32(float x)
{
    uint bits = as_uint(x);
    uint rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bf16)(isnan(x) ? (bits >> 16 | 0x40) : rounded);
}

#define LOAD_f32(x)   (x)
#define STORE_f32(x)  (x)
#define LOAD_bf16(x)  f32_from_bf16(x)
#define STORE_bf16(x) bf16_from_f32(x)

enum { NONE, SILU, GELU_TANH }; /* dk_activation */

static inline float silu(float x)
{
    return x / (1.0f + exp(-x));
}

static inline float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

static inline float activate(float x, int activation)
{
    if (activation == SILU) {
        return silu(x);
    }
    return activation == GELU_TANH ? gelu_tanh(x) : x;
}

/* Lanes of a sub-group in kernels that give it one row. */
#define LANES                 16
#define ONE_ROW_PER_SUB_GROUP __attribute__((intel_reqd_sub_group_size(LANES)))

/* The row of this sub-group: the same for all of its lanes, which compilers must see. */
static inline int row_of_sub_group(void)
{
    return (int)(get_group_id(0) * get_num_sub_groups() + get_sub_group_id());
}

#endif
