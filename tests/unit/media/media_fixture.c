/* The temporary folder, the test frames and the reader of videos. */
#define _GNU_SOURCE
#include "media_fixture.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>

#include "base/alloc.h"
#include "base/file.h"

int fixture_setup(void **state)
{
    const char *base = getenv("TMPDIR");
    char *path = dk_path_join(base != NULL ? base : "/tmp", "darkroom-media-XXXXXX");
    *state = path;
    return mkdtemp(path) != NULL ? 0 : -1;
}

/* Counts the folder's files, and removes them on demand. */
static int walk(const char *folder, bool remove_them)
{
    DIR *dir = opendir(folder);
    int count = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char *path = dk_path_join(folder, entry->d_name);
        if (!dk_path_is_folder(path)) {
            count++;
            if (remove_them) {
                unlink(path);
            }
        }
        dk_free(path);
    }
    closedir(dir);
    return count;
}

int fixture_teardown(void **state)
{
    walk(*state, true);
    int failed = rmdir(*state);
    dk_free(*state);
    return failed;
}

char *fixture_path(void **state, const char *name)
{
    return dk_path_join(*state, name);
}

int fixture_file_count(void **state)
{
    return walk(*state, false);
}

void fixture_frames(dk_frames *frames, int count, int height, int width)
{
    size_t bytes = (size_t)count * (size_t)height * (size_t)width * 3;
    uint8_t *rgb = dk_alloc(bytes), *p = rgb;
    for (int i = 0; i < count; i++) {
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++, p += 3) {
                bool square =
                    x > width / 4 + i && x < width / 2 + i && y > height / 4 && y < height / 2;
                p[0] = (uint8_t)(square ? 250 : x * 255 / width);
                p[1] = (uint8_t)(square ? 240 : y * 255 / height);
                p[2] = (uint8_t)(square ? 230 : 40 + i * 20);
            }
        }
    }
    *frames = (dk_frames){.count = count, .height = height, .width = width, .rgb = rgb};
}

void fixture_frames_release(dk_frames *frames)
{
    dk_free((void *)(uintptr_t)frames->rgb);
    frames->rgb = NULL;
}

double fixture_psnr(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    double error = 0;
    for (size_t i = 0; i < bytes; i++) {
        error += (double)(a[i] - b[i]) * (a[i] - b[i]);
    }
    return error > 0 ? 10 * log10(255.0 * 255.0 * (double)bytes / error) : 100;
}

typedef struct source {
    AVFormatContext *container;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
} source;

static void add_frame(clip *out, const AVFrame *frame)
{
    int stride = out->width * 3;
    size_t bytes = (size_t)stride * (size_t)out->height;
    assert_int_equal(frame->width, out->width);
    assert_int_equal(frame->height, out->height);
    out->rgb = dk_realloc(out->rgb, (size_t)(out->count + 1) * bytes);
    uint8_t *rgb = out->rgb + (size_t)out->count * bytes;
    struct SwsContext *scaler = sws_getContext(
        out->width, out->height, frame->format, out->width, out->height, AV_PIX_FMT_RGB24,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, NULL, NULL, NULL);
    assert_non_null(scaler);
    const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
    sws_setColorspaceDetails(scaler, bt709, 0, bt709, 1, 0, 1 << 16, 1 << 16);
    sws_scale(scaler, (const uint8_t *const *)frame->data, frame->linesize, 0, out->height,
              &rgb, &stride);
    sws_freeContext(scaler);
    out->count++;
}

static void decode(clip *out, source *s, const AVPacket *packet)
{
    assert_true(avcodec_send_packet(s->codec, packet) >= 0);
    while (avcodec_receive_frame(s->codec, s->frame) >= 0) {
        add_frame(out, s->frame);
    }
}

static void open_source(clip *out, source *s, const char *path)
{
    av_log_set_level(AV_LOG_QUIET);
    assert_true(avformat_open_input(&s->container, path, NULL, NULL) >= 0);
    assert_true(avformat_find_stream_info(s->container, NULL) >= 0);
    assert_int_equal(s->container->nb_streams, 1);
    const AVStream *stream = s->container->streams[0];
    const AVCodec *decoder = avcodec_find_decoder(stream->codecpar->codec_id);
    s->codec = avcodec_alloc_context3(decoder);
    assert_true(avcodec_parameters_to_context(s->codec, stream->codecpar) >= 0);
    assert_true(avcodec_open2(s->codec, decoder, NULL) >= 0);
    s->packet = av_packet_alloc();
    s->frame = av_frame_alloc();
    out->width = s->codec->width;
    out->height = s->codec->height;
    out->fps = av_q2d(stream->avg_frame_rate);
    const AVDictionaryEntry *comment = av_dict_get(s->container->metadata, "comment", NULL, 0);
    out->comment = comment != NULL ? dk_strdup(comment->value) : NULL;
}

void clip_read(clip *out, const char *path)
{
    source s = {0};
    *out = (clip){0};
    open_source(out, &s, path);
    while (av_read_frame(s.container, s.packet) >= 0) {
        decode(out, &s, s.packet);
        av_packet_unref(s.packet);
    }
    decode(out, &s, NULL);
    av_frame_free(&s.frame);
    av_packet_free(&s.packet);
    avcodec_free_context(&s.codec);
    avformat_close_input(&s.container);
}

void clip_release(clip *c)
{
    dk_free(c->comment);
    dk_free(c->rgb);
    *c = (clip){0};
}
