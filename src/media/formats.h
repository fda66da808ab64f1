/* What the files of src/media share: the writer, picture decoder and recipe finder of each
   format. Only media.c and read.c call them. */
#ifndef DK_MEDIA_FORMATS_H
#define DK_MEDIA_FORMATS_H

#include "base/string.h"
#include "media/image.h"
#include "media/media.h"

/* Where a writer writes, and what it calls that in messages. */
typedef struct dk_media_target {
    const char *file; /* a temporary name, created or replaced */
    const char *name; /* the name that the user gave */
} dk_media_target;

/* Counts, sides and quality are checked by the caller. A failed writer may leave target->file
   behind: the caller removes it. */
typedef dk_status dk_media_writer(const dk_media_target *target, const dk_frames *frames,
                                  const dk_media_options *options, dk_error *err);
DK_MUST_USE dk_media_writer dk_png_write, dk_jpeg_write, dk_webp_write, dk_gif_write,
    dk_mp4_write, dk_webm_write;

/* DK_IO with the reason that errno tells. */
dk_status dk_media_fail_errno(const dk_media_target *target, dk_error *err);

/* data begins with the format's magic. limits has no zero members. */
typedef dk_status dk_image_decoder(dk_image *out, const uint8_t *data, size_t size,
                                   const char *where, const dk_media_limits *limits,
                                   dk_error *err);
DK_MUST_USE dk_image_decoder dk_png_decode, dk_jpeg_decode, dk_webp_decode;

/* Memory for a picture whose header tells this size, or DK_FORMAT. out->rgb is not zeroed. */
DK_MUST_USE dk_status dk_image_begin(dk_image *out, uint64_t width, uint64_t height,
                                     const char *where, const dk_media_limits *limits,
                                     dk_error *err);

/* Takes [height][width][4] apart into image->rgb and a new image->alpha. */
DK_MUST_USE dk_status dk_image_split(dk_image *image, const uint8_t *rgba, const char *where,
                                     dk_error *err);

#define DK_IMAGE_ACCEPTED "accepted are png, jpeg, webp"

/* Appends the recipe to out, or nothing when the file carries none. data begins with the
   format's magic. What is behind a damaged place is not looked at. */
typedef dk_status dk_recipe_finder(dk_string *out, const uint8_t *data, size_t size,
                                   const char *where, dk_error *err);
DK_MUST_USE dk_recipe_finder dk_png_recipe, dk_jpeg_recipe, dk_webp_recipe, dk_gif_recipe,
    dk_mp4_recipe, dk_webm_recipe;

/* Appends to a recipe, or DK_FORMAT above DK_MEDIA_RECIPE_BYTES. */
DK_MUST_USE dk_status dk_recipe_append(dk_string *out, const uint8_t *bytes, size_t size,
                                       const char *where, dk_error *err);

/* Comments of JPEG and GIF that belong to a recipe begin so; other comments are left alone. */
#define DK_RECIPE_MARK "darkroom:"
enum { DK_RECIPE_MARK_BYTES = sizeof DK_RECIPE_MARK - 1 };

/* An XMP packet with the recipe as XML text, and the way back: appends the recipe in a packet,
   or nothing when there is none. A JPEG's APP1 segment begins with the signature and a NUL. */
#define DK_XMP_SIGNATURE "http://ns.adobe.com/xap/1.0/"
void dk_xmp_write(dk_string *out, const char *recipe);
DK_MUST_USE dk_status dk_xmp_recipe(dk_string *out, const uint8_t *packet, size_t packet_size,
                                    const char *where, dk_error *err);

#endif
