/* WebP pictures by libwebp. */
#include <webp/decode.h>

#include "base/alloc.h"
#include "media/formats.h"

enum { CHANNELS = 3 };

static dk_status fail_whole(const char *where, dk_error *err)
{
    return dk_fail(err, DK_FORMAT, "%s: not a whole WebP picture, " DK_IMAGE_ACCEPTED, where);
}

static dk_status read_rgb(dk_image *image, const uint8_t *data, size_t size, const char *where,
                          dk_error *err)
{
    size_t stride = (size_t)image->width * CHANNELS;
    size_t bytes = stride * (size_t)image->height;
    return WebPDecodeRGBInto(data, size, image->rgb, bytes, (int)stride) != NULL
               ? DK_OK
               : fail_whole(where, err);
}

static dk_status read_rgba(dk_image *image, const uint8_t *data, size_t size, const char *where,
                           dk_error *err)
{
    size_t stride = (size_t)image->width * (CHANNELS + 1);
    size_t bytes = stride * (size_t)image->height;
    void *rgba;
    DK_TRY(dk_try_alloc(&rgba, bytes, where, err));
    dk_status status = WebPDecodeRGBAInto(data, size, rgba, bytes, (int)stride) != NULL
                           ? dk_image_split(image, rgba, where, err)
                           : fail_whole(where, err);
    dk_free(rgba);
    return status;
}

dk_status dk_webp_decode(dk_image *out, const uint8_t *data, size_t size, const char *where,
                         const dk_media_limits *limits, dk_error *err)
{
    WebPBitstreamFeatures features;
    dk_image image = {0};
    if (WebPGetFeatures(data, size, &features) != VP8_STATUS_OK) {
        return dk_fail(err, DK_FORMAT, "%s: not a WebP picture, " DK_IMAGE_ACCEPTED, where);
    }
    if (features.has_animation) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: an animated WebP, accepted are those of one picture", where);
    }
    DK_TRY(dk_image_begin(&image, (uint64_t)features.width, (uint64_t)features.height, where,
                          limits, err));
    bool alpha = limits->keep_alpha && features.has_alpha;
    dk_status status = alpha ? read_rgba(&image, data, size, where, err)
                             : read_rgb(&image, data, size, where, err);
    if (status != DK_OK) {
        dk_image_release(&image);
        return status;
    }
    *out = image;
    return DK_OK;
}
