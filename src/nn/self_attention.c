/* Self-attention on one rank, and the choice of the way on several. */
#include "nn/self_attention.h"

#include "nn/sequence.h"

/* All on this rank: what is done to h is done once for the three projections. */
static void forward_whole(dk_nn *nn, const dk_nn_self_attention *a, const dk_tensor *dst,
                          const dk_tensor *h)
{
    int64_t rows = h->shape[0], cols = (int64_t)a->heads * a->head_dim;
    dk_tensor q = dk_nn_temp(nn, nn->type, rows, cols);
    dk_tensor k = dk_nn_temp(nn, nn->type, rows, cols);
    dk_tensor v = dk_nn_temp(nn, nn->type, rows, cols);
    const dk_nn_linear_call qkv[] = {
        {a->to_q, &q, NULL}, {a->to_k, &k, NULL}, {a->to_v, &v, NULL}};
    dk_nn_linear_group(nn, h, qkv, 3);
    for (int i = 0; i < a->count; i++) {
        int64_t first = i * a->tokens * cols;
        dk_tensor qi = DK_TENSOR(dk_nn_at(nn, q.data, first), nn->type, a->tokens, cols);
        dk_tensor ki = DK_TENSOR(dk_nn_at(nn, k.data, first), nn->type, a->tokens, cols);
        dk_tensor vi = DK_TENSOR(dk_nn_at(nn, v.data, first), nn->type, a->tokens, cols);
        dk_tensor out = DK_TENSOR(dk_nn_at(nn, dst->data, first), nn->type, a->tokens, cols);
        dk_nn_norm_rope(nn, &qi, a->heads, a->norm_q, a->rope);
        dk_nn_norm_rope(nn, &ki, a->heads, a->norm_k, a->rope);
        dk_nn_attention(nn, &out, &qi, &ki, &vi, a->heads, a->scale, NULL);
    }
}

void dk_nn_self_attention_forward(dk_nn *nn, const dk_nn_self_attention *a,
                                  const dk_tensor *dst, const dk_tensor *h)
{
    size_t mark = dk_nn_mark(nn);
    if (nn->parallel != NULL && dk_layout_sp(&nn->parallel->groups->layout) > 1) {
        const dk_nn_sequence sequence = dk_nn_sequence_of(nn, a);
        if (sequence.ulysses != NULL) {
            dk_nn_ulysses_forward(nn, &sequence, dst, h);
        } else {
            dk_nn_ring_forward(nn, &sequence, dst, h);
        }
    } else {
        forward_whole(nn, a, dst, h);
    }
    dk_nn_unwind(nn, mark);
}
