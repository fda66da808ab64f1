/* Prompts that are encoded ahead of their requests: a thread that computes on a device of its
   own while another device denoises, and keeps what it made in the cache of embeddings. What it
   did not do, or could not, the request's own stage does. */
#ifndef DK_PIPELINE_TEXT_AHEAD_H
#define DK_PIPELINE_TEXT_AHEAD_H

#include "pipeline/pipeline.h"

typedef struct dk_text_ahead dk_text_ahead;

/* nn: over a device that nobody else uses. All are borrowed until the end. Owned. */
DK_MUST_USE dk_status dk_text_ahead_create(dk_text_ahead **out, const dk_pipeline *pipeline,
                                           dk_nn *nn, dk_embedding_cache *cache,
                                           const dk_log *log, dk_error *err);
/* Stops within one block of the encoder. */
void dk_text_ahead_destroy(dk_text_ahead **ahead);

/* Takes note of a prompt and returns at once. One that waits already, is longer than any model
   reads, or finds DK_TEXT_AHEAD_MOST waiting is passed over. From any thread. */
enum { DK_TEXT_AHEAD_MOST = 64, DK_TEXT_AHEAD_BYTES = 1 << 16 };
void dk_text_ahead_add(dk_text_ahead *ahead, const char *prompt);

/* Between these two the thread does not compute: a request that runs needs the processor. What
   it was at it begins again. ahead may be NULL. */
void dk_text_ahead_pause(dk_text_ahead *ahead);
void dk_text_ahead_go_on(dk_text_ahead *ahead);

#endif
