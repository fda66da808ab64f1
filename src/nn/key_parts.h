/* Attention to keys that come in parts: a ring's blocks, one's own rows and others'. */
#ifndef DK_NN_KEY_PARTS_H
#define DK_NN_KEY_PARTS_H

#include "nn/layers.h"

/* Of some queries. */
typedef struct dk_nn_key_parts {
    dk_attention_args queries; /* without keys and values */
    int left;                  /* parts that are to come */
    bool whole, first;         /* whole: there is one part */
    dk_tensor sum;             /* [q_len][heads * head_dim], F32 */
    dk_tensor running;         /* [2 * heads][q_len], F32: of the sum; log-sum-exps of the sum
                                  and of one part where the device does not add by itself */
    dk_tensor part;            /* the part then, [q_len][heads * head_dim] */
} dk_nn_key_parts;

/* queries: heads, their size, queries, dst and its stride; temporaries are taken. parts: those
   with keys. */
dk_nn_key_parts dk_nn_key_parts_begin(dk_nn *nn, const dk_attention_args *queries, int parts);
/* One more part of `keys` keys, rows of `stride` elements; none: nothing. After the last one
   dst holds the result. */
void dk_nn_key_parts_add(dk_nn *nn, dk_nn_key_parts *parts, const void *k, const void *v,
                         int64_t stride, int64_t keys);

#endif
