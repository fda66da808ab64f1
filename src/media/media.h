/* Picture and video files. A file carries the recipe that made it and appears whole or not at
   all. Pictures that come in are read by media/image.h. */
#ifndef DK_MEDIA_MEDIA_H
#define DK_MEDIA_MEDIA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/string.h"

/* 8-bit RGB frames: [count][height][width][3], borrowed. */
typedef struct dk_frames {
    int count, height, width;
    const uint8_t *rgb;
} dk_frames;

typedef struct dk_media_options {
    int quality;        /* 1 to 100; 0: the format's default; png and gif ignore it */
    double fps;         /* of videos: 1 to 240, gif to 50 */
    const char *recipe; /* a JSON object as UTF-8 text, stored inside; or NULL */
} dk_media_options;

/* The format follows the extension, in capital letters or not: .png, .jpg, .jpeg and .webp hold
   one frame; .mp4, .webm and .gif any number. DK_INVALID: the frames do not suit the format;
   DK_IO: the file cannot be written. */
DK_MUST_USE dk_status dk_media_write(const char *path, const dk_frames *frames,
                                     const dk_media_options *options, dk_error *err);

/* The first frame as a PNG in memory, appended to out. */
DK_MUST_USE dk_status dk_media_encode_png(dk_string *out, const dk_frames *frames,
                                          dk_error *err);

/* The same judgement of a file name (or a bare extension) before there are frames: DK_INVALID
   with what is accepted, when the format is unknown or cannot hold so many frames. */
DK_MUST_USE dk_status dk_media_format_check(const char *name, int frames, dk_error *err);

/* Whether the format of a file name (or a bare extension) holds several frames. */
bool dk_media_is_video(const char *name);

/* Whether libavcodec has the video encoder of that name ("libx264"). */
bool dk_media_has_encoder(const char *name);

/* The formats' names, for messages and help: "png, jpg, jpeg, webp, mp4, webm, gif". */
const char *dk_media_formats(void);

enum { DK_MEDIA_RECIPE_BYTES = 1024 * 1024 }; /* longest recipe that is read */

/* The recipe inside a file of any of the formats, told apart by content: owned text (dk_free).
   DK_NOT_FOUND: there is no file or no recipe in it; DK_FORMAT: damaged, too long or no known
   format. Decodes no pixels. */
DK_MUST_USE dk_status dk_media_read_recipe(char **out, const char *path, dk_error *err);

/* The same for a file in memory; `where` names it in messages. */
DK_MUST_USE dk_status dk_media_decode_recipe(char **out, const void *data, size_t size,
                                             const char *where, dk_error *err);

#endif
