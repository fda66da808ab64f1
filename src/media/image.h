/* Pictures that come in: PNG, JPEG and WebP, told apart by content, become 8-bit RGB. Made for
   files of strangers: sizes are checked from the header, before anything is allocated. */
#ifndef DK_MEDIA_IMAGE_H
#define DK_MEDIA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dk_image {
    int height, width;
    uint8_t *rgb;   /* [height][width][3], owned; NULL after release */
    uint8_t *alpha; /* [height][width], owned, 0: transparent; NULL: the file has none, or it
                       was not asked for */
} dk_image;

void dk_image_release(dk_image *image); /* also fine for a zeroed one */

/* Zero members mean the default. */
typedef struct dk_media_limits {
    uint64_t max_pixels; /* of the picture; default 64 Mi */
    size_t max_bytes;    /* of the file; default 256 MiB */
    bool keep_alpha;     /* of PNG and WebP; else it is dropped */
} dk_media_limits;

/* Owned (dk_image_release). limits may be NULL: the defaults. Colours under transparent pixels
   stay what they are; 16-bit samples keep their high byte, gray and palettes become RGB; gamma,
   colour profiles and the EXIF orientation are ignored. DK_FORMAT: malformed or over a limit;
   DK_UNSUPPORTED: a kind of picture that is not read (GIF, CMYK, animations). */
DK_MUST_USE dk_status dk_media_read_image(dk_image *out, const char *path,
                                          const dk_media_limits *limits, dk_error *err);

/* The same for a file in memory; `where` names it in messages. */
DK_MUST_USE dk_status dk_image_decode(dk_image *out, const void *data, size_t size,
                                      const char *where, const dk_media_limits *limits,
                                      dk_error *err);

#endif
