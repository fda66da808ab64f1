/* int8 micro-kernel of 14 rows by 32 columns on vpdpbusd: a unit is four neighbours in k, A
   without a sign. */
#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/load_quads_avx512.h"
#include "kernels/x86/transpose_avx512.h"

enum { MR = 14, NR = 32, LANES = 16 };

#define TILE_REPEAT             DK_REPEAT_14
#define TILE_STEP               4
#define TILE_INT                1
#define TILE_HEADER             1
#define TILE_PRODUCT(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#include "kernels/x86/gemm_tile_tmpl.h"

#define UNIT       4
#define B_GROUP    UNIT
#define EXCESS     128
#define load_units dk_load_quads
#include "kernels/x86/gemm_int8_tmpl.h"

const dk_gemm_kernel dk_gemm_int8_avx512vnni = {
    .name = "avx512vnni-int8-14x32",
    .type = DK_I8,
    .mr = MR,
    .nr = NR,
    .a_group = UNIT,
    .b_group = UNIT,
    .b_unit = UNIT,
    .slice = 1024,
    .a_excess = EXCESS,
    .b_header = NR * (int)sizeof(int32_t),
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
};
