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
#include "nn/context.h"

typedef struct dk_embedding_cache dk_embedding_cache;

/* most_bytes: of embeddings and ids in memory; the ones that were not used for longest go. 0:
   none. folder: made when it is missing; NULL: nothing on disk. identity: of the text encoder
   and its arithmetic. Owned. */
dk_embedding_cache *dk_embedding_cache_create(uint64_t most_bytes, const char *folder,
                                              const char *identity);
void dk_embedding_cache_destroy(dk_embedding_cache **cache);

/* The word of one thread that it makes an embedding, which others need not make too. */
typedef struct dk_embedding_claim dk_embedding_claim;

/* The embedding of the ids, [count][width]; owned. NULL: not there, or no memory for a copy.
   Then *claim, if it is not NULL, obliges the caller to settle it, after computing or failing.

   waiter: where a request computes; what another thread is making is waited for, until waiter
   is asked to stop. NULL: the caller prepares a request that will come; it does not wait (and
   gets neither values nor a claim), nor do the numbers of hits and misses tell of it. cache may
   be NULL. */
float *dk_embedding_cache_claim(dk_embedding_cache *cache, const int32_t *ids, int64_t count,
                                int64_t width, const dk_nn *waiter, dk_embedding_claim **claim);
/* Keeps a copy of the values, [count][width]; NULL: there are none, and one who waits makes
   them. What cannot be kept is not. *claim may be NULL, and is afterwards. */
void dk_embedding_cache_settle(dk_embedding_cache *cache, dk_embedding_claim **claim,
                               const float *values);

void dk_embedding_cache_stats(dk_embedding_cache *cache, dk_embedding_stats *out);

#endif
