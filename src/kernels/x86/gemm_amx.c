/* bf16 and int8 micro-kernels of 32 rows by 32 columns on AMX: four tiles of results, two of A,
   two of B. A lies in groups of 64 bytes, a row of a tile (32 elements of bf16, 64 of int8); B
   in units of 32 bits, which are pairs or fours of neighbours in k. Source:
   Intel, "Intrinsics for Advanced Matrix Extensions" and the Optimization Reference Manual,
   chapter on AMX. */
#include <string.h>

#include "kernels/x86/gemm_x86.h"
#include "kernels/x86/load_quads_avx512.h"
#include "kernels/x86/pack_bf16.h"

enum { MR = 32, NR = 32, LANES = 16, GROUP = 32, INT8_GROUP = 64 };
enum { ROWS = 16, ROW_BYTES = 64, TILES = 8 };

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

/* One tile; int8: over whole numbers. A constant at each call, and so no branch. */
static inline __attribute__((always_inline)) void any_tile(bool int8, float *c, int64_t ldc,
                                                           const dk_gemm_a *a, int64_t row,
                                                           const void *b, bool accumulate)
{
    const int64_t group = int8 ? INT8_GROUP : GROUP;
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
#define PRODUCT(sum, left, right)                                                              \
    do {                                                                                       \
        if (int8) {                                                                            \
            _tile_dpbssd(sum, left, right);                                                    \
        } else {                                                                               \
            _tile_dpbf16ps(sum, left, right);                                                  \
        }                                                                                      \
    } while (0)
    for (int part = 0; part < a->parts; part++) {
        int64_t first = row + (a->offset ? a->offset[part] : 0);
        const char *pa = (const char *)a->data + first * ROW_BYTES;
        for (int64_t i = 0; i < a->k; i += group) {
            _tile_loadd(4, pa, ROW_BYTES);
            _tile_loadd(6, pb, 2 * ROW_BYTES);
            _tile_loadd(7, pb + ROW_BYTES, 2 * ROW_BYTES);
            PRODUCT(0, 4, 6);
            PRODUCT(1, 4, 7);
            _tile_loadd(5, pa + ROWS * ROW_BYTES, ROW_BYTES);
            PRODUCT(2, 5, 6);
            PRODUCT(3, 5, 7);
            pa += a->ld * ROW_BYTES;
            pb += ROWS * 2 * ROW_BYTES;
        }
    }
#undef PRODUCT
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + ROWS, c_stride);
    _tile_stored(2, lower, c_stride);
    _tile_stored(3, lower + ROWS, c_stride);
}

static void tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                 bool accumulate)
{
    any_tile(false, c, ldc, a, row, b, accumulate);
}

static void int8_tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                      bool accumulate)
{
    any_tile(true, c, ldc, a, row, b, accumulate);
}

static void bf16_pack_rows(void *dst, int64_t ld, const void *const *src_rows,
                           dk_dtype src_type, int count, int64_t k)
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

static void bf16_pack_weight(void *panel, const void *w, dk_dtype w_type, int64_t ld, int cols,
                             int64_t k)
{
    dk_pack_weight_bf16(panel, w, w_type, ld, cols, k, padded_pairs(k));
}

static void bf16_pack_matrix(void *panel, const void *src, dk_dtype src_type, int64_t ld,
                             int cols, int64_t k)
{
    dk_pack_matrix_bf16(panel, src, src_type, ld, cols, k, padded_pairs(k));
}

/* The last rows of W or the end of k as a tile, from a copy with zeros behind. */
static void load_edge(const char *first, int64_t row_bytes, int rows, int64_t bytes)
{
    char edge[ROWS * ROW_BYTES] __attribute__((aligned(64))) = {0};
    bytes = bytes < ROW_BYTES ? bytes : ROW_BYTES;
    for (int r = 0; r < rows; r++) {
        memcpy(edge + r * ROW_BYTES, first + r * row_bytes, (size_t)bytes);
    }
    /* gcc's intrinsic does not name the memory that it reads. */
    __asm__ volatile("" : : "m"(edge) : "memory");
    _tile_loadd(4, edge, ROW_BYTES);
}

/* 16 rows of W by 32 of k as a tile, straight from memory. */
static inline void load_rows(const dk_gemm_rows *w, int n, int64_t i)
{
    int64_t bytes = (w->k - i) * (int64_t)sizeof(uint16_t);
    const char *first =
        (const char *)w->data + n * w->row_bytes + i * (int64_t)sizeof(uint16_t);
    int rows = w->count - n < ROWS ? w->count - n : ROWS;
    if (rows == ROWS && bytes >= ROW_BYTES) {
        _tile_loadd(4, first, (size_t)w->row_bytes);
    } else {
        load_edge(first, w->row_bytes, rows, bytes);
    }
}

/* W as the left operand, so that nothing of it is packed; C is [rows of W][NR]. */
static void direct(float *c, const dk_gemm_rows *w, const void *panel, int cols,
                   bool accumulate)
{
    const size_t c_stride = NR * sizeof(float);
    for (int n = 0; n < w->count; n += ROWS) {
        float *out = c + (int64_t)n * NR;
        const char *pb = panel;
        if (accumulate) {
            _tile_loadd(0, out, c_stride);
            _tile_loadd(1, out + LANES, c_stride);
        } else {
            _tile_zero(0);
            _tile_zero(1);
        }
        for (int64_t i = 0; i < w->k; i += GROUP, pb += ROWS * 2 * ROW_BYTES) {
            load_rows(w, n, i);
            _tile_loadd(6, pb, 2 * ROW_BYTES);
            _tile_dpbf16ps(0, 4, 6);
            if (cols > LANES) {
                _tile_loadd(7, pb + ROW_BYTES, 2 * ROW_BYTES);
                _tile_dpbf16ps(1, 4, 7);
            }
        }
        _tile_stored(0, out, c_stride);
        _tile_stored(1, out + LANES, c_stride);
    }
}

#define UNIT       4
#define B_GROUP    INT8_GROUP
#define EXCESS     0
#define load_units dk_load_quads
#include "kernels/x86/gemm_int8_tmpl.h"

static void int8_pack_rows(void *dst, int64_t ld, const void *const *src_rows,
                           dk_dtype src_type, int count, int64_t k)
{
    char *out = dst;
    assert(src_type == DK_I8);
    (void)src_type;
    for (int64_t i = 0; i < k; i += INT8_GROUP, out += ld * ROW_BYTES) {
        for (int m = 0; m < count; m++) {
            ivec_store(out + m * ROW_BYTES, load_line(src_rows[m], i, k - i));
        }
    }
}

const dk_gemm_kernel dk_gemm_bf16_amx = {
    .name = "amx-bf16-32x32",
    .type = DK_BF16,
    .mr = MR,
    .nr = NR,
    .a_group = GROUP,
    .b_group = GROUP,
    .b_unit = 2,
    .slice = 256,
    .packs_once = true,
    .begin = begin,
    .end = end,
    .tile = tile,
    .pack_rows = bf16_pack_rows,
    .pack_weight = bf16_pack_weight,
    .pack_matrix = bf16_pack_matrix,
    .direct = direct,
    .direct_most = 32,
};

const dk_gemm_kernel dk_gemm_int8_amx = {
    .name = "amx-int8-32x32",
    .type = DK_I8,
    .mr = MR,
    .nr = NR,
    .a_group = INT8_GROUP,
    .b_group = INT8_GROUP,
    .b_unit = UNIT,
    .slice = 1024,
    .begin = begin,
    .end = end,
    .tile = int8_tile,
    .pack_rows = int8_pack_rows,
    .pack_weight = pack_weight,
};
