/* Blocks of keys and values travel from rank to rank, each under the attention to the one
   before it. */
#include "nn/key_parts.h"
#include "nn/sequence.h"

void dk_nn_attend_ring(dk_nn *nn, const dk_nn_sequence *s, void *dst, const void *q,
                       const void *kv)
{
    size_t mark = dk_nn_mark(nn);
    int64_t largest = 0;
    int parts = 0;
    for (int r = 0; r < s->rs; r++) {
        largest = s->block_of[r] > largest ? s->block_of[r] : largest;
        parts += s->block_of[r] > 0;
    }
    const dk_attention_args queries = {.heads = s->heads,
                                       .head_dim = s->a->head_dim,
                                       .q_len = s->block,
                                       .q = q,
                                       .type = nn->type,
                                       .q_stride = s->width,
                                       .dst = dst,
                                       .dst_stride = s->width,
                                       .scale = s->a->scale};
    dk_nn_key_parts sum = dk_nn_key_parts_begin(nn, &queries, parts);
    dk_tensor travel[2] = {dk_nn_temp(nn, nn->type, 2 * largest, s->width),
                           dk_nn_temp(nn, nn->type, 2 * largest, s->width)};
    const char *here = kv;
    for (int step = 0; step < s->rs; step++) {
        int from = (s->r - step + s->rs) % s->rs, next = (from - 1 + s->rs) % s->rs;
        size_t bytes = dk_nn_bytes(nn, s->block_of[from] * s->width);
        size_t coming = dk_nn_bytes(nn, s->block_of[next] * s->width);
        void *into = travel[step % 2].data;
        dk_nn_transfer transfer = {0};
        if (step + 1 < s->rs) {
            transfer = dk_nn_start_shift(nn, s->ring, into, 2 * coming, here, 2 * bytes);
        }
        dk_nn_key_parts_add(nn, &sum, here, here + bytes, s->width, s->block_of[from]);
        dk_nn_finish(nn, &transfer);
        here = into;
    }
    dk_nn_unwind(nn, mark);
}

/* Without Ulysses ranks what is projected is a block already; what is done to a sequence's rows
   is done once. */
void dk_nn_ring_forward(dk_nn *nn, const dk_nn_sequence *s, const dk_tensor *dst,
                        const dk_tensor *h)
{
    const dk_nn_self_attention *a = s->a;
    int64_t in = h->shape[1], part = s->rows * s->cols;
    dk_tensor q = dk_nn_temp(nn, nn->type, a->count * s->rows, s->cols);
    dk_tensor kv = dk_nn_temp(nn, nn->type, 2 * a->count * s->rows, s->cols);
    for (int i = 0; i < a->count; i++) {
        void *places[] = {[DK_NN_Q] = dk_nn_at(nn, q.data, i * part),
                          [DK_NN_K] = dk_nn_at(nn, kv.data, 2 * i * part),
                          [DK_NN_V] = dk_nn_at(nn, kv.data, (2 * i + 1) * part)};
        size_t skip = (size_t)(i * s->rows * in) * dk_dtype_bytes(h->dtype);
        dk_tensor rows = DK_TENSOR((char *)h->data + skip, h->dtype, s->rows, in);
        dk_tensor out[3];
        dk_nn_linear_call calls[3];
        for (int which = 0; which < 3; which++) {
            out[which] = DK_TENSOR(places[which], nn->type, s->rows, s->cols);
            calls[which] = (dk_nn_linear_call){dk_nn_projection(a, which), &out[which], NULL};
        }
        dk_nn_linear_group(nn, &rows, calls, 3);
        dk_nn_prepare_rows(nn, s, DK_NN_Q, places[DK_NN_Q]);
        dk_nn_prepare_rows(nn, s, DK_NN_K, places[DK_NN_K]);
    }
    for (int i = 0; i < a->count; i++) {
        dk_nn_attend_ring(nn, s, dk_nn_at(nn, dst->data, i * part),
                          dk_nn_at(nn, q.data, i * part), dk_nn_at(nn, kv.data, 2 * i * part));
    }
}
