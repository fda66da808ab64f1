/* Pictures of another size. */
#ifndef DK_MEDIA_RESIZE_H
#define DK_MEDIA_RESIZE_H

#include <stdint.h>

#include "base/error.h"

typedef enum dk_resize_filter {
    DK_RESIZE_CUBIC, /* Catmull-Rom, widened when a picture shrinks: for pictures */
    DK_RESIZE_AREA,  /* the mean over a pixel's area: for masks */
} dk_resize_filter;

/* A picture or plane of 8-bit samples, rows one behind the other. */
typedef struct dk_samples {
    int height, width, channels;
    const uint8_t *data; /* [height][width][channels], borrowed */
} dk_samples;

/* dst: [height][width][src->channels], rounded, in 0..255. A picture that has the size already
   is copied. Sizes are above 0; DK_MEMORY is the only failure. */
DK_MUST_USE dk_status dk_resize(uint8_t *dst, int height, int width, const dk_samples *src,
                                dk_resize_filter filter, dk_error *err);

#endif
