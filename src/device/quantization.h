/* Weights in fewer bits than their files have. */
#ifndef DK_DEVICE_QUANTIZATION_H
#define DK_DEVICE_QUANTIZATION_H

#include "base/error.h"

typedef enum dk_quantization {
    DK_QUANTIZATION_NONE,
    DK_QUANTIZATION_INT8,         /* weights and activations: a scale per column and per row */
    DK_QUANTIZATION_INT8_WEIGHTS, /* weights alone, a scale per column */
    DK_QUANTIZATION_INT4_WEIGHTS, /* [-7, 7], a scale per column and 64 of its elements */
    DK_QUANTIZATION_FP8_WEIGHTS,  /* e4m3, a scale per column */
    DK_QUANTIZATION_COUNT
} dk_quantization;

enum { DK_INT4_GROUP = 64 };

/* "none" (or NULL), "int8", "int8-weights", "int4-weights", "fp8-weights". */
DK_MUST_USE dk_status dk_quantization_from_name(dk_quantization *out, const char *name,
                                                dk_error *err);
const char *dk_quantization_name(dk_quantization quantization);

/* What a layer may err by (relative RMS of its output) before it keeps its stored type, unless
   the user says otherwise: a little above what normal numbers lose by the rounding alone. */
double dk_quantization_max_error(dk_quantization quantization);

#endif
