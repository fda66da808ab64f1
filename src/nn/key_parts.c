/* Parts of the keys, added up by the device or merged. */
#include "nn/key_parts.h"

dk_nn_key_parts dk_nn_key_parts_begin(dk_nn *nn, const dk_attention_args *queries, int parts)
{
    int64_t width = (int64_t)queries->heads * queries->head_dim;
    dk_nn_key_parts p = {
        .queries = *queries, .left = parts, .whole = parts == 1, .first = true};
    if (p.whole) {
        return p;
    }
    p.sum = dk_nn_temp(nn, DK_F32, queries->q_len, width);
    p.running = dk_nn_temp(nn, DK_F32, 2 * queries->heads, queries->q_len);
    if (!nn->device->adds_parts) {
        p.part = dk_nn_temp(nn, nn->type, queries->q_len, width);
    }
    return p;
}

/* Where attention gives a part's result by itself. */
static void merge_part(dk_nn *nn, const dk_nn_key_parts *p, dk_attention_args *attention)
{
    int64_t width = (int64_t)attention->heads * attention->head_dim;
    float *part_lse = (float *)p->running.data + attention->heads * attention->q_len;
    const dk_nn_columns sum = {p->sum.data, width, DK_F32};
    const dk_nn_columns dst = {attention->dst, attention->dst_stride, nn->type};
    const dk_attention_merge_args merge = {.heads = attention->heads,
                                           .head_dim = attention->head_dim,
                                           .rows = attention->q_len,
                                           .sum = p->sum.data,
                                           .sum_lse = p->running.data,
                                           .part = p->part.data,
                                           .part_lse = part_lse,
                                           .type = nn->type,
                                           .first = p->first};
    attention->dst = p->part.data;
    attention->dst_stride = width;
    attention->lse = part_lse;
    dk_device_attention(nn->device, attention);
    dk_device_merge(nn->device, &merge);
    if (p->left == 0) {
        dk_nn_copy_columns(nn, dst, sum, attention->q_len, width);
    }
}

void dk_nn_key_parts_add(dk_nn *nn, dk_nn_key_parts *p, const void *k, const void *v,
                         int64_t stride, int64_t keys)
{
    dk_attention_args attention = p->queries;
    if (keys == 0) {
        return;
    }
    p->left--;
    attention.kv_len = keys;
    attention.k = k;
    attention.v = v;
    attention.k_stride = attention.v_stride = stride;
    if (attention.q_len == 0 || attention.heads == 0) {
        return;
    }
    if (p->whole) {
        dk_device_attention(nn->device, &attention);
    } else if (nn->device->adds_parts) {
        attention.sum = p->sum.data;
        attention.running = p->running.data;
        attention.first = p->first;
        attention.last = p->left == 0;
        dk_device_attention(nn->device, &attention);
    } else {
        merge_part(nn, p, &attention);
    }
    p->first = false;
}
