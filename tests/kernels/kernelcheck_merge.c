/* Merging attentions over parts of the keys, by the log-sum-exps of their scores. */
#include <math.h>

#include "kernels/attention.h"
#include "kernels/kernelcheck.h"
#include "kernels/kernelcheck_device.h"

/* Plain C: one version. */
static bool merge_is_new(const kc *k)
{
    return k->lowest;
}

static void expect_merged(kc *k, const dk_attention_merge_args *a, const float *sum,
                          const float *lse)
{
    int64_t cols = (int64_t)a->heads * a->head_dim;
    for (int64_t i = 0; i < a->rows * cols; i++) {
        int64_t at = i % cols / a->head_dim * a->rows + i / cols;
        double part = kc_get(a->part, a->type, i), b = (double)a->part_lse[at];
        double want = part, share = 1, most = b, total = b;
        if (!a->first) {
            double old = (double)lse[at];
            most = fmax(old, b);
            share = exp(b - most) / (exp(old - most) + exp(b - most));
            total = most + log(exp(old - most) + exp(b - most));
            want = (1 - share) * (double)sum[i] + share * part;
        }
        double size = a->first ? fabs(part) : fabs((double)sum[i]) + fabs(part);
        /* exp and log of differences of numbers of size `most`. */
        double error = (16.0 + 4.0 * fabs(most)) * KC_U32;
        kc_expect(k, i, (double)a->sum[i], want, error * size + KC_TINY);
        kc_expect(k, at, (double)a->sum_lse[at], total, error * (1 + fabs(total)));
    }
}

static void merge_rounds(kc *k, int heads, int head_dim, dk_dtype type, bool first)
{
    enum { ROWS = 5 };
    kc_case(k, 2, "%d heads of %d, %s%s", heads, head_dim, dk_dtype_name(type),
            first ? ", first" : "");
    while (kc_next_round(k)) {
        int64_t count = (int64_t)ROWS * heads * head_dim;
        dk_attention_merge_args a = {
            .heads = heads, .head_dim = head_dim, .rows = ROWS, .type = type, .first = first};
        a.sum = kc_operand(k, DK_F32, count, KC_ORDINARY);
        a.part = kc_operand(k, type, count, KC_ORDINARY);
        float *lse = kc_operand(k, DK_F32, (int64_t)2 * ROWS * heads, KC_ORDINARY);
        a.sum_lse = kc_copy(k, lse, (size_t)(ROWS * heads) * sizeof *lse);
        float *part_lse = kc_copy(k, lse + ROWS * heads, (size_t)(ROWS * heads) * sizeof *lse);
        for (int i = 0; i < ROWS * heads; i++) {
            part_lse[i] = 8.0f * part_lse[i] + 3.0f;
        }
        part_lse[0] = 200.0f; /* all but these exponentials vanish */
        a.part_lse = part_lse;
        const float *sum = kc_copy(k, a.sum, (size_t)count * sizeof *sum);
        const float *before = kc_copy(k, a.sum_lse, (size_t)(ROWS * heads) * sizeof *before);
        if (k->device != NULL) {
            kc_device_merge(k, &a);
        } else {
            dk_attention_merge_rows(&a, 0, 2);
            dk_attention_merge_rows(&a, 2, ROWS);
        }
        kc_result(k, a.sum, (size_t)count * sizeof *a.sum);
        expect_merged(k, &a, sum, before);
    }
}

static void check_merge(kc *k)
{
    static const int dims[] = {1, 6, 40, 128};
    for (int d = 0; d < KC_COUNT(dims); d++) {
        for (int bits = 0; bits < 4; bits++) {
            merge_rounds(k, 1 + d, dims[d], bits & 1 ? DK_BF16 : DK_F32, (bits & 2) != 0);
        }
    }
}

static const kc_test tests[] = {{"attention.merge", merge_is_new, check_merge, true}};

const kc_family kc_merge = {tests, KC_COUNT(tests)};
