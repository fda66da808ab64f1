/* What both targets do with a tokenizer that parsed: a few texts become ids within bounds. */
#ifndef DK_TESTS_FUZZ_ENCODE_SOME_H
#define DK_TESTS_FUZZ_ENCODE_SOME_H

#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

static void encode_some(const dk_tokenizer *t)
{
    static const char *const texts[] = {"", " a cat  on the grass ", "</s>a<x> b<unk>",
                                        "\xE7\x8C\xAB\xF0\x9F\x90\xB1 e\xCC\x81",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        dk_tokens tokens = {0};
        if (dk_tokenizer_encode(t, texts[i], strlen(texts[i]), 64, &tokens, NULL) != DK_OK) {
            continue;
        }
        for (size_t k = 0; k < tokens.count; k++) {
            if (tokens.ids[k] < 0 || tokens.ids[k] > dk_tokenizer_largest_id(t)) {
                abort();
            }
        }
        dk_tokens_release(&tokens);
    }
}

#endif
