/* MP4 with H.264 by libavformat and libavcodec; the recipe is the file's comment. */
#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>

#include "media/media.h"

enum { CHANNELS = 3, DEFAULT_QUALITY = 80, FPS_UNIT = 1000 };

typedef struct writer {
    AVFormatContext *container;
    AVCodecContext *codec;
    AVStream *stream;
    AVFrame *frame;
    AVPacket *packet;
    struct SwsContext *scaler;
} writer;

static dk_status failed(const char *path, const char *what, int code, dk_error *err)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(code, text, sizeof text);
    return dk_fail(err, DK_IO, "%s: %s: %s", path, what, text);
}

static dk_status open_codec(writer *w, const char *path, const dk_frames *frames,
                            const dk_media_options *options, dk_error *err)
{
    const AVCodec *h264 = avcodec_find_encoder_by_name("libx264");
    w->codec = h264 != NULL ? avcodec_alloc_context3(h264) : NULL;
    if (w->codec == NULL) {
        return dk_fail(err, DK_UNSUPPORTED, "%s: libavcodec has no H.264 encoder (libx264)",
                       path);
    }
    int quality = options->quality > 0 ? options->quality : DEFAULT_QUALITY;
    w->codec->width = frames->width;
    w->codec->height = frames->height;
    w->codec->pix_fmt = AV_PIX_FMT_YUV420P;
    w->codec->time_base = (AVRational){FPS_UNIT, (int)(options->fps * FPS_UNIT + 0.5)};
    w->codec->framerate = av_inv_q(w->codec->time_base);
    w->codec->colorspace = AVCOL_SPC_BT709;
    w->codec->color_primaries = AVCOL_PRI_BT709;
    w->codec->color_trc = AVCOL_TRC_BT709;
    w->codec->color_range = AVCOL_RANGE_MPEG;
    if (w->container->oformat->flags & AVFMT_GLOBALHEADER) {
        w->codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    }
    av_opt_set(w->codec->priv_data, "preset", "veryfast", 0);
    av_opt_set_double(w->codec->priv_data, "crf", 8.0 + (100 - quality) * 0.4, 0);
    av_opt_set(w->codec->priv_data, "x264-params", "log-level=none", 0);
    int code = avcodec_open2(w->codec, h264, NULL);
    return code < 0 ? failed(path, "the encoder does not start", code, err) : DK_OK;
}

static dk_status open_writer(writer *w, const char *path, const dk_frames *frames,
                             const dk_media_options *options, dk_error *err)
{
    int code = avformat_alloc_output_context2(&w->container, NULL, "mp4", path);
    if (code < 0) {
        return failed(path, "no MP4 container", code, err);
    }
    DK_TRY(open_codec(w, path, frames, options, err));
    w->stream = avformat_new_stream(w->container, NULL);
    w->frame = av_frame_alloc();
    w->packet = av_packet_alloc();
    w->scaler =
        sws_getContext(frames->width, frames->height, AV_PIX_FMT_RGB24, frames->width,
                       frames->height, AV_PIX_FMT_YUV420P, SWS_BICUBIC, NULL, NULL, NULL);
    if (w->stream == NULL || w->frame == NULL || w->packet == NULL || w->scaler == NULL) {
        return dk_fail(err, DK_MEMORY, "%s: no memory for the encoder", path);
    }
    const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
    sws_setColorspaceDetails(w->scaler, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16);
    w->stream->time_base = w->codec->time_base;
    avcodec_parameters_from_context(w->stream->codecpar, w->codec);
    w->frame->format = AV_PIX_FMT_YUV420P;
    w->frame->width = frames->width;
    w->frame->height = frames->height;
    if (options->recipe != NULL) {
        av_dict_set(&w->container->metadata, "comment", options->recipe, 0);
    }
    code = av_frame_get_buffer(w->frame, 0);
    if (code >= 0) {
        code = avio_open(&w->container->pb, path, AVIO_FLAG_WRITE);
    }
    AVDictionary *flags = NULL;
    av_dict_set(&flags, "movflags", "faststart", 0);
    if (code >= 0) {
        code = avformat_write_header(w->container, &flags);
    }
    av_dict_free(&flags);
    return code < 0 ? failed(path, "cannot be written", code, err) : DK_OK;
}

/* Takes every packet that is ready; frame NULL: the end. */
static int encode(writer *w, AVFrame *frame)
{
    int code = avcodec_send_frame(w->codec, frame);
    while (code >= 0) {
        code = avcodec_receive_packet(w->codec, w->packet);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) {
            return 0;
        }
        if (code >= 0) {
            av_packet_rescale_ts(w->packet, w->codec->time_base, w->stream->time_base);
            w->packet->stream_index = w->stream->index;
            code = av_interleaved_write_frame(w->container, w->packet);
        }
    }
    return code;
}

static dk_status write_frames(writer *w, const char *path, const dk_frames *frames,
                              dk_error *err)
{
    int stride = frames->width * CHANNELS, code = 0;
    for (int i = 0; i < frames->count && code >= 0; i++) {
        const uint8_t *rgb = frames->rgb + (size_t)i * (size_t)stride * (size_t)frames->height;
        code = av_frame_make_writable(w->frame);
        if (code >= 0) {
            sws_scale(w->scaler, &rgb, &stride, 0, frames->height, w->frame->data,
                      w->frame->linesize);
            w->frame->pts = i;
            code = encode(w, w->frame);
        }
    }
    if (code >= 0) {
        code = encode(w, NULL);
    }
    if (code >= 0) {
        code = av_write_trailer(w->container);
    }
    return code < 0 ? failed(path, "cannot be encoded", code, err) : DK_OK;
}

dk_status dk_mp4_write(const char *path, const dk_frames *frames,
                       const dk_media_options *options, dk_error *err)
{
    if (frames->width % 2 != 0 || frames->height % 2 != 0) {
        return dk_fail(err, DK_INVALID, "%s: %d x %d pixels, H.264 needs even sides", path,
                       frames->width, frames->height);
    }
    if (!(options->fps >= 1 && options->fps <= 240)) {
        return dk_fail(err, DK_INVALID, "%s: fps is %g, accepted are 1 to 240", path,
                       options->fps);
    }
    writer w = {0};
    av_log_set_level(AV_LOG_QUIET);
    dk_status status = open_writer(&w, path, frames, options, err);
    if (status == DK_OK) {
        status = write_frames(&w, path, frames, err);
    }
    if (w.container != NULL && w.container->pb != NULL && avio_closep(&w.container->pb) < 0 &&
        status == DK_OK) {
        status = dk_fail(err, DK_IO, "%s: cannot be written", path);
    }
    sws_freeContext(w.scaler);
    av_packet_free(&w.packet);
    av_frame_free(&w.frame);
    avcodec_free_context(&w.codec);
    avformat_free_context(w.container);
    return status;
}
