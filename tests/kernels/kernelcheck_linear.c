/* Linear layers: the path of few rows, the epilogue, and whole layers under plans for several
   numbers of threads. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/grouped_gemm.h"
#include "kernels/kernelcheck.h"
#include "kernels/kernelcheck_device.h"
#include "tensor/convert.h"

static void tables(const kc *k, dk_linear_kernels *now, dk_linear_kernels *before)
{
    dk_linear_kernels_init(now, k->flags);
    dk_linear_kernels_init(before, k->below);
}

static bool store_is_new(const kc *k)
{
    dk_linear_kernels now, before;
    tables(k, &now, &before);
    return k->lowest || now.store != before.store;
}

static bool any_is_new(const kc *k)
{
    dk_gemm_kernel gemms[KC_MOST_GEMMS];
    return store_is_new(k) || kc_new_gemms(k, gemms) > 0;
}

static const dk_dtype stored[] = {DK_F32, DK_BF16, DK_F16, DK_F64, DK_F8_E4M3, DK_F8_E5M2};

/* What follows the product, as one number: every combination there is. */
enum { EPILOGUES = 2 * 3 * 2 * 3 * 3 * 2 };

typedef struct linear_case {
    int64_t rows, cols, depth;
    dk_dtype src, weight;
    int epilogue;
    kc_values values;
} linear_case;

/* Operands behind the product, and dst. */
static void set_epilogue(kc *k, dk_linear_args *a, const linear_case *c)
{
    int e = c->epilogue;
    const bool bias = e % 2, multiply = e / 6 % 2;
    const int activation = e / 2 % 3, gate = e / 12 % 3, residual = e / 36 % 3;
    a->dst_type = e / 108 % 2 ? DK_BF16 : DK_F32;
    a->dst_stride = c->cols + kc_below(k, 4);
    int64_t count = (c->rows - 1) * a->dst_stride + c->cols;
    a->activation = (dk_activation)activation;
    a->bias = bias ? kc_operand(k, DK_F32, c->cols, c->values) : NULL;
    a->multiply = multiply ? kc_operand(k, a->dst_type, count, KC_HARD) : NULL;
    if (gate > 0) {
        a->gate_stride = gate == 1 ? 0 : c->cols + 1;
        int64_t gates = (c->rows - 1) * a->gate_stride + c->cols;
        a->gate = kc_operand(k, DK_F32, gates, KC_ORDINARY);
    }
    a->dst = kc_operand(k, a->dst_type, count, KC_ORDINARY);
    a->residual = residual == 0   ? NULL
                  : residual == 1 ? a->dst
                                  : kc_operand(k, a->dst_type, count, KC_HARD);
}

static void set_product(kc *k, dk_linear_args *a, const linear_case *c)
{
    *a = (dk_linear_args){.rows = c->rows,
                          .cols = c->cols,
                          .depth = c->depth,
                          .src_type = c->src,
                          .src_stride = c->depth + kc_below(k, 3),
                          .weight_type = c->weight};
    int64_t count = (c->rows - 1) * a->src_stride + c->depth;
    a->src = kc_operand(k, c->src, count, c->values);
    a->weight = kc_operand(k, c->weight, c->cols * c->depth, c->values);
    set_epilogue(k, a, c);
}

static size_t dst_bytes(const dk_linear_args *a)
{
    return (size_t)((a->rows - 1) * a->dst_stride + a->cols) * dk_dtype_bytes(a->dst_type);
}

/* Elements of dst outside the columns [n0, n1) of the rows [m0, m1) are as before. */
static void expect_rest(kc *k, const dk_linear_args *a, const void *before, int64_t m0,
                        int64_t m1, int64_t n0, int64_t n1)
{
    size_t width = dk_dtype_bytes(a->dst_type), end = 0;
    for (int64_t m = m0; m < m1; m++) {
        kc_untouched(k, a->dst, before, end, (size_t)(m * a->dst_stride + n0) * width);
        end = (size_t)(m * a->dst_stride + n1) * width;
    }
    kc_untouched(k, a->dst, before, end, dst_bytes(a));
}

static void expect_element(kc *k, const dk_linear_args *a, const void *before, int64_t m,
                           int64_t n, kc_value sum)
{
    kc_value want = kc_epilogue(a, before, m, n, sum);
    int64_t at = m * a->dst_stride + n;
    kc_expect(k, at, kc_get(a->dst, a->dst_type, at), want.y, want.error);
}

/* The columns [n0, n1) of all rows, with operands rounded to the panels' type. */
static void expect_product(kc *k, const dk_linear_args *a, const void *before, dk_dtype panels,
                           int64_t n0, int64_t n1)
{
    int64_t count = (a->rows - 1) * a->src_stride + a->depth;
    const double *src = kc_plain(k, a->src, a->src_type, count, panels);
    const double *weight = kc_plain(k, a->weight, a->weight_type, a->cols * a->depth, panels);
    /* bf16 instructions flush denormals, which were to be multiplied by up to 2^40. */
    double flushed = panels == DK_BF16 ? (double)a->depth * KC_TINY * 0x1p40 : KC_TINY;
    for (int64_t m = 0; m < a->rows; m++) {
        for (int64_t n = n0; n < n1; n++) {
            if (!kc_looks_at(k, m * 3 + n)) {
                continue;
            }
            double sum = 0, all = 0;
            for (int64_t i = 0; i < a->depth; i++) {
                double product = src[m * a->src_stride + i] * weight[n * a->depth + i];
                sum += product;
                all += fabs(product);
            }
            double error = kc_growth(a->depth) * KC_U32 * all + flushed;
            expect_element(k, a, before, m, n, (kc_value){sum, error});
        }
    }
}

static void store_case(kc *k, const dk_linear_kernels *kernels, int epilogue, int tile_rows,
                       int tile_cols)
{
    const linear_case c = {
        .rows = tile_rows + 3, .cols = tile_cols + 5, .epilogue = epilogue, .values = KC_HARD};
    kc_case(k, 2, "%d x %d, epilogue %d", tile_rows, tile_cols, epilogue);
    while (kc_next_round(k)) {
        dk_linear_args a = {.rows = c.rows, .cols = c.cols};
        set_epilogue(k, &a, &c);
        const void *before = kc_copy(k, a.dst, dst_bytes(&a));
        int64_t m0 = kc_below(k, 4), n0 = kc_below(k, 6), ld = tile_cols + kc_below(k, 4);
        int64_t count = (tile_rows - 1) * ld + tile_cols;
        /* A NaN or infinity of the sum goes on through everything that does not divide. */
        bool wild = a.activation == DK_ACT_NONE && a.multiply == NULL;
        float *tile = kc_operand(k, DK_F32, count, wild ? KC_WILD : KC_HARD);
        kernels->store(&a, m0, n0, tile_rows, tile_cols, tile, ld);
        kc_result(k, a.dst, dst_bytes(&a));
        expect_rest(k, &a, before, m0, m0 + tile_rows, n0, n0 + tile_cols);
        for (int64_t m = 0; k->round == 0 && m < tile_rows; m++) {
            for (int64_t n = 0; n < tile_cols; n++) {
                expect_element(k, &a, before, m0 + m, n0 + n,
                               (kc_value){(double)tile[m * ld + n], 0});
            }
        }
    }
}

static void check_store(kc *k)
{
    static const int cols[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64};
    dk_linear_kernels kernels;
    dk_linear_kernels_init(&kernels, k->flags);
    for (int epilogue = 0; epilogue < EPILOGUES; epilogue++) {
        for (int i = epilogue % 2; i < KC_COUNT(cols); i += 2) {
            store_case(k, &kernels, epilogue, 1 + epilogue % 6, cols[i]);
        }
    }
}

/* All tasks of a pass, the first last: their order must not matter. */
static void run_layer(kc *k, const dk_linear_kernels *kernels, const dk_linear_plan *plan,
                      const dk_linear_args *a)
{
    void *shared = kc_alloc(k, plan->shared_bytes), *scratch = kc_alloc(k, plan->scratch_bytes);
    if (plan->shared_bytes % DK_ALIGNMENT != 0 || plan->scratch_bytes % DK_ALIGNMENT != 0) {
        kc_fail(k, "the plan's memory is no multiple of %d bytes", DK_ALIGNMENT);
    }
    for (int pass = 0; pass < plan->passes; pass++) {
        for (int task = dk_linear_pack_tasks(plan, pass) - 1; task >= 0; task--) {
            dk_linear_pack(kernels, plan, a, pass, task, shared, scratch);
        }
        int tasks = plan->cut.tasks;
        for (int task = 1; task <= tasks; task++) {
            dk_linear_block(kernels, plan, a, pass, task % tasks, shared, scratch);
        }
    }
}

static void layer_case(kc *k, const dk_linear_kernels *kernels, const linear_case *c,
                       bool exact)
{
    kc_case(k, kc_plan_rounds(k),
            "%lld x %lld x %lld, src %s, W %s, epilogue %d, values %d, %s", (long long)c->rows,
            (long long)c->cols, (long long)c->depth, dk_dtype_name(c->src),
            dk_dtype_name(c->weight), c->epilogue, (int)c->values,
            k->device != NULL ? k->level
            : exact           ? kernels->gemm.f32.name
                              : kernels->gemm.bf16.name);
    while (kc_next_round(k)) {
        dk_linear_args a;
        dk_dtype panels = k->panels;
        set_product(k, &a, c);
        const void *before = kc_copy(k, a.dst, dst_bytes(&a));
        if (k->device != NULL) {
            kc_device_linear(k, &a, 1);
        } else {
            dk_linear_plan plan;
            dk_linear_plan_init(&plan, kernels, &a, exact, kc_threads(k));
            run_layer(k, kernels, &plan, &a);
            panels = plan.kernel->type;
        }
        kc_result(k, a.dst, dst_bytes(&a));
        expect_rest(k, &a, before, 0, c->rows, 0, c->cols);
        if (k->round == 0) {
            expect_product(k, &a, before, panels, 0, c->cols);
        }
    }
}

static void layers(kc *k, const dk_linear_kernels *kernels)
{
    static const int64_t shapes[][3] = {
        {1, 1, 1},     {3, 130, 70},   {5, 3, 2},      {7, 33, 17},   {13, 129, 100},
        {31, 70, 600}, {97, 300, 255}, {200, 40, 513}, {230, 17, 33}, {2017, 5, 3},
        {4500, 1, 7},  {460, 40, 540}, {500, 300, 9}};
    for (int i = 0; i < KC_COUNT(shapes); i++) {
        for (int w = 0; w < KC_COUNT(stored); w++) {
            const linear_case c = {.rows = shapes[i][0],
                                   .cols = shapes[i][1],
                                   .depth = shapes[i][2],
                                   .src = w % 2 ? DK_BF16 : DK_F32,
                                   .weight = stored[w],
                                   .epilogue = (i * KC_COUNT(stored) + w) * 29 % EPILOGUES,
                                   .values = (i + w) % 4 ? KC_ORDINARY : KC_HARD};
            bool large = c.rows * c.cols * c.depth > 1000000;
            if (large && w % (k->brief ? 4 : 2) != 0) {
                continue;
            }
            layer_case(k, kernels, &c, true);
            if (k->device == NULL && kernels->gemm.bf16.tile != kernels->gemm.f32.tile) {
                layer_case(k, kernels, &c, false);
            }
        }
    }
}

/* Few rows, up to one more than the most that are multiplied without packing W. */
static void check_small(kc *k)
{
    static const int64_t depths[] = {1, 7, 8, 15, 31, 32, 33, 64, 255, 300, 600, 1537};
    static const int rows[] = {1, 2, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33};
    dk_linear_kernels kernels;
    int number = 0;
    dk_linear_kernels_init(&kernels, k->flags);
    for (int d = 0; d < KC_COUNT(depths); d++) {
        for (int r = 0; r < KC_COUNT(rows); r++, number++) {
            const linear_case c = {.rows = rows[r],
                                   .cols = 1 + (number * 7) % 101,
                                   .depth = depths[d],
                                   .src = number % 2 ? DK_F32 : DK_BF16,
                                   .weight = stored[(number + d) % KC_COUNT(stored)],
                                   .epilogue = number * 37 % EPILOGUES,
                                   .values = number % 3 ? KC_ORDINARY : KC_HARD};
            layer_case(k, &kernels, &c, number % 4 == 0);
            if (k->device == NULL && c.weight == DK_BF16) {
                layer_case(k, &kernels, &c, number % 4 != 0);
            }
        }
    }
}

static void check_layers(kc *k)
{
    dk_linear_kernels kernels;
    dk_linear_kernels_init(&kernels, k->flags);
    if (k->lowest) {
        kernels.gemm.bf16 = grouped_gemm(); /* composition must assume no kernel's shape */
    }
    layers(k, &kernels);
}

/* Of a device: every epilogue, for few rows and for many. */
static void check_epilogues(kc *k)
{
    for (int epilogue = 0; epilogue < 2 * EPILOGUES; epilogue++) {
        const linear_case c = {.rows = epilogue < EPILOGUES ? 7 : 70,
                               .cols = epilogue < EPILOGUES ? 35 : 64,
                               .depth = 20 + epilogue % 3,
                               .src = epilogue % 2 ? DK_BF16 : DK_F32,
                               .weight = epilogue % 5 ? DK_F32 : DK_BF16,
                               .epilogue = epilogue % EPILOGUES,
                               .values = epilogue % 4 ? KC_ORDINARY : KC_HARD};
        layer_case(k, NULL, &c, k->exact);
    }
}

/* Of a device: layers of one source in one call; the second multiplies by what the first
   wrote. */
static void check_group(kc *k)
{
    enum { LAYERS = 3 };
    for (int bits = 0; bits < 8; bits++) {
        const linear_case c = {.rows = bits & 1 ? 3 : 50,
                               .cols = 40,
                               .depth = 65,
                               .src = bits & 2 ? DK_BF16 : DK_F32,
                               .weight = bits & 4 ? DK_F16 : DK_F32,
                               .epilogue = 1};
        kc_case(k, 2, "%d layers of %lld x %lld x %lld, src %s, W %s", LAYERS,
                (long long)c.rows, (long long)c.cols, (long long)c.depth, dk_dtype_name(c.src),
                dk_dtype_name(c.weight));
        while (kc_next_round(k)) {
            dk_linear_args a[LAYERS];
            for (int i = 0; i < LAYERS; i++) {
                set_product(k, &a[i], &c);
                a[i].src = a[0].src;
                a[i].src_stride = a[0].src_stride;
            }
            a[1].dst_stride = a[0].dst_stride;
            a[1].dst = kc_operand(k, a[1].dst_type, (int64_t)dst_bytes(&a[1]), KC_ORDINARY);
            a[1].multiply = a[0].dst;
            kc_device_linear(k, a, LAYERS);
            for (int i = 0; i < LAYERS; i++) {
                expect_product(k, &a[i], NULL, k->panels, 0, c.cols);
            }
        }
    }
}

/* A stored format of blocks, as quantized weights have: 32 numbers of 8 bits behind a power of
   two. It stands in the table under the name of a type that nothing computes with. */
enum { BLOCK = 32, BLOCK_BYTES = BLOCK + 1, BLOCKS_TYPE = DK_F4 };

static void decode_blocks(float *dst, const void *row, int64_t k0, int64_t count)
{
    for (int64_t i = k0; i < k0 + count; i++) {
        const signed char *block = (const signed char *)row + i / BLOCK * BLOCK_BYTES;
        dst[i - k0] = ldexpf((float)block[1 + i % BLOCK], block[0]);
    }
}

/* Weights of the format, and the same as f32. */
static void set_blocks(kc *k, dk_linear_args *blocks, dk_linear_args *plain)
{
    int64_t row_bytes = (blocks->depth + BLOCK - 1) / BLOCK * BLOCK_BYTES;
    signed char *bytes = kc_alloc(k, (size_t)(blocks->cols * row_bytes));
    float *values = kc_alloc(k, (size_t)(blocks->cols * blocks->depth) * sizeof *values);
    for (int64_t i = 0; i < blocks->cols * row_bytes; i++) {
        bytes[i] =
            (signed char)(i % BLOCK_BYTES == 0 ? -8 + kc_below(k, 4) : kc_below(k, 256) - 128);
    }
    for (int64_t n = 0; n < blocks->cols; n++) {
        decode_blocks(values + n * blocks->depth, bytes + n * row_bytes, 0, blocks->depth);
    }
    *plain = *blocks;
    plain->weight = values;
    plain->weight_type = DK_F32;
    blocks->weight = bytes;
    blocks->weight_type = (dk_dtype)BLOCKS_TYPE;
}

static void blocks_case(kc *k, const dk_linear_kernels *kernels, const linear_case *c,
                        bool exact)
{
    kc_case(k, kc_plan_rounds(k), "%lld x %lld x %lld, W in blocks, %s", (long long)c->rows,
            (long long)c->cols, (long long)c->depth,
            exact ? kernels->gemm.f32.name : kernels->gemm.bf16.name);
    while (kc_next_round(k)) {
        dk_linear_args a, plain;
        dk_linear_plan plan;
        set_product(k, &a, c);
        const void *before = kc_copy(k, a.dst, dst_bytes(&a));
        set_blocks(k, &a, &plain);
        dk_linear_plan_init(&plan, kernels, &a, exact, kc_threads(k));
        run_layer(k, kernels, &plan, &a);
        kc_result(k, a.dst, dst_bytes(&a));
        if (k->round == 0) {
            expect_product(k, &plain, before, plan.kernel->type, 0, c->cols);
        }
    }
}

static void check_blocks(kc *k)
{
    static const int64_t shapes[][3] = {{5, 37, 33}, {40, 37, 95}, {40, 130, 800}};
    dk_linear_kernels kernels;
    dk_linear_kernels_init(&kernels, k->flags);
    kernels.decode.of[BLOCKS_TYPE] = (dk_stored_format){BLOCK, BLOCK_BYTES, decode_blocks};
    if (k->lowest) {
        kernels.gemm.bf16 = grouped_gemm();
    }
    for (int i = 0; i < KC_COUNT(shapes); i++) {
        const linear_case c = {.rows = shapes[i][0],
                               .cols = shapes[i][1],
                               .depth = shapes[i][2],
                               .src = i % 2 ? DK_BF16 : DK_F32,
                               .weight = DK_BF16};
        blocks_case(k, &kernels, &c, true);
        blocks_case(k, &kernels, &c, false);
    }
}

/* --- int8 weights: against the quantised arithmetic, so what quantisation loses is no error
 * --- */

static bool int8_is_new(const kc *k)
{
    dk_gemm_kernel gemms[KC_MOST_INT8_GEMMS];
    dk_linear_kernels now, before;
    tables(k, &now, &before);
    return kc_new_int8_gemms(k, gemms) > 0 || store_is_new(k) ||
           now.quantize.quantize_rows != before.quantize.quantize_rows;
}

/* W quantised and packed, the last panel first: their order must not matter. */
static void pack_int8(kc *k, const dk_linear_kernels *kernels, const dk_linear_args *a,
                      dk_linear_quantized *out)
{
    const dk_gemm_kernel *kernel = &kernels->gemm.int8;
    void *scratch = kc_alloc(k, dk_linear_int8_scratch(kernel, a->depth));
    *out = (dk_linear_quantized){
        .cols = a->cols,
        .depth = a->depth,
        .panels = kc_alloc(k, dk_linear_int8_bytes(kernel, a->cols, a->depth)),
        .scales = kc_alloc(k, (size_t)a->cols * sizeof(float))};
    for (int task = dk_linear_int8_tasks(kernel, a->cols) - 1; task >= 0; task--) {
        dk_linear_int8_pack(kernels, out, a->weight, a->weight_type, task, scratch);
    }
}

/* Rows of any float type as whole numbers and scales, by the kernel that kernelcheck_quantize.c
   checks. */
static int8_t *quantized(kc *k, const dk_linear_kernels *kernels, const void *src,
                         dk_dtype type, int64_t rows, int64_t cols, int64_t stride,
                         float *scales)
{
    int8_t *out = kc_alloc(k, (size_t)(rows * cols));
    float *wide = kc_alloc(k, (size_t)cols * sizeof *wide);
    for (int64_t row = 0; row < rows; row++) {
        const char *from = (const char *)src + (size_t)(row * stride) * dk_dtype_bytes(type);
        dk_convert_to_f32(wide, from, type, cols);
        const dk_quantize_args args = {.cols = cols,
                                       .src = wide,
                                       .src_type = DK_F32,
                                       .dst = out + row * cols,
                                       .scales = scales + row};
        kernels->quantize.quantize_rows(&args, 0, 1);
    }
    return out;
}

static void expect_int8_product(kc *k, const dk_linear_kernels *kernels,
                                const dk_linear_args *a, const void *before)
{
    float *row_scale = kc_alloc(k, (size_t)a->rows * sizeof(float));
    float *col_scale = kc_alloc(k, (size_t)a->cols * sizeof(float));
    const int8_t *src =
        quantized(k, kernels, a->src, a->src_type, a->rows, a->depth, a->src_stride, row_scale);
    const int8_t *weight = quantized(k, kernels, a->weight, a->weight_type, a->cols, a->depth,
                                     a->depth, col_scale);
    for (int64_t m = 0; m < a->rows; m++) {
        for (int64_t n = 0; n < a->cols; n++) {
            if (!kc_looks_at(k, m * 3 + n)) {
                continue;
            }
            int64_t sum = 0;
            for (int64_t i = 0; i < a->depth; i++) {
                sum += src[m * a->depth + i] * weight[n * a->depth + i];
            }
            double y = (double)sum * (double)row_scale[m] * (double)col_scale[n];
            /* The sum becomes a float and two products round. */
            double error = 3.0 * KC_U32 * fabs(y) + KC_TINY;
            expect_element(k, a, before, m, n, (kc_value){y, error});
        }
    }
}

static void int8_case(kc *k, const dk_linear_kernels *kernels, const linear_case *c)
{
    kc_case(k, kc_plan_rounds(k),
            "%lld x %lld x %lld, src %s, W %s as int8, epilogue %d, values %d, %s",
            (long long)c->rows, (long long)c->cols, (long long)c->depth, dk_dtype_name(c->src),
            dk_dtype_name(c->weight), c->epilogue, (int)c->values, kernels->gemm.int8.name);
    while (kc_next_round(k)) {
        dk_linear_args a;
        dk_linear_plan plan;
        dk_linear_quantized weight;
        set_product(k, &a, c);
        pack_int8(k, kernels, &a, &weight);
        a.quantized = &weight;
        const void *before = kc_copy(k, a.dst, dst_bytes(&a));
        dk_linear_plan_init(&plan, kernels, &a, false, kc_threads(k));
        run_layer(k, kernels, &plan, &a);
        kc_result(k, a.dst, dst_bytes(&a));
        expect_rest(k, &a, before, 0, c->rows, 0, c->cols);
        if (k->round == 0) {
            expect_int8_product(k, kernels, &a, before);
        }
    }
}

/* Slices of the depth end below, at and above those of the kernel. */
static void int8_layers(kc *k, const dk_linear_kernels *kernels)
{
    const int64_t slice = kernels->gemm.int8.slice;
    const int64_t shapes[][3] = {{1, 1, 1},       {3, 130, 70},         {5, 3, 2},
                                 {7, 33, 17},     {13, 129, 100},       {31, 70, slice - 1},
                                 {17, 50, slice}, {9, 40, slice + 1},   {20, 45, 2 * slice + 3},
                                 {97, 300, 255},  {200, 40, slice + 9}, {230, 17, 33},
                                 {2017, 5, 3},    {4500, 1, 7},         {460, 40, 540}};
    for (int i = 0; i < KC_COUNT(shapes); i++) {
        for (int w = 0; w < KC_COUNT(stored); w++) {
            const linear_case c = {.rows = shapes[i][0],
                                   .cols = shapes[i][1],
                                   .depth = shapes[i][2],
                                   .src = w % 2 ? DK_BF16 : DK_F32,
                                   .weight = stored[w],
                                   .epilogue = (i * KC_COUNT(stored) + w) * 29 % EPILOGUES,
                                   .values = (i + w) % 4 ? KC_ORDINARY : KC_HARD};
            bool large = c.rows * c.cols * c.depth > 500000;
            if (!large || w % (k->brief ? 4 : 2) == 0) {
                int8_case(k, kernels, &c);
            }
        }
    }
}

/* Every epilogue, and a NaN in src that must reach its row. */
static void check_int8(kc *k)
{
    dk_linear_kernels kernels;
    dk_linear_kernels_init(&kernels, k->flags);
    int8_layers(k, &kernels);
    for (int epilogue = 0; epilogue < EPILOGUES; epilogue++) {
        const linear_case c = {.rows = 7,
                               .cols = 35,
                               .depth = 20,
                               .src = epilogue % 2 ? DK_BF16 : DK_F32,
                               .weight = DK_F32,
                               .epilogue = epilogue,
                               .values = KC_ORDINARY};
        int8_case(k, &kernels, &c);
    }
    const linear_case wild = {
        .rows = 19, .cols = 35, .depth = 3, .src = DK_F32, .weight = DK_F32, .values = KC_WILD};
    int8_case(k, &kernels, &wild);
    if (k->lowest) { /* composition must assume no kernel's shape, nor panels without a header
                      */
        kernels.gemm.int8 = grouped_int8_gemm();
        int8_layers(k, &kernels);
    }
}

static bool never_is_new(const kc *k)
{
    (void)k;
    return false;
}

static const kc_test tests[] = {
    {"linear.small", any_is_new, check_small, true},
    {"linear.store", store_is_new, check_store, false},
    {"linear", any_is_new, check_layers, true},
    {"linear.epilogues", never_is_new, check_epilogues, true},
    {"linear.group", never_is_new, check_group, true},
    {"linear.blocks", any_is_new, check_blocks, false},
    {"linear.int8", int8_is_new, check_int8, false},
};

const kc_family kc_linear = {tests, KC_COUNT(tests)};
