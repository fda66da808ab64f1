/* What stands in for this folder in a build without DK_MEDIA: frames are computed, but there
   are no files to put them into. */
#include "base/alloc.h"
#include "media/image.h"
#include "media/media.h"

static dk_status refuse(const char *name, dk_error *err)
{
    return dk_fail(err, DK_UNSUPPORTED,
                   "%s: this build has no picture and video files (DK_MEDIA=OFF), accepted is "
                   "--save-output false",
                   name);
}

dk_status dk_media_write(const char *path, const dk_frames *frames,
                         const dk_media_options *options, dk_error *err)
{
    (void)frames;
    (void)options;
    return refuse(path, err);
}

dk_status dk_media_format_check(const char *name, int frames, dk_error *err)
{
    (void)frames;
    return refuse(name, err);
}

bool dk_media_is_video(const char *name)
{
    (void)name;
    return false;
}

bool dk_media_has_encoder(const char *name)
{
    (void)name;
    return false;
}

const char *dk_media_formats(void)
{
    return "none";
}

dk_status dk_media_read_recipe(char **out, const char *path, dk_error *err)
{
    (void)out;
    return refuse(path, err);
}

dk_status dk_media_decode_recipe(char **out, const void *data, size_t size, const char *where,
                                 dk_error *err)
{
    (void)out;
    (void)data;
    (void)size;
    return refuse(where, err);
}

void dk_image_release(dk_image *image)
{
    dk_free(image->rgb);
    *image = (dk_image){0};
}

dk_status dk_media_read_image(dk_image *out, const char *path, const dk_media_limits *limits,
                              dk_error *err)
{
    (void)out;
    (void)limits;
    return refuse(path, err);
}

dk_status dk_image_decode(dk_image *out, const void *data, size_t size, const char *where,
                          const dk_media_limits *limits, dk_error *err)
{
    (void)out;
    (void)data;
    (void)size;
    (void)limits;
    return refuse(where, err);
}
