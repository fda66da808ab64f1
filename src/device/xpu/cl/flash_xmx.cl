/* What flash_xmx16.cl and flash_xmx8.cl share. The instruction is that of the extension
   cl_intel_subgroup_matrix_multiply_accumulate; with DK_EMULATE_XMX it is computed by broadcasts
   instead, which shows on any device that operands lie as it wants them. */
#ifndef DK_XPU_CL_FLASH_XMX
#define DK_XPU_CL_FLASH_XMX

#include "flash.cl"

/* Elements `a` and `b` of a row, the first in the low half; zeros from `count` on. */
static inline int pair_at(global const bf16 *row, int a, int b, int count)
{
    return (int)((a < count ? (uint)row[a] : 0) | (b < count ? (uint)row[b] : 0) << 16);
}

#ifdef DK_EMULATE_XMX
#define MAD emulated_mad
#define DEFINE_MAD(operand, sums, rows, left)                                                  \
    static inline sums __attribute__((overloadable)) MAD(operand a, int8 b, sums c)            \
    {                                                                                          \
        for (int r = 0; r < rows; r++) {                                                       \
            for (int k = 0; k < 16; k++) {                                                     \
                bf16 y = (bf16)((uint)b[k / 2] >> k % 2 * 16);                                 \
                c[r] += f32_from_bf16(left(a[r], k)) * f32_from_bf16(y);                       \
            }                                                                                  \
        }                                                                                      \
        return c;                                                                              \
    }
#else
#define MAD intel_sub_group_bf16_bf16_matrix_mad_k16
#define DEFINE_MAD(operand, sums, rows, left)                                                  \
    sums __attribute__((overloadable, convergent)) MAD(operand a, int8 b, sums c);
#endif

#endif
