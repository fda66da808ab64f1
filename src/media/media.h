/* Picture and video files. A file carries the recipe that made it and appears whole or not at
   all. */
#ifndef DK_MEDIA_MEDIA_H
#define DK_MEDIA_MEDIA_H

#include <stdint.h>

#include "base/error.h"

/* 8-bit RGB frames: [count][height][width][3], borrowed. */
typedef struct dk_frames {
    int count, height, width;
    const uint8_t *rgb;
} dk_frames;

typedef struct dk_media_options {
    int quality;        /* 1 to 100; 0: the format's default */
    double fps;         /* of videos */
    const char *recipe; /* UTF-8 text stored inside, or NULL */
} dk_media_options;

/* The format follows the extension: .png holds one frame, .mp4 any number. */
DK_MUST_USE dk_status dk_media_write(const char *path, const dk_frames *frames,
                                     const dk_media_options *options, dk_error *err);

/* The formats' names, for messages and help: "png, mp4". */
const char *dk_media_formats(void);

/* Writers of single formats into a file of any name. */
DK_MUST_USE dk_status dk_png_write(const char *path, const dk_frames *frames,
                                   const dk_media_options *options, dk_error *err);
DK_MUST_USE dk_status dk_mp4_write(const char *path, const dk_frames *frames,
                                   const dk_media_options *options, dk_error *err);

#endif
