/* Text embeddings of prompts that were encoded before, in memory and, where a folder is named,
   on disk. What is found has the bits that would be computed: the key is the token ids
   themselves, and a folder may serve several models, which an identity tells apart. From any
   thread. */
#ifndef DK_PIPELINE_EMBEDDING_CACHE_H
#define DK_PIPELINE_EMBEDDING_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "darkroom/darkroom.h"

typedef struct dk_embedding_cache dk_embedding_cache;

/* most_bytes: of embeddings and ids in memory; the ones that were not used for longest go. 0:
   none. folder: made when it is missing; NULL: nothing on disk. identity: of the text encoder
   and its arithmetic. Owned. */
dk_embedding_cache *dk_embedding_cache_create(uint64_t most_bytes, const char *folder,
                                              const char *identity);
void dk_embedding_cache_destroy(dk_embedding_cache **cache);

/* values: [count][width]; owned. NULL: not there, or no memory for a copy. cache may be NULL.
 */
float *dk_embedding_cache_find(dk_embedding_cache *cache, const int32_t *ids, int64_t count,
                               int64_t width);
/* Keeps a copy. What cannot be kept is not. */
void dk_embedding_cache_keep(dk_embedding_cache *cache, const int32_t *ids, int64_t count,
                             int64_t width, const float *values);

void dk_embedding_cache_stats(dk_embedding_cache *cache, dk_embedding_stats *out);

#endif
