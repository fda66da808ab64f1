/* Self-attention of a sequence that is shared out among the ranks of a sequence-parallel group,
   or whole on one. Sources: Jacobs et al., "DeepSpeed Ulysses" (2023): queries, keys and values
   change from a part of the rows to a part of the heads and back; Liu et al., "Ring Attention
   with Blockwise Transformers" (2023): keys and values travel from rank to rank. Both together:
   Fang and Zhao, "USP: A Unified Sequence Parallelism Approach" (2024).

   What travels does so beside the device's work: values while keys are projected, keys while
   queries are, queries and results by groups of heads, while those of another group are
   attended to; on devices that add up parts of the keys, and are not exact, a rank's own rows
   attend to each other and, behind the others', to theirs meanwhile; in a ring a block of keys
   and values while the one before is attended to. (Heads cannot leave group by group while the
   next group is projected where, as in Wan, queries and keys are normed over all heads of a
   row.) */
#ifndef DK_NN_SELF_ATTENTION_H
#define DK_NN_SELF_ATTENTION_H

#include "nn/layers.h"

typedef struct dk_nn_self_attention {
    const dk_nn_linear *to_q, *to_k, *to_v;
    const dk_nn_head_norm *norm_q, *norm_k; /* NULL: none */
    const dk_nn_rope *rope;                 /* of this rank's rows of a sequence; NULL: none */
    int heads, head_dim; /* heads: of this rank, where a model's are shared out */
    float scale;
    int64_t tokens; /* of a whole sequence */
    int count;      /* sequences, whose rows lie one behind the other */
} dk_nn_self_attention;

/* dst: [count * this rank's rows][heads * head_dim], h: [the same rows][in]. */
void dk_nn_self_attention_forward(dk_nn *nn, const dk_nn_self_attention *attention,
                                  const dk_tensor *dst, const dk_tensor *h);

#endif
