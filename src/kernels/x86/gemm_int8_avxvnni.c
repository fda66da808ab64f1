/* int8 micro-kernel of 6 rows by 16 columns on vpdpbusd of 256 bits (AVX-VNNI): a unit is four
   neighbours in k, A without a sign. */
#include <string.h>

#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/transpose_avx2.h"

enum { MR = 6, NR = 16, LANES = 8 };

#define TILE_REPEAT             DK_REPEAT_6
#define TILE_STEP               4
#define TILE_INT                1
#define TILE_HEADER             1
#define TILE_PRODUCT(sum, a, b) _mm256_dpbusd_avx_epi32(sum, a, b)
#include "kernels/x86/gemm_tile_tmpl.h"

static inline ivec load_units(const int8_t *row, int64_t count)
{
    if (count >= 4 * LANES) {
        return ivec_load(row);
    }
    int8_t values[4 * LANES] = {0};
    memcpy(values, row, (size_t)count);
    return ivec_load(values);
}

#define UNIT    4
#define B_GROUP UNIT
#define EXCESS  128
#include "kernels/x86/gemm_int8_tmpl.h"

const dk_gemm_kernel dk_gemm_int8_avxvnni = {
    .name = "avxvnni-int8-6x16",
    .type = DK_I8,
    .mr = MR,
    .nr = NR,
    .a_group = UNIT,
    .b_group = UNIT,
    .b_unit = UNIT,
    .slice = 1536,
    .a_excess = EXCESS,
    .b_header = NR * (int)sizeof(int32_t),
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
};
