/* Checkpoints made of a list of tensors: names and shapes with zeros for data, written as
   sparse files, so that those of published models take no room. */
#ifndef DK_TESTS_CHECKPOINT_H
#define DK_TESTS_CHECKPOINT_H

#include <stdbool.h>

#include "weights/weights.h"

typedef struct checkpoint {
    dk_safetensors_entry *entries; /* owned, names too */
    int count;
} checkpoint;

/* From a list "name [shape]" a line, where {0..29} in a name stands for 30 tensors and '#'
   begins a comment. */
void checkpoint_read(checkpoint *out, const char *path);
/* The names, types and shapes of an open file or its shards. */
void checkpoint_copy(checkpoint *out, const dk_weights *weights);
void checkpoint_release(checkpoint *c);

void checkpoint_add(checkpoint *c, const char *name, dk_dtype dtype, int rank,
                    const int64_t *shape);
dk_tensor *checkpoint_find(checkpoint *c, const char *name); /* NULL: absent */
void checkpoint_drop(checkpoint *c, const char *name);
size_t checkpoint_bytes(const checkpoint *c); /* of all tensors */

/* Writes folder/model.safetensors and opens it; NULL when the file system takes no file of that
   size. */
dk_weights *checkpoint_open(const checkpoint *c, const char *folder);

#endif
