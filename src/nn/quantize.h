/* Linear layers with weights in fewer bits, quantised while a model is loaded
   (device/quantization.h). INT8 multiplies whole numbers: rows of activations get a scale of
   their own in every call. Source: Dettmers et al., "LLM.int8()" (2022), its vector-wise
   quantisation.

   Each layer is measured before it is trusted: through the device's own kernels, against f32.
   What errs more than the bound keeps its stored weight. */
#ifndef DK_NN_QUANTIZE_H
#define DK_NN_QUANTIZE_H

#include "base/log.h"
#include "base/string.h"
#include "nn/layers.h"

/* The quantised weights of a model, and what was seen while they were made. Zero is empty. */
typedef struct dk_nn_quantized {
    dk_device *device;             /* borrowed: owns the memory below */
    dk_linear_quantized **weights; /* [layers], owned */
    dk_quantization kind;
    int layers, kept; /* quantised; as stored, since their error is above the bound */
    double worst;     /* largest error of the quantised layers */
    dk_string worst_name;
    dk_string kept_names; /* "blocks.0.ffn.net.2 (0.041), …" */
    size_t bytes;         /* of the quantised weights */
} dk_nn_quantized;

void dk_nn_quantized_release(dk_nn_quantized *quantized);
/* "int8: 240 layers, 1310.2 MB, largest error 0.0107 (blocks.2.attn1.to_q), 0 kept as stored";
 * owned. */
char *dk_nn_quantized_text(const dk_nn_quantized *quantized);

typedef struct dk_nn_quantizer {
    dk_device *device;         /* borrowed */
    const atomic_bool *cancel; /* borrowed, may be NULL; looked at before each layer */
    const dk_log *log;         /* borrowed, may be NULL: a warning per layer that is kept */
    dk_quantization kind;      /* not NONE */
    double max_error;          /* relative RMS of a layer's output */
    dk_shards *shards;         /* borrowed: where the weights are; NULL: at hand */
    dk_nn_quantized *out;      /* borrowed */
} dk_nn_quantizer;

/* Gives the layer a quantised weight, or leaves it. name: in reports. */
DK_MUST_USE dk_status dk_nn_quantize(const dk_nn_quantizer *quantizer, dk_nn_linear *layer,
                                     const char *name, dk_error *err);

#endif
