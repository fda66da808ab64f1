/* Attention's softmax for the path that multiplies with oneDNN; kernels/attention.h says what is
   computed. */
#include "common.h"

/* Probabilities of rows of scores [heads][queries][keys], a sub-group each. The first query of a
   block is number `first` of all. q_scale [heads][q_len] and k_scale [heads][keys], or 0: the
   scores are sums of whole numbers, int where `whole`, and are multiplied by these too; lost: see
   cl/sage.cl. */
#define SOFTMAX(type)                                                                          \
    ONE_ROW_PER_SUB_GROUP kernel void softmax_##type(                                          \
        global type *dst, global float *scores, global const float *bias, global float *lse,   \
        float scale, int causal, long heads, long queries, long keys, long first, long q_len,  \
        long bias_head, long bias_q, long bias_k, global const float *q_scale,                 \
        global const float *k_scale, global const float *lost, int whole)                      \
    {                                                                                          \
        long row = row_of_sub_group(), lane = get_sub_group_local_id();                        \
        if (row >= heads * queries) {                                                          \
            return;                                                                            \
        }                                                                                      \
        long h = row / queries, q = first + row % queries;                                     \
        long seen = causal ? min(keys, q + keys - q_len + 1) : keys;                           \
        global float *s = scores + row * keys;                                                 \
        float most = -INFINITY, sum = 0;                                                       \
        float by = q_scale != 0 ? q_scale[h * q_len + q] * scale : scale;                      \
        for (long k = lane; k < seen; k += LANES) {                                            \
            float v = (whole ? (float)as_int(s[k]) : s[k]) * by;                               \
            v = k_scale != 0 ? v * k_scale[h * keys + k] : v;                                  \
            v = bias != 0 ? v + bias[h * bias_head + q * bias_q + k * bias_k] : v;             \
            s[k] = v;                                                                          \
            most = fmax(most, v);                                                              \
        }                                                                                      \
        most = sub_group_reduce_max(most);                                                     \
        for (long k = lane; k < seen; k += LANES) {                                            \
            float v = exp(s[k] - most);                                                        \
            s[k] = v;                                                                          \
            sum += v;                                                                          \
        }                                                                                      \
        sum = sub_group_reduce_add(sum);                                                       \
        float factor = seen > 0 ? 1.0f / sum : 0.0f;                                           \
        for (long k = lane; k < keys; k += LANES) {                                            \
            dst[row * keys + k] = STORE_##type(k < seen ? s[k] * factor : 0.0f);               \
        }                                                                                      \
        if (lse != 0 && lane == 0) {                                                           \
            float off = lost != 0 ? lost[h * q_len + q] : 0.0f;                                \
            lse[h * q_len + q] = most + log(sum) + off;                                        \
        }                                                                                      \
    }

SOFTMAX(f32)
SOFTMAX(bf16)

/* kernels/attention.h: merge. One row of all heads per sub-group; its first lane reads and writes
   the log-sum-exps for all. */
#define MERGE(type)                                                                            \
    ONE_ROW_PER_SUB_GROUP kernel void merge_##type(                                            \
        global float *sum, global float *sum_lse, global const type *part,                     \
        global const float *part_lse, int heads, int head_dim, int rows, int first)            \
    {                                                                                          \
        int r = row_of_sub_group(), lane = get_sub_group_local_id();                           \
        if (r >= rows) {                                                                       \
            return;                                                                            \
        }                                                                                      \
        for (int h = 0; h < heads; h++) {                                                      \
            long at = ((long)r * heads + h) * head_dim, where = (long)h * rows + r;            \
            float b = part_lse[where], a = first ? b : sum_lse[where];                         \
            a = sub_group_broadcast(a, 0);                                                     \
            float most = fmax(a, b);                                                           \
            bool alone = first || isinf(most);                                                 \
            float old = alone ? 0.0f : exp(a - most), new = alone ? 1.0f : exp(b - most);      \
            float total = old + new;                                                           \
            for (int i = lane; i < head_dim; i += LANES) {                                     \
                float x = LOAD_##type(part[at + i]);                                           \
                sum[at + i] = first ? x : (old * sum[at + i] + new * x) / total;               \
            }                                                                                  \
            if (lane == 0) {                                                                   \
                sum_lse[where] = alone ? b : most + log(total);                                \
            }                                                                                  \
        }                                                                                      \
    }

MERGE(f32)
MERGE(bf16)
