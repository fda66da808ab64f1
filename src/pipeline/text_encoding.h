/* A prompt becomes ids, ids become an embedding: for the stage, and for what runs ahead of it.
 */
#ifndef DK_PIPELINE_TEXT_ENCODING_H
#define DK_PIPELINE_TEXT_ENCODING_H

#include "pipeline/pipeline.h"

/* Cleans and cuts the text as the model's pipeline does. name: of the text, in errors. Tokens
   are owned. From any thread. */
DK_MUST_USE dk_status dk_text_tokenize(const dk_pipeline *pipeline, const char *name,
                                       const char *text, dk_tokens *tokens, dk_error *err);

/* *values: [tokens->count][width], owned. Computes on nn's device and waits for it;
   DK_CANCELLED when nn is asked to stop. One thread per nn and device. */
DK_MUST_USE dk_status dk_text_forward(dk_nn *nn, const dk_t5_encoder *encoder,
                                      const dk_tokens *tokens, float **values, dk_error *err);

#endif
