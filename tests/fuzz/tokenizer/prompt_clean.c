/* Fuzz target: cleaning of prompts; what comes out is valid UTF-8 without double spaces. */
#include <stdlib.h>

#include "tokenizer/clean.h"
#include "tokenizer/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dk_string out = DK_STRING_EMPTY;
    if (dk_clean_prompt_wan(&out, (const char *)data, size, NULL) == DK_OK) {
        if (dk_utf8_check(dk_string_text(&out), out.length, "output", NULL) != DK_OK) {
            abort();
        }
        for (size_t i = 1; i < out.length; i++) {
            if (out.data[i] == ' ' && out.data[i - 1] == ' ') {
                abort();
            }
        }
    }
    dk_string_release(&out);
    return 0;
}
