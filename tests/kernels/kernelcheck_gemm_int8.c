/* The matrix-multiply kernels of whole numbers by the definition in gemm.h; everything is
   exact. */
#include <string.h>

#include "kernels/kernelcheck.h"

static bool int8_is_new(const kc *k)
{
    dk_gemm_kernel kernels[KC_MOST_INT8_GEMMS];
    return kc_new_int8_gemms(k, kernels) > 0;
}

static void each_kernel(kc *k, void (*check)(kc *k, const dk_gemm_kernel *kernel))
{
    dk_gemm_kernel kernels[KC_MOST_INT8_GEMMS];
    int count = kc_new_int8_gemms(k, kernels);
    for (int i = 0; i < count; i++) {
        check(k, &kernels[i]);
    }
}

static const int64_t depths[] = {1,  2,  3,  4,  7,  8,  9,   15,  16,  17, 31,
                                 32, 33, 63, 64, 65, 96, 100, 127, 129, 257};

/* Element (i, line) of an operand of `ld` lines in groups of `group`. */
static int64_t place(int64_t i, int64_t line, int64_t ld, int group)
{
    return (i / group * ld + line) * group + i % group;
}

static int packed_at(const dk_gemm_kernel *kernel, const void *packed, int64_t at, int excess)
{
    if (kernel->type == DK_I16) {
        int16_t value;
        memcpy(&value, (const char *)packed + at * 2, sizeof value);
        return value - excess;
    }
    return excess != 0 ? ((const uint8_t *)packed)[at] - excess : ((const int8_t *)packed)[at];
}

static void pack_rows_case(kc *k, const dk_gemm_kernel *kernel, int64_t depth, int count)
{
    kc_case(k, 2, "%s, k %lld, %d rows", kernel->name, (long long)depth, count);
    while (kc_next_round(k)) {
        int64_t ld = count + kc_below(k, 4), stride = depth + kc_below(k, 3);
        const int8_t *src = kc_int8_operand(k, (count - 1) * stride + depth, true);
        const void *rows[DK_GEMM_PACK_ROWS];
        for (int m = 0; m < count; m++) {
            rows[m] = kc_below(k, 4) == 0 ? NULL : src + m * stride;
        }
        int64_t padded = dk_gemm_round_up(depth, kernel->a_group);
        int64_t elements = place(padded - kernel->a_group, count, ld, kernel->a_group);
        size_t width = dk_dtype_bytes(kernel->type);
        char *dst = kc_alloc(k, (size_t)elements * width);
        const char *before = kc_copy(k, dst, (size_t)elements * width);
        kernel->pack_rows(dst, ld, rows, DK_I8, count, depth);
        for (int64_t at = 0; at < elements; at++) {
            int64_t m = at / kernel->a_group % ld;
            int64_t i = at / kernel->a_group / ld * kernel->a_group + at % kernel->a_group;
            if (m >= count) {
                kc_untouched(k, dst, before, (size_t)at * width, (size_t)(at + 1) * width);
            } else {
                int want = rows[m] == NULL || i >= depth ? 0 : ((const int8_t *)rows[m])[i];
                kc_expect(k, at, packed_at(kernel, dst, at, kernel->a_excess), want, 0);
            }
        }
    }
}

static void pack_rows_of(kc *k, const dk_gemm_kernel *kernel)
{
    static const int counts[] = {1, 2, 5, 6, 8, 9, 14, 16};
    for (int d = 0; d < KC_COUNT(depths); d++) {
        for (int c = 0; c < KC_COUNT(counts); c++) {
            pack_rows_case(k, kernel, depths[d], counts[c]);
        }
    }
}

static void pack_rows(kc *k)
{
    each_kernel(k, pack_rows_of);
}

static void pack_weight_case(kc *k, const dk_gemm_kernel *kernel, int64_t depth, int cols)
{
    kc_case(k, 2, "%s, k %lld, %d columns", kernel->name, (long long)depth, cols);
    while (kc_next_round(k)) {
        int64_t ld = depth + kc_below(k, 5);
        const int8_t *src = kc_int8_operand(k, (cols - 1) * ld + depth, true);
        size_t bytes = (size_t)dk_gemm_b_bytes(kernel, depth);
        char *panel = kc_alloc(k, bytes);
        kernel->pack_weight(panel, src, DK_I8, ld, cols, depth);
        kc_result(k, panel, bytes);
        for (int n = 0; n < kernel->nr; n++) {
            int32_t sum = 0, header;
            for (int64_t i = 0; i < dk_gemm_round_up(depth, kernel->b_group); i++) {
                int want = i >= depth || n >= cols ? 0 : src[n * ld + i];
                int64_t at = place(i, n, kernel->nr, kernel->b_unit);
                kc_expect(k, at, packed_at(kernel, panel + kernel->b_header, at, 0), want, 0);
                sum += want;
            }
            if (kernel->b_header > 0) {
                memcpy(&header, panel + n * 4, sizeof header);
                kc_expect(k, n, header, -kernel->a_excess * sum, 0);
            }
        }
    }
}

static void pack_weight_of(kc *k, const dk_gemm_kernel *kernel)
{
    for (int d = 0; d < KC_COUNT(depths); d++) {
        pack_weight_case(k, kernel, depths[d], kernel->nr);
        pack_weight_case(k, kernel, depths[d], 1);
        pack_weight_case(k, kernel, depths[d], kernel->nr / 2 + 1);
        pack_weight_case(k, kernel, depths[d], kernel->nr - 1);
    }
}

static void pack_weight(kc *k)
{
    each_kernel(k, pack_weight_of);
}

typedef struct tile_case {
    int64_t depth;
    int parts;
    bool accumulate;
    int values; /* 0: any; 1: many at the ends; 2: all 127, columns of either sign */
} tile_case;

static int8_t *tile_operand(kc *k, const tile_case *c, int64_t lines, bool signs)
{
    int8_t *out = kc_int8_operand(k, lines * c->depth, c->values == 1);
    for (int64_t i = 0; c->values == 2 && i < lines * c->depth; i++) {
        out[i] = signs && i / c->depth % 2 != 0 ? -127 : 127;
    }
    return out;
}

/* The operands as the kernel packs them, which pack_rows and pack_weight check. */
static void *packed_a(kc *k, const dk_gemm_kernel *kernel, const int8_t *a, int64_t lines,
                      int64_t depth)
{
    char *data = kc_alloc(k, (size_t)dk_gemm_a_bytes(kernel, lines, depth));
    size_t unit = (size_t)kernel->a_group * dk_dtype_bytes(kernel->type);
    for (int64_t m = 0; m < lines; m++) {
        const void *row = a + m * depth;
        kernel->pack_rows(data + (size_t)m * unit, lines, &row, DK_I8, 1, depth);
    }
    return data;
}

static char *packed_b(kc *k, const dk_gemm_kernel *kernel, const int8_t *b, const tile_case *c)
{
    size_t panel = (size_t)dk_gemm_b_bytes(kernel, c->depth);
    char *out = kc_alloc(k, panel * (size_t)c->parts);
    for (int part = 0; part < c->parts; part++) {
        kernel->pack_weight(out + (size_t)part * panel, b + part * kernel->nr * c->depth, DK_I8,
                            c->depth, kernel->nr, c->depth);
    }
    return out;
}

static const int64_t offsets[] = {3, 0, 5};

static void expect_tile(kc *k, const dk_gemm_kernel *kernel, const tile_case *c,
                        const int8_t *a, const int8_t *b, int64_t row, const int32_t *got,
                        const int32_t *before, int64_t ldc)
{
    for (int m = 0; m < kernel->mr; m++) {
        for (int n = 0; n < kernel->nr; n++) {
            int64_t sum = c->accumulate ? before[m * ldc + n] : 0;
            for (int part = 0; part < c->parts; part++) {
                int64_t line = row + m + (c->parts > 1 ? offsets[part] : 0);
                const int8_t *left = a + line * c->depth;
                const int8_t *right = b + (part * kernel->nr + n) * c->depth;
                for (int64_t i = 0; i < c->depth; i++) {
                    sum += left[i] * right[i];
                }
            }
            kc_expect(k, m * ldc + n, got[m * ldc + n], (double)sum, 0);
        }
    }
}

static void tile_rounds(kc *k, const dk_gemm_kernel *kernel, const tile_case *c)
{
    kc_case(k, 2, "%s, k %lld, %d parts%s, values %d", kernel->name, (long long)c->depth,
            c->parts, c->accumulate ? ", accumulated" : "", c->values);
    while (kc_next_round(k)) {
        int64_t row = kc_below(k, 3), ld = row + kernel->mr + (c->parts > 1 ? 5 : 0);
        const int8_t *plain_a = tile_operand(k, c, ld, false);
        const int8_t *plain_b = tile_operand(k, c, (int64_t)kernel->nr * c->parts, true);
        const dk_gemm_a a = {.data = packed_a(k, kernel, plain_a, ld, c->depth),
                             .ld = ld,
                             .k = c->depth,
                             .parts = c->parts,
                             .offset = c->parts > 1 ? offsets : NULL};
        const char *b = packed_b(k, kernel, plain_b, c);
        int64_t ldc = kernel->nr + kc_below(k, 4);
        int64_t size = (kernel->mr - 1) * ldc + kernel->nr;
        int32_t *dst = kc_alloc(k, (size_t)size * sizeof *dst);
        for (int64_t i = 0; i < size; i++) {
            dst[i] = kc_below(k, 2000001) - 1000000;
        }
        const int32_t *before = kc_copy(k, dst, (size_t)size * sizeof *dst);
        dk_gemm_begin(kernel);
        kernel->tile((float *)(void *)dst, ldc, &a, row, b, c->accumulate);
        dk_gemm_end(kernel);
        kc_result(k, dst, (size_t)size * sizeof *dst);
        for (int64_t m = 1; m < kernel->mr; m++) {
            kc_untouched(k, dst, before, (size_t)((m - 1) * ldc + kernel->nr) * sizeof *dst,
                         (size_t)(m * ldc) * sizeof *dst);
        }
        if (k->round == 0) {
            expect_tile(k, kernel, c, plain_a, plain_b, row, dst, before, ldc);
        }
    }
}

static void tile_of(kc *k, const dk_gemm_kernel *kernel)
{
    const int64_t more[] = {kernel->slice - 1, kernel->slice, kernel->slice + 1};
    for (int d = 0; d < KC_COUNT(depths) + KC_COUNT(more); d++) {
        for (int bits = 0; bits < 12; bits++) {
            const tile_case c = {.depth = d < KC_COUNT(depths) ? depths[d]
                                                               : more[d - KC_COUNT(depths)],
                                 .parts = bits & 1 ? 3 : 1,
                                 .accumulate = (bits & 2) != 0,
                                 .values = bits / 4};
            tile_rounds(k, kernel, &c);
        }
    }
    tile_rounds(k, kernel, &(tile_case){.depth = DK_GEMM_INT8_DEPTH, .parts = 1, .values = 2});
}

static void tile(kc *k)
{
    each_kernel(k, tile_of);
}

static const kc_test tests[] = {
    {"gemm_int8.pack_rows", int8_is_new, pack_rows, false},
    {"gemm_int8.pack_weight", int8_is_new, pack_weight, false},
    {"gemm_int8.tile", int8_is_new, tile, false},
};

const kc_family kc_gemm_int8 = {tests, KC_COUNT(tests)};
