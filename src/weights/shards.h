/* Weights of layers that several ranks share out: each keeps 1/n of every layer, and a layer is
   whole while it is used. The next one is gathered meanwhile, the first one after the last; so
   two layers are whole at a time.

   A weight has one address as long as the store lives, in a region of its layer's. Between uses
   that has no pages. Who reads weights there brackets their layer by dk_shards_begin and
   dk_shards_end, on all ranks at the same place among their calls.

   From a file a rank reads what it keeps. A weight that is replaced by another form of itself
   (quantised) is read whole for that; layer by layer what came of it is shared out. */
#ifndef DK_WEIGHTS_SHARDS_H
#define DK_WEIGHTS_SHARDS_H

#include "comm/communicator.h"
#include "tensor/dtype.h"

typedef struct dk_shards dk_shards;

/* Over comm's ranks (borrowed, longer than the last dk_shards_begin). Owned. */
dk_shards *dk_shards_create(dk_comm *comm);
void dk_shards_destroy(dk_shards **shards); /* NULL is fine; no call is under way */
/* Waits for the layer that is on its way. */
void dk_shards_settle(dk_shards *shards);

/* Rows of numbers in a mapped file, borrowed until the store is sealed. */
typedef struct dk_shard_source {
    const void *data;
    dk_dtype type;
    size_t rows, cols, stride; /* stride: bytes */
} dk_shard_source;

/* *address, a multiple of DK_ALIGNMENT, is the weight's, one row behind the other, as numbers
   of `type`: the source's, or one that dk_convert_from_f32 makes. room: bytes that all weights
   of this layer take at most, as the first of them is added. */
DK_MUST_USE dk_status dk_shards_add(dk_shards *shards, void **address, int layer, size_t room,
                                    const dk_shard_source *source, dk_dtype type,
                                    dk_error *err);

/* Until the store is sealed: the weight at an address that dk_shards_add gave can be read,
   until one of another layer is asked for. */
DK_MUST_USE dk_status dk_shards_read(dk_shards *shards, void *address, dk_error *err);
/* A copy of `bytes` takes the weight's place; *moved is the address of what they are from then
   on. */
DK_MUST_USE dk_status dk_shards_replace(dk_shards *shards, void **moved, void *address,
                                        const void *data, size_t bytes, dk_error *err);

/* Takes this rank's part of all layers; nothing can be added after that. */
DK_MUST_USE dk_status dk_shards_seal(dk_shards *shards, dk_error *err);

/* Around a layer's use; they nest in nothing. After a failure the layer holds anything. */
DK_MUST_USE dk_status dk_shards_begin(dk_shards *shards, int layer, dk_error *err);
void dk_shards_end(dk_shards *shards, int layer);

/* Where a layer's weights are, those that nothing replaced and those that replaced others. */
const void *dk_shards_region(const dk_shards *shards, int layer, size_t *bytes);

/* What this rank keeps, and what it has while it works: that and the two largest neighbours. */
typedef struct dk_shards_size {
    size_t whole;  /* of all layers */
    size_t stored; /* what they are in their files */
    size_t kept, most;
    int layers, ranks;
} dk_shards_size;
dk_shards_size dk_shards_get_size(const dk_shards *shards);

#endif
