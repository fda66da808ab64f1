/* int8 micro-kernel of 14 rows by 32 columns on vpmaddwd, for CPUs without VNNI: operands are
   widened to int16 while they are packed, and a unit is a pair of neighbours in k. */
#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/transpose_avx512.h"

enum { MR = 14, NR = 32, LANES = 16 };

#define TILE_REPEAT             DK_REPEAT_14
#define TILE_STEP               2
#define TILE_INT                1
#define TILE_PRODUCT(sum, a, b) ivec_add(sum, _mm512_madd_epi16(a, b))
#include "kernels/x86/gemm_tile_tmpl.h"

static inline ivec load_units(const int8_t *row, int64_t count)
{
    __mmask32 mask = count >= 2 * LANES ? 0xffffffffu : (1u << count) - 1;
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, row));
}

#define UNIT    2
#define B_GROUP UNIT
#define EXCESS  0
#include "kernels/x86/gemm_int8_tmpl.h"

const dk_gemm_kernel dk_gemm_int8_avx512 = {
    .name = "avx512-int8-14x32",
    .type = DK_I16,
    .mr = MR,
    .nr = NR,
    .a_group = UNIT,
    .b_group = UNIT,
    .b_unit = UNIT,
    .slice = 512,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
};
