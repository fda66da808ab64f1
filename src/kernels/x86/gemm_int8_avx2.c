/* int8 micro-kernel of 6 rows by 16 columns on vpmaddwd: operands are widened to int16 while
   they are packed, and a unit is a pair of neighbours in k. */
#include <string.h>

#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/transpose_avx2.h"

enum { MR = 6, NR = 16, LANES = 8 };

#define TILE_REPEAT             DK_REPEAT_6
#define TILE_STEP               2
#define TILE_INT                1
#define TILE_PRODUCT(sum, a, b) ivec_add(sum, _mm256_madd_epi16(a, b))
#include "kernels/x86/gemm_tile_tmpl.h"

static inline ivec load_units(const int8_t *row, int64_t count)
{
    __m128i bytes;
    if (count >= 2 * LANES) {
        bytes = _mm_loadu_si128((const __m128i *)(const void *)row);
    } else {
        int8_t values[2 * LANES] = {0};
        memcpy(values, row, (size_t)count);
        bytes = _mm_loadu_si128((const __m128i *)(const void *)values);
    }
    return _mm256_cvtepi8_epi16(bytes);
}

#define UNIT    2
#define B_GROUP UNIT
#define EXCESS  0
#include "kernels/x86/gemm_int8_tmpl.h"

const dk_gemm_kernel dk_gemm_int8_avx2 = {
    .name = "avx2-int8-6x16",
    .type = DK_I16,
    .mr = MR,
    .nr = NR,
    .a_group = UNIT,
    .b_group = UNIT,
    .b_unit = UNIT,
    .slice = 1536,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
};
