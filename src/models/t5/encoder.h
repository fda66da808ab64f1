/* The encoders of T5 v1.1 and UMT5: Raffel et al., "Exploring the Limits of Transfer Learning"
   (2020); Chung et al., "UniMax" (2023). Checkpoint layout: transformers' T5EncoderModel and
   UMT5EncoderModel. */
#ifndef DK_MODELS_T5_ENCODER_H
#define DK_MODELS_T5_ENCODER_H

#include <jansson.h>

#include "nn/context.h"
#include "weights/weights.h"

typedef struct dk_t5_encoder dk_t5_encoder;

typedef struct dk_t5_config {
    int64_t vocab_size, d_model, d_kv, d_ff, num_layers, num_heads;
    int64_t num_buckets, max_distance;
    double layer_norm_epsilon;
    bool bias_per_layer; /* UMT5: every layer has its own table; T5: the first layer's serves
                            all */
} dk_t5_config;

/* where: the name of the configuration in messages. */
DK_MUST_USE dk_status dk_t5_config_parse(dk_t5_config *out, const json_t *json,
                                         const char *where, dk_error *err);

/* Binds the weights (which the encoder keeps a reference to). Owned. */
DK_MUST_USE dk_status dk_t5_encoder_create(dk_t5_encoder **out, const dk_t5_config *config,
                                           dk_weights *weights, const char *where,
                                           dk_error *err);
void dk_t5_encoder_destroy(dk_t5_encoder **encoder);
const dk_t5_config *dk_t5_encoder_config(const dk_t5_encoder *encoder);

/* dst: [count][d_model] F32, the final hidden states of `count` tokens, all of them real: a
   padded position changes no other one when it is masked, so padding is never computed. */
DK_MUST_USE dk_status dk_t5_encoder_forward(dk_nn *nn, const dk_t5_encoder *encoder,
                                            const dk_tensor *dst, const int32_t *ids, int count,
                                            dk_error *err);

#endif
