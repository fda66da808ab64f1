/* The kinds of quantisation by name. */
#include "device/quantization.h"

#include <stddef.h>
#include <string.h>

static const struct {
    const char *name;
    double max_error;
} kinds[DK_QUANTIZATION_COUNT] = {
    [DK_QUANTIZATION_NONE] = {"none", 0},
    [DK_QUANTIZATION_INT8] = {"int8", 0.03},
    [DK_QUANTIZATION_INT8_WEIGHTS] = {"int8-weights", 0.02},
    [DK_QUANTIZATION_INT4_WEIGHTS] = {"int4-weights", 0.15},
    [DK_QUANTIZATION_FP8_WEIGHTS] = {"fp8-weights", 0.05},
};

dk_status dk_quantization_from_name(dk_quantization *out, const char *name, dk_error *err)
{
    for (int i = 0; i < DK_QUANTIZATION_COUNT; i++) {
        if (strcmp(name != NULL ? name : "none", kinds[i].name) == 0) {
            *out = (dk_quantization)i;
            return DK_OK;
        }
    }
    return dk_fail(err, DK_INVALID,
                   "quantization is '%s', accepted are none, int8, int8-weights, "
                   "int4-weights, fp8-weights",
                   name);
}

const char *dk_quantization_name(dk_quantization quantization)
{
    return kinds[quantization].name;
}

double dk_quantization_max_error(dk_quantization quantization)
{
    return kinds[quantization].max_error;
}
