/* Scaling down. */
#include "server/service/still.h"

#include "base/alloc.h"

void dk_still_release(dk_still *still)
{
    dk_free(still->rgb);
    *still = (dk_still){0};
}

static uint8_t area_mean(const uint8_t *src, int width, int x0, int x1, int y0, int y1,
                         int channel)
{
    unsigned long sum = 0;
    for (int y = y0; y < y1; y++) {
        for (int x = x0; x < x1; x++) {
            sum += src[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)channel];
        }
    }
    unsigned long count = (unsigned long)(x1 - x0) * (unsigned long)(y1 - y0);
    return (uint8_t)((sum + count / 2) / count);
}

void dk_still_scale(uint8_t *dst, int dst_width, int dst_height, size_t dst_stride,
                    const uint8_t *src, int width, int height)
{
    for (int y = 0; y < dst_height; y++) {
        int y0 = (int)((long)y * height / dst_height);
        int y1 = (int)((long)(y + 1) * height / dst_height);
        for (int x = 0; x < dst_width; x++) {
            int x0 = (int)((long)x * width / dst_width);
            int x1 = (int)((long)(x + 1) * width / dst_width);
            for (int c = 0; c < 3; c++) {
                dst[(size_t)y * dst_stride + (size_t)x * 3 + (size_t)c] = area_mean(
                    src, width, x0, x1 > x0 ? x1 : x0 + 1, y0, y1 > y0 ? y1 : y0 + 1, c);
            }
        }
    }
}

/* The largest size within side x side of the same shape; never larger than it is. */
static void fit(int *width, int *height, int side)
{
    int longer = *width > *height ? *width : *height;
    if (longer > side) {
        *width = *width * side / longer > 0 ? *width * side / longer : 1;
        *height = *height * side / longer > 0 ? *height * side / longer : 1;
    }
}

static const uint8_t *frame_at(const dk_frames *frames, int index)
{
    return frames->rgb + (size_t)index * (size_t)frames->height * (size_t)frames->width * 3;
}

static void begin(dk_still *out, int width, int height)
{
    out->rgb = dk_alloc((size_t)width * (size_t)height * 3);
    out->frames = (dk_frames){.count = 1, .height = height, .width = width, .rgb = out->rgb};
}

void dk_still_thumbnail(dk_still *out, const dk_frames *frames)
{
    int width = frames->width, height = frames->height;
    fit(&width, &height, DK_THUMBNAIL_SIDE);
    begin(out, width, height);
    dk_still_scale(out->rgb, width, height, (size_t)width * 3,
                   frame_at(frames, frames->count / 2), frames->width, frames->height);
}

void dk_still_spritesheet(dk_still *out, const dk_frames *frames)
{
    int width = frames->width, height = frames->height;
    int count = frames->count < DK_SHEET_FRAMES ? frames->count : DK_SHEET_FRAMES;
    int columns = count < DK_SHEET_COLUMNS ? count : DK_SHEET_COLUMNS;
    int rows = (count + columns - 1) / columns;
    fit(&width, &height, DK_THUMBNAIL_SIDE);
    begin(out, width * columns, height * rows);
    size_t stride = (size_t)width * (size_t)columns * 3;
    for (int i = 0; i < count; i++) {
        int frame = count > 1 ? i * (frames->count - 1) / (count - 1) : 0;
        uint8_t *at = out->rgb + (size_t)(i / columns) * (size_t)height * stride +
                      (size_t)(i % columns) * (size_t)width * 3;
        dk_still_scale(at, width, height, stride, frame_at(frames, frame), frames->width,
                       frames->height);
    }
}
