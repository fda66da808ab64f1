/* Rows and heads by rank. */
#include "nn/sequence.h"

dk_nn_sequence dk_nn_sequence_of(const dk_nn *nn, const dk_nn_self_attention *a)
{
    const dk_groups *g = nn->parallel->groups;
    dk_nn_sequence s = {.a = a,
                        .ulysses = g->ulysses,
                        .ring = g->ring,
                        .u = g->place.ulysses,
                        .us = g->layout.ulysses,
                        .r = g->place.ring,
                        .rs = g->layout.ring,
                        .cols = (int64_t)a->heads * a->head_dim};
    int parts = s.us * s.rs;
    for (int r = 0; r < s.rs; r++) {
        for (int u = 0; u < s.us; u++) {
            int64_t rows = dk_part_size(a->tokens, parts, u + s.us * r);
            s.block_of[r] += rows;
            s.rows_of[u] = r == s.r ? rows : s.rows_of[u];
        }
    }
    for (int u = 0; u < s.us; u++) {
        s.heads_of[u] = (int)dk_part_size(a->heads, s.us, u);
    }
    s.rows = s.rows_of[s.u];
    s.block = s.block_of[s.r];
    s.heads = s.heads_of[s.u];
    s.width = (int64_t)s.heads * a->head_dim;
    return s;
}

size_t dk_nn_bytes(const dk_nn *nn, int64_t elements)
{
    return (size_t)elements * dk_dtype_bytes(nn->type);
}

void *dk_nn_at(const dk_nn *nn, void *base, int64_t elements)
{
    return (char *)base + dk_nn_bytes(nn, elements);
}

const dk_nn_linear *dk_nn_projection(const dk_nn_self_attention *a, int which)
{
    return which == DK_NN_Q ? a->to_q : which == DK_NN_K ? a->to_k : a->to_v;
}

void dk_nn_prepare_rows(dk_nn *nn, const dk_nn_sequence *sequence, int which, void *rows)
{
    const dk_nn_self_attention *a = sequence->a;
    const dk_tensor x = DK_TENSOR(rows, nn->type, sequence->rows, sequence->cols);
    if (which != DK_NN_V) {
        dk_nn_norm_rope(nn, &x, a->heads, which == DK_NN_Q ? a->norm_q : a->norm_k, a->rope);
    }
}
