/* Fuzz target: the reader of tokenizer.json, and encoding with what it accepts. */
#include "encode_some.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dk_tokenizer *t = NULL;
    if (dk_tokenizer_parse_json(&t, (const char *)data, size, "input", NULL) == DK_OK) {
        encode_some(t);
        dk_tokenizer_close(&t);
    }
    return 0;
}
