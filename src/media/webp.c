/* WebP by libwebp; quality 100 is lossless. The recipe is an XMP packet in the "XMP " chunk. */
#include <errno.h>
#include <stdio.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include "media/formats.h"

enum {
    CHANNELS = 3,
    DEFAULT_QUALITY = 90,
    LOSSLESS_QUALITY = 100,
    LOSSLESS_EFFORT = 6 /* of 0 to 9; libwebp's default */
};

/* The picture alone into `out`, which is cleared by the caller in any case. */
static dk_status encode(WebPMemoryWriter *out, const dk_frames *frames, int quality,
                        const char *name, dk_error *err)
{
    WebPConfig config;
    WebPPicture picture;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture)) {
        return dk_fail(err, DK_INTERNAL, "%s: libwebp is of another version", name);
    }
    config.quality = (float)quality;
    if (quality == LOSSLESS_QUALITY) {
        WebPConfigLosslessPreset(&config, LOSSLESS_EFFORT);
        picture.use_argb = 1;
    }
    picture.width = frames->width;
    picture.height = frames->height;
    picture.writer = WebPMemoryWrite;
    picture.custom_ptr = out;
    dk_status status = DK_OK;
    if (!WebPPictureImportRGB(&picture, frames->rgb, frames->width * CHANNELS) ||
        !WebPEncode(&config, &picture)) {
        status = dk_fail(err, DK_MEMORY, "%s: WebP encoding failed (libwebp error %d)", name,
                         (int)picture.error_code);
    }
    WebPPictureFree(&picture);
    return status;
}

/* Picture and recipe into one file's bytes; `out` is cleared by the caller in any case. */
static dk_status add_recipe(WebPData *out, const WebPMemoryWriter *picture, const char *recipe,
                            const char *name, dk_error *err)
{
    dk_string packet = DK_STRING_EMPTY;
    WebPMux *mux = WebPMuxNew();
    dk_xmp_write(&packet, recipe);
    WebPData image = {picture->mem, picture->size};
    WebPData xmp = {(const uint8_t *)packet.data, packet.length};
    dk_status status = DK_OK;
    if (mux == NULL || WebPMuxSetImage(mux, &image, 0) != WEBP_MUX_OK ||
        WebPMuxSetChunk(mux, "XMP ", &xmp, 0) != WEBP_MUX_OK ||
        WebPMuxAssemble(mux, out) != WEBP_MUX_OK) {
        status = dk_fail(err, DK_MEMORY, "%s: no memory for the file's parts", name);
    }
    WebPMuxDelete(mux);
    dk_string_release(&packet);
    return status;
}

static dk_status write_bytes(const dk_media_target *target, const uint8_t *bytes, size_t size,
                             dk_error *err)
{
    FILE *file = fopen(target->file, "wb");
    if (file == NULL) {
        return dk_media_fail_errno(target, err);
    }
    size_t written = fwrite(bytes, 1, size, file);
    if (fclose(file) != 0 || written != size) {
        return dk_media_fail_errno(target, err);
    }
    return DK_OK;
}

dk_status dk_webp_write(const dk_media_target *target, const dk_frames *frames,
                        const dk_media_options *options, dk_error *err)
{
    int quality = options->quality > 0 ? options->quality : DEFAULT_QUALITY;
    WebPMemoryWriter picture;
    WebPData file;
    WebPMemoryWriterInit(&picture);
    WebPDataInit(&file);
    dk_status status = encode(&picture, frames, quality, target->name, err);
    if (status == DK_OK && options->recipe != NULL) {
        status = add_recipe(&file, &picture, options->recipe, target->name, err);
    }
    if (status == DK_OK) {
        bool whole = options->recipe != NULL;
        status = write_bytes(target, whole ? file.bytes : picture.mem,
                             whole ? file.size : picture.size, err);
    }
    WebPDataClear(&file);
    WebPMemoryWriterClear(&picture);
    return status;
}
