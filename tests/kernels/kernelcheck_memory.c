/* What devices alone offer: copies and zeros, strided copies, embeddings. */
#include <string.h>

#include "base/alloc.h"
#include "kernels/kernelcheck_device.h"

static bool never_is_new(const kc *k)
{
    (void)k;
    return false;
}

/* --- write, read, zero -------------------------------------------------------------------- */

static void check_copies(kc *k)
{
    static const size_t sizes[] = {1, 2, 3, 63, 64, 65, 1000, 4096, 1000003};
    for (int i = 0; i < KC_COUNT(sizes); i++) {
        size_t bytes = sizes[i], third = bytes / 3;
        kc_case(k, 2, "%zu bytes", bytes);
        while (kc_next_round(k)) {
            unsigned char *host = kc_alloc(k, bytes), *back = kc_alloc(k, bytes);
            for (size_t n = 0; n < bytes; n++) {
                host[n] = (unsigned char)(1 + kc_below(k, 255));
            }
            char *there = kc_send(k, host, bytes, 1);
            dk_device_zero(k->device, there + third, third);
            dk_device_write(k->device, there, host + bytes - third, third);
            dk_device_read(k->device, back, there, bytes);
            kc_device_end(k);
            for (size_t n = 0; n < bytes; n++) {
                unsigned char want = n < third       ? host[bytes - third + n]
                                     : n < 2 * third ? 0
                                                     : host[n];
                kc_expect(k, (int64_t)n, back[n], want, 0);
            }
        }
    }
}

/* --- permute ------------------------------------------------------------------------------ */

typedef struct permute_case {
    int rank;
    int64_t shape[8];
    int order[8]; /* axis of src that is nth in memory, the slowest first */
    bool gaps;    /* elements between rows of dst that are not its own */
} permute_case;

static const permute_case permutes[] = {
    {2, {5, 7}, {1, 0}, false},
    {2, {1, 300}, {0, 1}, true},
    {3, {4, 33, 17}, {2, 0, 1}, false},
    {4, {3, 5, 2, 16}, {1, 3, 0, 2}, true},
    {7, {2, 3, 2, 2, 3, 2, 5}, {4, 0, 6, 2, 5, 1, 3}, false}, /* patchify's rank */
    {8, {2, 1, 3, 2, 2, 1, 2, 3}, {7, 5, 3, 1, 6, 4, 2, 0}, true},
    {4, {5, 3, 113, 7}, {2, 0, 3, 1}, true}, /* tasks that begin amid an axis */
    {2, {2, 70000}, {0, 1}, true},
};

/* Strides of a tensor whose axes lie in memory in that order (NULL: as counted), each axis
   `gap` elements longer than its content. Returns its elements. */
static int64_t lay_out(int64_t *stride, const permute_case *c, const int *order, int64_t gap)
{
    int64_t step = 1;
    for (int i = c->rank - 1; i >= 0; i--) {
        int axis = order != NULL ? order[i] : i;
        stride[axis] = step;
        step *= c->shape[axis] + (i == c->rank - 1 ? gap : 0);
    }
    return step;
}

static void expect_permuted(kc *k, const dk_permute_args *a, const void *src)
{
    int64_t at[8] = {0};
    for (int axis = 0; axis >= 0;) {
        int64_t from = 0, to = 0;
        for (int i = 0; i < a->rank; i++) {
            from += at[i] * a->src_stride[i];
            to += at[i] * a->dst_stride[i];
        }
        double want = kc_rounded(kc_get(src, a->src_type, from), a->dst_type);
        kc_expect(k, to, kc_get(a->dst, a->dst_type, to), want, 0);
        for (axis = a->rank - 1; axis >= 0 && ++at[axis] == a->shape[axis]; axis--) {
            at[axis] = 0;
        }
    }
}

static void permute_rounds(kc *k, const permute_case *c, dk_dtype from, dk_dtype to)
{
    kc_case(k, 2, "rank %d, %s to %s%s", c->rank, dk_dtype_name(from), dk_dtype_name(to),
            c->gaps ? ", gaps" : "");
    while (kc_next_round(k)) {
        dk_permute_args a = {.rank = c->rank, .src_type = from, .dst_type = to};
        memcpy(a.shape, c->shape, sizeof a.shape);
        int64_t sources = lay_out(a.src_stride, c, c->order, 0);
        int64_t results = lay_out(a.dst_stride, c, NULL, c->gaps ? 3 : 0);
        size_t bytes = (size_t)results * dk_dtype_bytes(to), own = 0;
        void *src = kc_operand(k, from, sources, KC_ORDINARY);
        a.dst = kc_operand(k, to, results, KC_ORDINARY);
        const char *before = kc_copy(k, a.dst, bytes);
        dk_permute_args there = a;
        there.src =
            kc_send(k, src, (size_t)sources * dk_dtype_bytes(from), dk_dtype_bytes(from));
        there.dst = kc_send(k, a.dst, bytes, dk_dtype_bytes(to));
        dk_device_permute(k->device, &there);
        kc_receive(k, a.dst);
        kc_device_end(k);
        kc_result(k, a.dst, bytes);
        expect_permuted(k, &a, src);
        size_t row = (size_t)c->shape[c->rank - 1] * dk_dtype_bytes(to);
        for (own = row; own + 3 * dk_dtype_bytes(to) <= bytes && c->gaps;
             own += row + 3 * dk_dtype_bytes(to)) {
            kc_untouched(k, a.dst, before, own, own + 3 * dk_dtype_bytes(to));
        }
    }
}

static void check_permute(kc *k)
{
    for (int i = 0; i < KC_COUNT(permutes); i++) {
        for (int bits = 0; bits < 4; bits++) {
            permute_rounds(k, &permutes[i], bits & 1 ? DK_BF16 : DK_F32,
                           bits & 2 ? DK_BF16 : DK_F32);
        }
    }
}

/* --- embedding ---------------------------------------------------------------------------- */

static void check_embedding(kc *k)
{
    static const dk_dtype types[] = {DK_F32, DK_BF16, DK_F16, DK_F8_E4M3, DK_F8_E5M2};
    enum { VOCABULARY = 50, ROWS = 13 };
    for (int i = 0; i < 3 * KC_COUNT(types); i++) {
        dk_dtype type = types[i / 3];
        int64_t cols = i % 3 == 0 ? 1 : i % 3 == 1 ? 33 : 400;
        kc_case(k, 2, "%s, %lld columns", dk_dtype_name(type), (long long)cols);
        while (kc_next_round(k)) {
            int32_t ids[ROWS] = {0, VOCABULARY - 1};
            for (int r = 2; r < ROWS; r++) {
                ids[r] = kc_below(k, VOCABULARY);
            }
            const void *table = kc_operand(k, type, VOCABULARY * cols, KC_ORDINARY);
            size_t bytes = (size_t)(ROWS * cols) * sizeof(float);
            float *dst = kc_alloc(k, bytes);
            kc_adopt(k, table, (size_t)(VOCABULARY * cols) * dk_dtype_bytes(type), false);
            const dk_embedding_args args = {.rows = ROWS,
                                            .cols = cols,
                                            .ids = ids,
                                            .table = table,
                                            .table_type = type,
                                            .dst = kc_send(k, dst, bytes, sizeof(float))};
            dk_device_embedding(k->device, &args);
            kc_receive(k, dst);
            kc_device_end(k);
            for (int64_t n = 0; n < ROWS * cols; n++) {
                double want = kc_get(table, type, ids[n / cols] * cols + n % cols);
                kc_expect(k, n, (double)dst[n], want, 0);
            }
        }
    }
}

static const kc_test tests[] = {
    {"device.copy", never_is_new, check_copies, true},
    {"device.permute", never_is_new, check_permute, true},
    {"device.embedding", never_is_new, check_embedding, true},
};

const kc_family kc_memory = {tests, KC_COUNT(tests)};
