/* Blocks of a model: what has to be done around each, whatever the model. */
#ifndef DK_NN_BLOCK_H
#define DK_NN_BLOCK_H

#include "nn/context.h"
#include "weights/binder.h"

/* Around the use of block i's weights, in the order of blocks where there are several, by all
   ranks alike: weights that ranks share out (weights/shards.h) are whole in between. */
void dk_nn_weights_begin(dk_nn *nn, const dk_bound *bound, int block);
void dk_nn_weights_end(dk_nn *nn, const dk_bound *bound, int block);

/* The same around a block whose result is x which is guarded too. Ranks that have no
   rows at the moment, so that x has none, call it as well. */
void dk_nn_block_begin(dk_nn *nn, dk_component component, const dk_bound *bound, int block);
void dk_nn_block_end(dk_nn *nn, dk_component component, const dk_bound *bound, int block,
                     const dk_tensor *x);

#endif
