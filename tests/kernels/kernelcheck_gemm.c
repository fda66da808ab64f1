/* The matrix-multiply kernels by the definition in gemm.h: their tiles, and the three ways of
   packing, whose results are exact. */
#include <math.h>
#include <string.h>

#include "kernels/kernelcheck.h"
#include "tensor/convert.h"

static bool gemm_is_new(const kc *k)
{
    dk_gemm_kernel kernels[KC_MOST_GEMMS];
    return kc_new_gemms(k, kernels) > 0;
}

static void each_kernel(kc *k, void (*check)(kc *k, const dk_gemm_kernel *kernel))
{
    dk_gemm_kernel kernels[KC_MOST_GEMMS];
    int count = kc_new_gemms(k, kernels);
    for (int i = 0; i < count; i++) {
        check(k, &kernels[i]);
    }
}

/* Element (i, line) of an operand of `ld` lines in groups of `group`. */
static int64_t place(int64_t i, int64_t line, int64_t ld, int group)
{
    return (i / group * ld + line) * group + i % group;
}

static void expect_packed(kc *k, const dk_gemm_kernel *kernel, const void *packed, int64_t at,
                          double want)
{
    /* Packing rounds once and exactly; instructions for bf16 flush denormals. */
    double rounded = kc_rounded(want, kernel->type);
    kc_expect(k, at, kc_get(packed, kernel->type, at), rounded,
              kernel->type == DK_BF16 ? KC_TINY : 0.0);
}

static const int64_t depths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 101};

static void pack_rows_case(kc *k, const dk_gemm_kernel *kernel, dk_dtype type, int64_t depth,
                           int count)
{
    kc_case(k, 2, "%s, %s, k %lld, %d rows", kernel->name, dk_dtype_name(type),
            (long long)depth, count);
    while (kc_next_round(k)) {
        int64_t ld = count + kc_below(k, 4), stride = depth + kc_below(k, 3);
        const char *src = kc_operand(k, type, (count - 1) * stride + depth, KC_WILD);
        const void *rows[DK_GEMM_PACK_ROWS];
        for (int m = 0; m < count; m++) {
            const char *row = src + (size_t)(m * stride) * dk_dtype_bytes(type);
            rows[m] = kc_below(k, 4) == 0 ? NULL : row;
        }
        int64_t padded = dk_gemm_round_up(depth, kernel->a_group);
        /* dst is the first `count` of ld rows: the last group ends with them. */
        int64_t elements = place(padded - kernel->a_group, count, ld, kernel->a_group);
        size_t width = dk_dtype_bytes(kernel->type);
        char *dst = kc_alloc(k, (size_t)elements * width);
        const char *before = kc_copy(k, dst, (size_t)elements * width);
        kernel->pack_rows(dst, ld, rows, type, count, depth);
        for (int64_t at = 0; at < elements; at++) {
            int64_t m = at / kernel->a_group % ld;
            int64_t i = at / kernel->a_group / ld * kernel->a_group + at % kernel->a_group;
            if (m >= count) {
                kc_untouched(k, dst, before, (size_t)at * width, (size_t)(at + 1) * width);
            } else {
                bool zero = rows[m] == NULL || i >= depth;
                expect_packed(k, kernel, dst, at, zero ? 0.0 : kc_get(rows[m], type, i));
            }
        }
    }
}

static void pack_rows_of(kc *k, const dk_gemm_kernel *kernel)
{
    static const int counts[] = {1, 2, 5, 8, 9, 14, 16};
    for (int d = 0; d < KC_COUNT(depths); d++) {
        for (int c = 0; c < KC_COUNT(counts); c++) {
            pack_rows_case(k, kernel, DK_F32, depths[d], counts[c]);
            pack_rows_case(k, kernel, DK_BF16, depths[d], counts[c]);
        }
    }
}

static void pack_rows(kc *k)
{
    each_kernel(k, pack_rows_of);
}

/* A B panel of W's rows, or of a matrix as it lies. */
static void panel_case(kc *k, const dk_gemm_kernel *kernel, dk_dtype type, int64_t depth,
                       int cols, bool matrix)
{
    kc_case(k, 2, "%s, %s, k %lld, %d columns", kernel->name, dk_dtype_name(type),
            (long long)depth, cols);
    while (kc_next_round(k)) {
        int64_t lines = matrix ? depth : cols, length = matrix ? cols : depth;
        int64_t ld = length + kc_below(k, 5);
        const void *src = kc_operand(k, type, (lines - 1) * ld + length, KC_WILD);
        size_t bytes = (size_t)dk_gemm_b_bytes(kernel, depth);
        void *panel = kc_alloc(k, bytes);
        if (matrix) {
            kernel->pack_matrix(panel, src, type, ld, cols, depth);
        } else {
            kernel->pack_weight(panel, src, type, ld, cols, depth);
        }
        kc_result(k, panel, bytes);
        for (int64_t i = 0; i < dk_gemm_round_up(depth, kernel->b_group); i++) {
            for (int n = 0; n < kernel->nr; n++) {
                int64_t from = matrix ? i * ld + n : n * ld + i;
                bool zero = i >= depth || n >= cols;
                expect_packed(k, kernel, panel, place(i, n, kernel->nr, kernel->b_unit),
                              zero ? 0.0 : kc_get(src, type, from));
            }
        }
    }
}

static void panels_of(kc *k, const dk_gemm_kernel *kernel, bool matrix)
{
    static const dk_dtype types[] = {DK_F32, DK_BF16};
    for (int d = 0; d < KC_COUNT(depths); d++) {
        for (int t = 0; t < KC_COUNT(types); t++) {
            panel_case(k, kernel, types[t], depths[d], kernel->nr, matrix);
            panel_case(k, kernel, types[t], depths[d], 1, matrix);
            panel_case(k, kernel, types[t], depths[d], kernel->nr / 2 + 1, matrix);
            panel_case(k, kernel, types[t], depths[d], kernel->nr - 1, matrix);
        }
    }
}

static void pack_weight_of(kc *k, const dk_gemm_kernel *kernel)
{
    panels_of(k, kernel, false);
}

static void pack_weight(kc *k)
{
    each_kernel(k, pack_weight_of);
}

static void pack_matrix_of(kc *k, const dk_gemm_kernel *kernel)
{
    panels_of(k, kernel, true);
}

static void pack_matrix(kc *k)
{
    each_kernel(k, pack_matrix_of);
}

/* Zeros where an operand of `lines` lines, whose neighbours in k lie together by `unit`, is
   padded to a multiple of `group`. */
static void pad(void *operand, const dk_gemm_kernel *kernel, int64_t lines, int unit, int group,
                int64_t depth)
{
    size_t width = dk_dtype_bytes(kernel->type);
    for (int64_t i = depth; i < dk_gemm_round_up(depth, group); i++) {
        for (int64_t line = 0; line < lines; line++) {
            memset((char *)operand + (size_t)place(i, line, lines, unit) * width, 0, width);
        }
    }
}

typedef struct tile_case {
    int64_t depth;
    int parts;
    bool accumulate;
    kc_values values;
} tile_case;

static void expect_tile(kc *k, const dk_gemm_kernel *kernel, const tile_case *c,
                        const dk_gemm_a *a, int64_t row, const char *b, const float *got,
                        const float *before, int64_t ldc)
{
    /* A denormal that is flushed was to be multiplied by up to 2^40. */
    double flushed = (double)(c->depth * c->parts) * KC_TINY * 0x1p40;
    for (int m = 0; m < kernel->mr; m++) {
        for (int n = 0; n < kernel->nr; n++) {
            if (!kc_looks_at(k, m * 3 + n)) {
                continue;
            }
            double sum = c->accumulate ? (double)before[m * ldc + n] : 0.0, all = fabs(sum);
            for (int part = 0; part < c->parts; part++) {
                const char *panel = b + part * dk_gemm_b_bytes(kernel, c->depth);
                int64_t line = row + m + (a->offset != NULL ? a->offset[part] : 0);
                for (int64_t i = 0; i < c->depth; i++) {
                    double x =
                        kc_get(a->data, kernel->type, place(i, line, a->ld, kernel->a_group));
                    double y =
                        kc_get(panel, kernel->type, place(i, n, kernel->nr, kernel->b_unit));
                    sum += x * y;
                    all += fabs(x * y);
                }
            }
            double allowed = kc_growth(c->depth * c->parts + 1) * KC_U32 * all;
            kc_expect(k, m * ldc + n, (double)got[m * ldc + n], sum,
                      allowed + (kernel->type == DK_BF16 ? flushed : KC_TINY));
        }
    }
}

static void tile_rounds(kc *k, const dk_gemm_kernel *kernel, const tile_case *c)
{
    kc_case(k, 2, "%s, k %lld, %d parts%s, values %d", kernel->name, (long long)c->depth,
            c->parts, c->accumulate ? ", accumulated" : "", (int)c->values);
    while (kc_next_round(k)) {
        static const int64_t offsets[] = {3, 0, 5};
        int64_t row = kc_below(k, 3), ld = row + kernel->mr + (c->parts > 1 ? 5 : 0);
        int64_t a_count =
            dk_gemm_a_bytes(kernel, ld, c->depth) / (int64_t)dk_dtype_bytes(kernel->type);
        size_t panel = (size_t)dk_gemm_b_bytes(kernel, c->depth);
        int64_t b_count = (int64_t)(panel / dk_dtype_bytes(kernel->type));
        void *data = kc_operand(k, kernel->type, a_count, c->values);
        char *b = kc_operand(k, kernel->type, b_count * c->parts, c->values);
        pad(data, kernel, ld, kernel->a_group, kernel->a_group, c->depth);
        for (int part = 0; part < c->parts; part++) {
            pad(b + (size_t)part * panel, kernel, kernel->nr, kernel->b_unit, kernel->b_group,
                c->depth);
        }
        const dk_gemm_a a = {.data = data,
                             .ld = ld,
                             .k = c->depth,
                             .parts = c->parts,
                             .offset = c->parts > 1 ? offsets : NULL};
        int64_t ldc = kernel->nr + kc_below(k, 4);
        int64_t size = (kernel->mr - 1) * ldc + kernel->nr;
        float *dst = kc_operand(k, DK_F32, size, c->values);
        const float *before = kc_copy(k, dst, (size_t)size * sizeof *dst);
        dk_gemm_begin(kernel);
        kernel->tile(dst, ldc, &a, row, b, c->accumulate);
        dk_gemm_end(kernel);
        kc_result(k, dst, (size_t)size * sizeof *dst);
        for (int64_t m = 1; m < kernel->mr; m++) {
            kc_untouched(k, dst, before, (size_t)((m - 1) * ldc + kernel->nr) * sizeof *dst,
                         (size_t)(m * ldc) * sizeof *dst);
        }
        if (k->round == 0) {
            expect_tile(k, kernel, c, &a, row, b, dst, before, ldc);
        }
    }
}

static void tile_of(kc *k, const dk_gemm_kernel *kernel)
{
    const int64_t more[] = {kernel->slice - 1, kernel->slice, kernel->slice + 1};
    for (int d = 0; d < KC_COUNT(depths) + KC_COUNT(more); d++) {
        for (int bits = 0; bits < 8; bits++) {
            const tile_case c = {.depth = d < KC_COUNT(depths) ? depths[d]
                                                               : more[d - KC_COUNT(depths)],
                                 .parts = bits & 1 ? 3 : 1,
                                 .accumulate = (bits & 2) != 0,
                                 .values = bits & 4 ? KC_HARD : KC_ORDINARY};
            tile_rounds(k, kernel, &c);
        }
    }
    if (kernel->type == DK_F32) { /* a bf16 denormal, flushed, times infinity is NaN */
        tile_rounds(k, kernel, &(tile_case){.depth = 5, .parts = 1, .values = KC_WILD});
    }
}

static void tile(kc *k)
{
    each_kernel(k, tile_of);
}

static const kc_test tests[] = {
    {"gemm.pack_rows", gemm_is_new, pack_rows, false},
    {"gemm.pack_weight", gemm_is_new, pack_weight, false},
    {"gemm.pack_matrix", gemm_is_new, pack_matrix, false},
    {"gemm.tile", gemm_is_new, tile, false},
};

const kc_family kc_gemm = {tests, KC_COUNT(tests)};
