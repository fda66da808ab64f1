/* GIF by libavcodec from a palette of our own, repeated for ever. libavformat writes no
   comments into GIF: the recipe, behind "darkroom:", is a comment extension that takes the
   place of the trailer, with a new trailer behind (GIF89a, sections 15, 24 and 27). */
#include <string.h>

#include "media/formats.h"
#include "media/palette.h"
#include "media/video.h"

enum { CHANNELS = 3 };

static const dk_video_format gif = {
    .container = "gif",
    .codec = "gif",
    .pixels = AV_PIX_FMT_PAL8,
    .max_fps = 50, /* time counts in hundredths; players slow down anything below two */
    .header = {"loop", "0"},
};

static dk_status write_comment(dk_video *v, const char *recipe, dk_error *err)
{
    enum { EXTENSION = 0x21, COMMENT = 0xFE, BLOCK = 255, TRAILER = 0x3B };
    AVIOContext *file = v->container->pb;
    dk_string text = DK_STRING_EMPTY;
    dk_string_puts(&text, DK_RECIPE_MARK);
    dk_string_puts(&text, recipe);
    int64_t code = avio_seek(file, -1, SEEK_CUR);
    avio_w8(file, EXTENSION);
    avio_w8(file, COMMENT);
    for (size_t at = 0; at < text.length; at += BLOCK) {
        size_t left = text.length - at, length = left < BLOCK ? left : BLOCK;
        avio_w8(file, (int)length);
        avio_write(file, (const unsigned char *)text.data + at, (int)length);
    }
    avio_w8(file, 0);
    avio_w8(file, TRAILER);
    dk_string_release(&text);
    return code < 0 ? dk_fail(err, DK_IO, "%s: cannot be written", v->name) : DK_OK;
}

dk_status dk_gif_write(const dk_media_target *target, const dk_frames *frames,
                       const dk_media_options *options, dk_error *err)
{
    dk_video v = {0};
    dk_palette *palette = NULL;
    dk_status status = DK_OK;
    size_t frame_bytes = (size_t)frames->width * (size_t)frames->height * CHANNELS;
    DK_TRY_DONE(dk_video_open(&v, &gif, target, frames, options, err));
    DK_TRY_DONE(dk_palette_create(&palette, frames, err));
    for (int i = 0; i < frames->count; i++) {
        DK_TRY_DONE(dk_video_begin_frame(&v, err));
        memcpy(v.frame->data[1], dk_palette_colors(palette), DK_PALETTE_COLORS * 4);
        dk_palette_map(palette, v.frame->data[0], v.frame->linesize[0],
                       frames->rgb + (size_t)i * frame_bytes);
        DK_TRY_DONE(dk_video_put(&v, i, err));
    }
    DK_TRY_DONE(dk_video_finish(&v, err));
    if (options->recipe != NULL) {
        DK_TRY_DONE(write_comment(&v, options->recipe, err));
    }
done:
    dk_palette_destroy(&palette);
    return dk_video_close(&v, status, err);
}
