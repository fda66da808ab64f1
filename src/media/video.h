/* One encoder of libavcodec into one container of libavformat: what MP4, WebM and GIF share. */
#ifndef DK_MEDIA_VIDEO_H
#define DK_MEDIA_VIDEO_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

#include "media/formats.h"

typedef struct dk_video_setting {
    const char *name, *value;
} dk_video_setting;

typedef struct dk_video_format {
    const char *container, *codec; /* names of libavformat and libavcodec */
    enum AVPixelFormat pixels;
    double max_fps;
    double best_crf, crf_step;          /* crf = best + (100 - quality) * step; step 0: none */
    dk_video_setting settings[6];       /* of the codec, up to a NULL name */
    dk_video_setting header;            /* of the container, or NULL */
    bool even_sides, recipe_as_comment; /* chroma is halved; the container has a comment */
} dk_video_format;

typedef struct dk_video {
    const char *name; /* for messages, borrowed */
    AVFormatContext *container;
    AVCodecContext *codec;
    AVStream *stream;
    AVFrame *frame; /* in the format's pixels: what dk_video_put encodes */
    AVPacket *packet;
} dk_video;

/* Opens `v`, which is zeroed, up to the first frame. Close it also after a failure. */
DK_MUST_USE dk_status dk_video_open(dk_video *v, const dk_video_format *format,
                                    const dk_media_target *target, const dk_frames *frames,
                                    const dk_media_options *options, dk_error *err);

/* Makes v->frame the caller's to fill, then takes it as frame `index`. */
DK_MUST_USE dk_status dk_video_begin_frame(dk_video *v, dk_error *err);
DK_MUST_USE dk_status dk_video_put(dk_video *v, int index, dk_error *err);

/* What the encoder still holds, and the container's end. */
DK_MUST_USE dk_status dk_video_finish(dk_video *v, dk_error *err);

/* Releases everything. Returns `status`, or DK_IO when only now the file turns out not to be
   written. */
DK_MUST_USE dk_status dk_video_close(dk_video *v, dk_status status, dk_error *err);

#endif
