/* Small pictures of an output: a thumbnail of its middle frame, a sheet of frames of a video.
 */
#ifndef DK_SERVER_SERVICE_STILL_H
#define DK_SERVER_SERVICE_STILL_H

#include "media/media.h"

enum { DK_THUMBNAIL_SIDE = 256, DK_SHEET_FRAMES = 16, DK_SHEET_COLUMNS = 4 };

typedef struct dk_still {
    dk_frames frames; /* one; frames.rgb points to: */
    uint8_t *rgb;     /* owned */
} dk_still;

void dk_still_release(dk_still *still);

/* At most DK_THUMBNAIL_SIDE wide and high. */
void dk_still_thumbnail(dk_still *out, const dk_frames *frames);
/* Up to DK_SHEET_FRAMES frames, spread over the clip, DK_SHEET_COLUMNS in a row. */
void dk_still_spritesheet(dk_still *out, const dk_frames *frames);

/* dst[dst_height][dst_width][3], rows of dst_stride bytes: src averaged over areas (or
   repeated, where dst is larger). */
void dk_still_scale(uint8_t *dst, int dst_width, int dst_height, size_t dst_stride,
                    const uint8_t *src, int width, int height);

#endif
