/* What the targets of pictures share. */
#ifndef DK_TESTS_DECODE_SOME_H
#define DK_TESTS_DECODE_SOME_H

#include <stdlib.h>

#include "media/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decodes the input as a picture of up to 64 Ki pixels and reads every byte of the result. */
static inline int decode_some(const uint8_t *data, size_t size)
{
    const dk_media_limits limits = {.max_pixels = 1 << 16, .max_bytes = 1 << 20};
    dk_image image = {0};
    if (dk_image_decode(&image, data, size, "input", &limits, NULL) == DK_OK) {
        volatile unsigned sum = 0;
        if (image.width < 1 || image.height < 1 || image.width * image.height > 1 << 16) {
            abort();
        }
        for (int i = 0; i < image.width * image.height * 3; i++) {
            sum += image.rgb[i];
        }
    } else if (image.rgb != NULL) {
        abort();
    }
    dk_image_release(&image);
    return 0;
}

#endif
