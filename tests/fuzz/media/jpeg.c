/* Fuzz target: the reader of JPEG pictures. */
#include "decode_some.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return decode_some(data, size);
}
