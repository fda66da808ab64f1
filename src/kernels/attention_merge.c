/* Merging attention over parts of the keys, in plain C that compilers vectorise. */
#include <math.h>
#include <string.h>

#include "kernels/attention.h"
#include "tensor/convert.h"

/* What two such parts count for: softmax over their log-sum-exps. *sum_lse becomes both parts'.
 */
static void shares(float *sum_lse, float part_lse, bool first, float *old, float *new)
{
    float most = first || part_lse > *sum_lse ? part_lse : *sum_lse;
    if (first || isinf(most)) {
        *old = 0.0f;
        *new = 1.0f;
        *sum_lse = part_lse;
        return;
    }
    float a = expf(*sum_lse - most), b = expf(part_lse - most);
    *old = a / (a + b);
    *new = b / (a + b);
    *sum_lse = most + logf(a + b);
}

void dk_attention_merge_rows(const dk_attention_merge_args *args, int64_t row0, int64_t row1)
{
    int64_t cols = (int64_t)args->heads * args->head_dim;
    for (int64_t row = row0; row < row1; row++) {
        for (int h = 0; h < args->heads; h++) {
            float old, new, *sum = args->sum + row *cols + (int64_t)h * args->head_dim;
            int64_t at = row * cols + (int64_t)h * args->head_dim;
            shares(&args->sum_lse[h * args->rows + row], args->part_lse[h * args->rows + row],
                   args->first, &old, &new);
            for (int i = 0; i < args->head_dim; i++) {
                float x = args->type == DK_F32
                              ? ((const float *)args->part)[at + i]
                              : dk_f32_from_bf16(((const uint16_t *)args->part)[at + i]);
                sum[i] = args->first ? x : old * sum[i] + new *x;
            }
        }
    }
}
