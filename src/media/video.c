/* Video files by libavformat and libavcodec; the recipe is the file's comment. The same frames
   and options give the same bytes on one machine; another number of cores may cut a picture
   into other parts. */
#include "media/video.h"

#include "base/alloc.h"

#include <libavutil/opt.h>
#include <libswscale/swscale.h>

enum { CHANNELS = 3, DEFAULT_QUALITY = 80, FPS_UNIT = 1000 };

static const dk_video_format mp4 = {
    .container = "mp4",
    .codec = "libx264",
    .pixels = AV_PIX_FMT_YUV420P,
    .max_fps = 240,
    .best_crf = 8,
    .crf_step = 0.4,
    .settings = {{"preset", "veryfast"}, {"x264-params", "log-level=none"}},
    .header = {"movflags", "faststart"},
    .even_sides = true,
    .recipe_as_comment = true,
};

static const dk_video_format webm = {
    .container = "webm",
    .codec = "libvpx-vp9",
    .pixels = AV_PIX_FMT_YUV420P,
    .max_fps = 240,
    .best_crf = 4,
    .crf_step = 0.59,
    .settings = {{"deadline", "good"}, {"cpu-used", "4"}, {"row-mt", "1"}},
    .even_sides = true,
    .recipe_as_comment = true,
};

static dk_status failed(const dk_video *v, const char *what, int code, dk_error *err)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(code, text, sizeof text);
    return dk_fail(err, DK_IO, "%s: %s: %s", v->name, what, text);
}

static dk_status check(const dk_video_format *format, const char *name, const dk_frames *frames,
                       const dk_media_options *options, dk_error *err)
{
    if (format->even_sides && (frames->width % 2 != 0 || frames->height % 2 != 0)) {
        return dk_fail(err, DK_INVALID, "%s: %d x %d pixels, %s needs even sides", name,
                       frames->width, frames->height, format->container);
    }
    if (!(options->fps >= 1 && options->fps <= format->max_fps)) {
        return dk_fail(err, DK_INVALID, "%s: fps is %g, accepted for %s are 1 to %g", name,
                       options->fps, format->container, format->max_fps);
    }
    return DK_OK;
}

static dk_status open_codec(dk_video *v, const dk_video_format *format, const dk_frames *frames,
                            const dk_media_options *options, dk_error *err)
{
    const AVCodec *encoder = avcodec_find_encoder_by_name(format->codec);
    v->codec = encoder != NULL ? avcodec_alloc_context3(encoder) : NULL;
    if (v->codec == NULL) {
        return dk_fail(err, DK_UNSUPPORTED, "%s: this libavcodec has no encoder %s", v->name,
                       format->codec);
    }
    int quality = options->quality > 0 ? options->quality : DEFAULT_QUALITY;
    v->codec->width = frames->width;
    v->codec->height = frames->height;
    v->codec->pix_fmt = format->pixels;
    v->codec->time_base = (AVRational){FPS_UNIT, (int)(options->fps * FPS_UNIT + 0.5)};
    v->codec->framerate = av_inv_q(v->codec->time_base);
    v->codec->bit_rate = 0; /* the quality alone decides */
    v->codec->thread_count = 0;
    if (format->even_sides) {
        v->codec->colorspace = AVCOL_SPC_BT709;
        v->codec->color_primaries = AVCOL_PRI_BT709;
        v->codec->color_trc = AVCOL_TRC_BT709;
        v->codec->color_range = AVCOL_RANGE_MPEG;
    }
    if (v->container->oformat->flags & AVFMT_GLOBALHEADER) {
        v->codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    }
    if (format->crf_step > 0) {
        double crf = format->best_crf + (100 - quality) * format->crf_step;
        av_opt_set_double(v->codec->priv_data, "crf", crf, 0);
    }
    for (const dk_video_setting *s = format->settings; s->name != NULL; s++) {
        av_opt_set(v->codec->priv_data, s->name, s->value, 0);
    }
    int code = avcodec_open2(v->codec, encoder, NULL);
    return code < 0 ? failed(v, "the encoder does not start", code, err) : DK_OK;
}

static int write_header(dk_video *v, const dk_video_format *format, const char *file)
{
    AVDictionary *flags = NULL;
    int code = avio_open(&v->container->pb, file, AVIO_FLAG_WRITE);
    if (format->header.name != NULL) {
        av_dict_set(&flags, format->header.name, format->header.value, 0);
    }
    if (code >= 0) {
        code = avformat_write_header(v->container, &flags);
    }
    av_dict_free(&flags);
    return code;
}

dk_status dk_video_open(dk_video *v, const dk_video_format *format,
                        const dk_media_target *target, const dk_frames *frames,
                        const dk_media_options *options, dk_error *err)
{
    v->name = target->name;
    DK_TRY(check(format, v->name, frames, options, err));
    av_log_set_level(AV_LOG_QUIET);
    int code =
        avformat_alloc_output_context2(&v->container, NULL, format->container, target->file);
    if (code < 0) {
        return failed(v, "no such container", code, err);
    }
    DK_TRY(open_codec(v, format, frames, options, err));
    v->stream = avformat_new_stream(v->container, NULL);
    v->frame = av_frame_alloc();
    v->packet = av_packet_alloc();
    if (v->stream == NULL || v->frame == NULL || v->packet == NULL) {
        return dk_fail(err, DK_MEMORY, "%s: no memory for the encoder", v->name);
    }
    v->stream->time_base = v->codec->time_base;
    v->stream->avg_frame_rate = v->codec->framerate;
    avcodec_parameters_from_context(v->stream->codecpar, v->codec);
    v->container->flags |= AVFMT_FLAG_BITEXACT; /* no random numbers, no dates */
    if (options->recipe != NULL && format->recipe_as_comment) {
        av_dict_set(&v->container->metadata, "comment", options->recipe, 0);
    }
    v->frame->format = format->pixels;
    v->frame->width = frames->width;
    v->frame->height = frames->height;
    code = av_frame_get_buffer(v->frame, 0);
    if (code >= 0) {
        code = write_header(v, format, target->file);
    }
    return code < 0 ? failed(v, "cannot be written", code, err) : DK_OK;
}

dk_status dk_video_begin_frame(dk_video *v, dk_error *err)
{
    int code = av_frame_make_writable(v->frame);
    return code < 0 ? failed(v, "no memory for a frame", code, err) : DK_OK;
}

/* Takes every packet that is ready; frame NULL: the end. */
static int encode(dk_video *v, const AVFrame *frame)
{
    int code = avcodec_send_frame(v->codec, frame);
    while (code >= 0) {
        code = avcodec_receive_packet(v->codec, v->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) {
            return 0;
        }
        if (code >= 0) {
            v->packet->duration = 1;
            av_packet_rescale_ts(v->packet, v->codec->time_base, v->stream->time_base);
            v->packet->stream_index = v->stream->index;
            code = av_interleaved_write_frame(v->container, v->packet);
        }
    }
    return code;
}

dk_status dk_video_put(dk_video *v, int index, dk_error *err)
{
    v->frame->pts = index;
    int code = encode(v, v->frame);
    return code < 0 ? failed(v, "cannot be encoded", code, err) : DK_OK;
}

dk_status dk_video_finish(dk_video *v, dk_error *err)
{
    int code = encode(v, NULL);
    if (code >= 0) {
        code = av_write_trailer(v->container);
    }
    return code < 0 ? failed(v, "cannot be written", code, err) : DK_OK;
}

dk_status dk_video_close(dk_video *v, dk_status status, dk_error *err)
{
    if (v->container != NULL && v->container->pb != NULL) {
        int code = avio_closep(&v->container->pb);
        if (code < 0 && status == DK_OK) {
            status = failed(v, "cannot be written", code, err);
        }
    }
    av_packet_free(&v->packet);
    av_frame_free(&v->frame);
    avcodec_free_context(&v->codec);
    avformat_free_context(v->container);
    *v = (dk_video){0};
    return status;
}

static struct SwsContext *create_scaler(const dk_frames *frames, enum AVPixelFormat pixels)
{
    int w = frames->width, h = frames->height;
    struct SwsContext *scaler =
        sws_getContext(w, h, AV_PIX_FMT_RGB24, w, h, pixels, SWS_BICUBIC, NULL, NULL, NULL);
    if (scaler != NULL) {
        const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
        sws_setColorspaceDetails(scaler, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16);
    }
    return scaler;
}

/* libswscale reads a little beyond the pixels that it converts: the last frame, behind which
   nothing may lie, is converted from a copy with room behind it. Owned. */
static dk_status copy_last(uint8_t **out, const dk_frames *frames, dk_error *err)
{
    enum { ROOM = 256 };
    size_t bytes = (size_t)frames->width * (size_t)frames->height * CHANNELS;
    void *copy;
    DK_TRY(dk_try_alloc(&copy, bytes + ROOM, "a frame", err));
    memcpy(copy, frames->rgb + (size_t)(frames->count - 1) * bytes, bytes);
    memset((uint8_t *)copy + bytes, 0, ROOM);
    *out = copy;
    return DK_OK;
}

static dk_status write_yuv(const dk_video_format *format, const dk_media_target *target,
                           const dk_frames *frames, const dk_media_options *options,
                           dk_error *err)
{
    dk_video v = {0};
    struct SwsContext *scaler = NULL;
    const int stride = frames->width * CHANNELS;
    uint8_t *last = NULL;
    dk_status status = DK_OK;
    DK_TRY_DONE(copy_last(&last, frames, err));
    DK_TRY_DONE(dk_video_open(&v, format, target, frames, options, err));
    scaler = create_scaler(frames, format->pixels);
    if (scaler == NULL) {
        status = dk_fail(err, DK_MEMORY, "%s: no memory to convert colours", target->name);
        goto done;
    }
    for (int i = 0; i < frames->count; i++) {
        const uint8_t *rgb = frames->rgb + (size_t)i * (size_t)stride * (size_t)frames->height;
        rgb = i + 1 < frames->count ? rgb : last;
        DK_TRY_DONE(dk_video_begin_frame(&v, err));
        sws_scale(scaler, &rgb, &stride, 0, frames->height, v.frame->data, v.frame->linesize);
        DK_TRY_DONE(dk_video_put(&v, i, err));
    }
    DK_TRY_DONE(dk_video_finish(&v, err));
done:
    sws_freeContext(scaler);
    dk_free(last);
    return dk_video_close(&v, status, err);
}

dk_status dk_mp4_write(const dk_media_target *target, const dk_frames *frames,
                       const dk_media_options *options, dk_error *err)
{
    return write_yuv(&mp4, target, frames, options, err);
}

dk_status dk_webm_write(const dk_media_target *target, const dk_frames *frames,
                        const dk_media_options *options, dk_error *err)
{
    return write_yuv(&webm, target, frames, options, err);
}

bool dk_media_has_encoder(const char *name)
{
    return avcodec_find_encoder_by_name(name) != NULL;
}
