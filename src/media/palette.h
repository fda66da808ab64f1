/* 256 colours for a whole clip, and its frames in them. */
#ifndef DK_MEDIA_PALETTE_H
#define DK_MEDIA_PALETTE_H

#include "media/media.h"

enum { DK_PALETTE_COLORS = 256 };

typedef struct dk_palette dk_palette;

/* The colours that suit all frames together. Owned. */
DK_MUST_USE dk_status dk_palette_create(dk_palette **out, const dk_frames *frames,
                                        dk_error *err);
void dk_palette_destroy(dk_palette **palette);

/* The colours as 0xFFRRGGBB; unused ones are black. Borrowed. */
const uint32_t *dk_palette_colors(const dk_palette *palette);

/* dst[y][x] = the colour's number, with the error spread to the pixels around (Floyd and
   Steinberg). rgb: one frame of the clip; dst: rows of `stride` bytes. */
void dk_palette_map(dk_palette *palette, uint8_t *dst, int stride, const uint8_t *rgb);

#endif
