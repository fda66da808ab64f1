/* Flash attention: K and V pass through local memory tile by tile, the softmax goes along with
   them, scores never reach global memory. kernels/attention.h says what is computed. To the base
   2; statistics and sums are f32.
   Source: Dao et al., "FlashAttention" (2022).
   The sizes keep local memory under 64 KiB, the least that GPUs have; attention_flash.c has the
   same ROWS * SUB_GROUPS. */
#include "common.h"

#define UNROLL __attribute__((opencl_unroll_hint))
#define LOG2_E 1.44269504088896341f
#define LN_2   0.693147180559945309f

#define TYPE  f32
#define LOAD  LOAD_f32
#define STORE STORE_f32

#define FLASH      flash_f32_64
#define HEAD       64
#define ROWS       8
#define SUB_GROUPS 8
#define KEYS       32
#include "flash_tmpl.cl"

#define FLASH      flash_f32_128
#define HEAD       128
#define ROWS       4
#define SUB_GROUPS 16
#define KEYS       32
#include "flash_tmpl.cl"

#define FLASH      flash_f32_256
#define HEAD       256
#define ROWS       2
#define SUB_GROUPS 16
#define KEYS       16
#include "flash_tmpl.cl"

#define FLASH      flash_f32_512
#define HEAD       512
#define ROWS       1
#define SUB_GROUPS 16
#define KEYS       16
#include "flash_tmpl.cl"

#undef TYPE
#undef LOAD
#undef STORE
#define TYPE  bf16
#define LOAD  LOAD_bf16
#define STORE STORE_bf16

#define FLASH      flash_bf16_64
#define HEAD       64
#define ROWS       8
#define SUB_GROUPS 8
#define KEYS       32
#include "flash_tmpl.cl"

#define FLASH      flash_bf16_128
#define HEAD       128
#define ROWS       4
#define SUB_GROUPS 16
#define KEYS       32
#include "flash_tmpl.cl"

#define FLASH      flash_bf16_256
#define HEAD       256
#define ROWS       2
#define SUB_GROUPS 16
#define KEYS       16
#include "flash_tmpl.cl"

#define FLASH      flash_bf16_512
#define HEAD       512
#define ROWS       1
#define SUB_GROUPS 16
#define KEYS       16
#include "flash_tmpl.cl"
