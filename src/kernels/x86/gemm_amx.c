/* bf16 micro-kernel of 32 rows by 32 columns on AMX: four tiles of results, two of A, two of B.
   A lies in groups of 32 elements, a row of a tile; B as pairs of neighbours in k. Source:
   Intel, "Intrinsics for Advanced Matrix Extensions" and the Optimization Reference Manual,
   chapter on AMX. */
#include <string.h>

#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/pack_bf16.h"

enum { MR = 32, NR = 32, GROUP = 32, ROWS = 16, ROW_BYTES = 64, TILES = 8 };

/* Tiles 0 to 3: results, row by row; 4 and 5: A; 6 and 7: B. */
static void begin(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < TILES; i++) {
        config.row_bytes[i] = ROW_BYTES;
        config.rows[i] = ROWS;
    }
    /* gcc's intrinsic names only the first bytes as its input: the others must be there too. */
    __asm__ volatile("" : : "m"(config) : "memory");
    _tile_loadconfig(&config);
}

static void end(void)
{
    _tile_release();
}

static void tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                 bool accumulate)
{
    const char *pb = b;
    size_t c_stride = (size_t)ldc * sizeof(float);
    float *lower = c + ROWS * ldc;
    if (accumulate) {
        _tile_loadd(0, c, c_stride);
        _tile_loadd(1, c + ROWS, c_stride);
        _tile_loadd(2, lower, c_stride);
        _tile_loadd(3, lower + ROWS, c_stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int part = 0; part < a->parts; part++) {
        int64_t first = row + (a->offset ? a->offset[part] : 0);
        const char *pa = (const char *)a->data + first * ROW_BYTES;
        for (int64_t i = 0; i < a->k; i += GROUP) {
            _tile_loadd(4, pa, ROW_BYTES);
            _tile_loadd(6, pb, 2 * ROW_BYTES);
            _tile_loadd(7, pb + ROW_BYTES, 2 * ROW_BYTES);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, pa + ROWS * ROW_BYTES, ROW_BYTES);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
            pa += a->ld * ROW_BYTES;
            pb += ROWS * 2 * ROW_BYTES;
        }
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + ROWS, c_stride);
    _tile_stored(2, lower, c_stride);
    _tile_stored(3, lower + ROWS, c_stride);
}

static void pack_rows(void *dst, int64_t ld, const void *const *src_rows, dk_dtype src_type,
                      int count, int64_t k)
{
    char *out = dst;
    for (int64_t i = 0; i < k; i += GROUP, out += ld * ROW_BYTES) {
        for (int m = 0; m < count; m++) {
            _mm512_storeu_si512(out + m * ROW_BYTES,
                                dk_load_pairs(src_rows[m], src_type, i, k - i));
        }
    }
}

static int64_t padded_pairs(int64_t k)
{
    return (k + GROUP - 1) / GROUP * GROUP / 2;
}

static void pack_weight(void *panel, const void *w, dk_dtype w_type, int64_t ld, int cols,
                        int64_t k)
{
    dk_pack_weight_bf16(panel, w, w_type, ld, cols, k, padded_pairs(k));
}

static void pack_matrix(void *panel, const void *src, dk_dtype src_type, int64_t ld, int cols,
                        int64_t k)
{
    dk_pack_matrix_bf16(panel, src, src_type, ld, cols, k, padded_pairs(k));
}

const dk_gemm_kernel dk_gemm_bf16_amx = {
    .name = "amx-bf16-32x32",
    .type = DK_BF16,
    .mr = MR,
    .nr = NR,
    .a_group = GROUP,
    .b_group = GROUP,
    .b_unit = 2,
    .slice = 512,
    .begin = begin,
    .end = end,
    .tile = tile,
    .pack_rows = pack_rows,
    .pack_weight = pack_weight,
    .pack_matrix = pack_matrix,
};
