/* Fuzz target: the search for a recipe in files of every format. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "media/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = NULL;
    if (dk_media_decode_recipe(&text, data, size, "input", NULL) == DK_OK) {
        if (text[0] != '{' || strlen(text) > DK_MEDIA_RECIPE_BYTES) {
            abort();
        }
        dk_free(text);
    }
    return 0;
}
