/* Fuzz target: the reader of safetensors files; what it accepts lies inside the input. */
#include <stdlib.h>
#include <string.h>

#include "weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const dk_safetensors *file, const uint8_t *data, size_t size)
{
    unsigned sum = 0;
    size_t covered = 0;
    for (int i = 0; i < dk_safetensors_count(file); i++) {
        const dk_weight *weight = dk_safetensors_at(file, i);
        const uint8_t *bytes = weight->tensor.data;
        size_t count = dk_tensor_bytes(&weight->tensor);
        if (dk_safetensors_find(file, weight->name) != weight || bytes < data ||
            bytes + count > data + size) {
            abort();
        }
        if (count > 0) {
            sum += (unsigned)bytes[0] + bytes[count - 1];
        }
        covered += count;
    }
    if (covered > size || sum > 512u * (unsigned)dk_safetensors_count(file)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dk_safetensors *file = NULL;
    dk_error err;
    if (dk_safetensors_parse(&file, data, size, "input", &err) == DK_OK) {
        walk(file, data, size);
        dk_safetensors_metadata(file, "format");
        dk_safetensors_close(&file);
    } else if (file != NULL || strlen(err.message) < sizeof "input: ") {
        abort();
    }
    return 0;
}
