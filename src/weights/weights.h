/* The weights of one component of a model: a folder's safetensors file or shards, mapped and
   shared by reference counting, or random numbers made in memory for benchmarks. */
#ifndef DK_WEIGHTS_WEIGHTS_H
#define DK_WEIGHTS_WEIGHTS_H

#include "comm/groups.h"
#include "device/device.h"
#include "weights/safetensors.h"
#include "weights/shards.h"

typedef struct dk_weights dk_weights;

/* Opens <stem>.safetensors or <stem>.safetensors.index.json with its shards, where stem is
   diffusion_pytorch_model or model. Owned: one reference. */
DK_MUST_USE dk_status dk_weights_open(dk_weights **out, const char *folder, dk_error *err);

/* Weights that have every tensor that is asked for: normal numbers, spread 0.02, in `dtype`,
   drawn from the seed and the tensor's name; norm weights are near 1. */
dk_weights *dk_weights_create_random(dk_dtype dtype, uint64_t seed);

dk_weights *dk_weights_ref(dk_weights *weights); /* returns weights */
void dk_weights_unref(dk_weights *weights);      /* NULL is fine */

/* Models that bind these weights tell this device (borrowed; NULL: none, as at first) about
   them, as those of a component. */
void dk_weights_attach(dk_weights *weights, dk_device *device, dk_component component);
dk_device *dk_weights_device(const dk_weights *weights, dk_component *component);

/* Models that bind these weights take this rank's part of what their layers split (borrowed;
   NULL: all of it, as at first). */
void dk_weights_split(dk_weights *weights, dk_comm *comm);
dk_comm *dk_weights_comm(const dk_weights *weights);

/* Models that bind these weights get what is called "<prefix>N.…" from a store, as its layer N
   (both borrowed; NULL: no weight, as at first). Not of random weights. */
void dk_weights_shard(dk_weights *weights, dk_shards *shards, const char *prefix);
dk_shards *dk_weights_shards(const dk_weights *weights);
/* The layer of a weight; -1: it is not shared out. */
int dk_weights_layer(const dk_weights *weights, const char *name);

/* Borrowed until the last reference goes; NULL when absent. */
const dk_weight *dk_weights_find(const dk_weights *weights, const char *name);
int dk_weights_count(const dk_weights *weights);
const dk_weight *dk_weights_at(const dk_weights *weights, int index);

/* Random weights only: makes the tensor. */
bool dk_weights_are_random(const dk_weights *weights);
DK_MUST_USE dk_status dk_weights_make(dk_weights *weights, const dk_weight **out,
                                      const char *name, int rank, const int64_t *shape,
                                      dk_error *err);

/* The files behind the weights, in order; paths are borrowed. None for random ones. */
int dk_weights_file_count(const dk_weights *weights);
const char *dk_weights_file(const dk_weights *weights, int index);

#endif
