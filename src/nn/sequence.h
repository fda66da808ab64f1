/* A sequence whose self-attention is shared out among ranks: who has which rows and heads, and
   the two ways to attend. For nn/self_attention.c and the files of the two ways. */
#ifndef DK_NN_SEQUENCE_H
#define DK_NN_SEQUENCE_H

#include "nn/parallel.h"
#include "nn/self_attention.h"

/* How one sequence lies: rows of this rank, of each Ulysses rank and of each ring block; heads
   of each Ulysses rank. */
typedef struct dk_nn_sequence {
    const dk_nn_self_attention *a;
    dk_comm *ulysses, *ring; /* NULL: one rank */
    int u, us, r, rs;
    int64_t rows, cols;                   /* of this rank, all heads */
    int64_t block;                        /* rows of this rank's ring block */
    int64_t rows_of[DK_COMM_MOST_RANKS];  /* by Ulysses rank */
    int64_t block_of[DK_COMM_MOST_RANKS]; /* by ring rank */
    int heads_of[DK_COMM_MOST_RANKS];     /* by Ulysses rank */
    int heads;                            /* of this rank, after the exchange */
    int64_t width;                        /* heads * head_dim */
} dk_nn_sequence;

enum { DK_NN_Q, DK_NN_K, DK_NN_V };

dk_nn_sequence dk_nn_sequence_of(const dk_nn *nn, const dk_nn_self_attention *attention);

size_t dk_nn_bytes(const dk_nn *nn, int64_t elements); /* of nn's type */
void *dk_nn_at(const dk_nn *nn, void *base, int64_t elements);

const dk_nn_linear *dk_nn_projection(const dk_nn_self_attention *a, int which);
/* Norms and rotates one sequence's queries or keys, which lie there; nothing for values. */
void dk_nn_prepare_rows(dk_nn *nn, const dk_nn_sequence *sequence, int which, void *rows);

/* All queries of a ring block, [block][width], to the keys and values of all blocks, which come
   by; kv: [2][block][width], this rank's; dst: [block][width]. */
void dk_nn_attend_ring(dk_nn *nn, const dk_nn_sequence *sequence, void *dst, const void *q,
                       const void *kv);

/* The two ways; dst and h as of dk_nn_self_attention_forward. Ulysses, where there is a ring
   too, attends by it. */
void dk_nn_ring_forward(dk_nn *nn, const dk_nn_sequence *sequence, const dk_tensor *dst,
                        const dk_tensor *h);
void dk_nn_ulysses_forward(dk_nn *nn, const dk_nn_sequence *sequence, const dk_tensor *dst,
                           const dk_tensor *h);

#endif
