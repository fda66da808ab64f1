/* WebP pictures by libwebp. */
#include <webp/decode.h>

#include "media/formats.h"

enum { CHANNELS = 3 };

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
    size_t stride = (size_t)image.width * CHANNELS;
    if (WebPDecodeRGBInto(data, size, image.rgb, stride * (size_t)image.height, (int)stride) ==
        NULL) {
        dk_image_release(&image);
        return dk_fail(err, DK_FORMAT, "%s: not a whole WebP picture, " DK_IMAGE_ACCEPTED,
                       where);
    }
    *out = image;
    return DK_OK;
}
