/* What the targets of pictures share. */
#ifndef DK_TESTS_DECODE_SOME_H
#define DK_TESTS_DECODE_SOME_H

#include <stdlib.h>
#include <string.h>

#include "media/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decodes the input twice as a picture of up to 64 Ki pixels, without and with its alpha: sizes
   within the limits, and the same colours each time. */
static inline int decode_some(const uint8_t *data, size_t size)
{
    enum { MAX_PIXELS = 1 << 16, CHANNELS = 3 };
    const dk_media_limits limits = {.max_pixels = MAX_PIXELS, .max_bytes = 1 << 20};
    const dk_media_limits keep = {
        .max_pixels = MAX_PIXELS, .max_bytes = 1 << 20, .keep_alpha = true};
    dk_image first = {0}, second = {0};
    dk_status status = dk_image_decode(&first, data, size, "input", &limits, NULL);
    if (status != DK_OK) {
        if (first.rgb != NULL) {
            abort();
        }
        return 0;
    }
    size_t pixels = (size_t)first.width * (size_t)first.height;
    if (first.width < 1 || first.height < 1 || pixels > MAX_PIXELS ||
        dk_image_decode(&second, data, size, "input", &keep, NULL) != DK_OK ||
        second.width != first.width || memcmp(first.rgb, second.rgb, pixels * CHANNELS) != 0) {
        abort();
    }
    dk_image_release(&first);
    dk_image_release(&second);
    return 0;
}

#endif
