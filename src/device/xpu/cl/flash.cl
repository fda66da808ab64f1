/* Flash attention: K and V pass through local memory tile by tile, the softmax goes along with
   them, scores never reach global memory. kernels/attention.h says what is computed. To the base
   2; statistics and sums are f32.
   Source: Dao et al., "FlashAttention" (2022).
   The kernels' sizes keep local memory under 64 KiB, the least that GPUs have, and what a lane
   holds within its registers; attention_flash.c has the same ROWS and SUB_GROUPS. */
#ifndef DK_XPU_CL_FLASH
#define DK_XPU_CL_FLASH

#include "common.h"

#define UNROLL        __attribute__((opencl_unroll_hint))
/* For loads: all of a row at once would take the registers of the sums. */
#define FEW_AT_A_TIME __attribute__((opencl_unroll_hint(4)))
#define LOG2_E        1.44269504088896341f
#define LN_2          0.693147180559945309f
#define JOIN(a, b)    JOIN_(a, b)
#define JOIN_(a, b)   a##b

#endif
