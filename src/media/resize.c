/* Resizing, first along rows, then along columns. The filters are those of R. Keys, "Cubic
   convolution interpolation for digital image processing" (1981), with a = -1/2, and the box;
   both are stretched by the scale when a picture shrinks, so that every source pixel counts. */
#include "media/resize.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* What one axis does: output i is the sum of taps[i][k] * source[first[i] + k]. */
typedef struct axis {
    int count, most; /* outputs, taps of each */
    int *first;      /* [count] */
    float *taps;     /* [count][most]; unused ones are 0 */
} axis;

static double cubic(double x)
{
    x = fabs(x);
    if (x < 1) {
        return (1.5 * x - 2.5) * x * x + 1;
    }
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/* How much of the output pixel [from, to) source pixel i covers. */
static double overlap(double from, double to, int i)
{
    double low = from > i ? from : i, high = to < i + 1 ? to : i + 1;
    return high > low ? high - low : 0;
}

static void axis_release(axis *a)
{
    dk_free(a->first);
    dk_free(a->taps);
}

/* dst and src: pixels of the axis before and after. */
static dk_status axis_init(axis *a, int dst, int src, dk_resize_filter filter, dk_error *err)
{
    double scale = (double)src / dst, wide = scale > 1 ? scale : 1;
    double reach = filter == DK_RESIZE_CUBIC ? 2 * wide : scale / 2;
    void *first, *taps;
    *a = (axis){.count = dst, .most = (int)ceil(2 * reach) + 2};
    DK_TRY(dk_try_alloc(&first, (size_t)dst * sizeof *a->first, "a picture's taps", err));
    a->first = first;
    DK_TRY(dk_try_alloc(&taps, (size_t)dst * (size_t)a->most * sizeof(float),
                        "a picture's taps", err));
    a->taps = taps;
    for (int i = 0; i < dst; i++) {
        double centre = (i + 0.5) * scale, sum = 0;
        int low = (int)floor(centre - reach);
        float *row = a->taps + (size_t)i * (size_t)a->most;
        low = low > 0 ? low : 0;
        a->first[i] = low;
        for (int k = 0; k < a->most; k++) {
            double weight = 0;
            if (low + k < src) {
                weight = filter == DK_RESIZE_CUBIC
                             ? cubic((low + k + 0.5 - centre) / wide)
                             : overlap(i * scale, (i + 1) * scale, low + k);
            }
            row[k] = (float)weight;
            sum += weight;
        }
        for (int k = 0; k < a->most; k++) {
            row[k] = (float)(row[k] / sum);
        }
    }
    return DK_OK;
}

/* Rows of src become narrower or wider: dst [height][a->count][channels]. */
static void along_rows(float *dst, const dk_samples *src, const axis *a)
{
    int channels = src->channels;
    for (int y = 0; y < src->height; y++) {
        const uint8_t *row = src->data + (size_t)y * (size_t)src->width * (size_t)channels;
        for (int x = 0; x < a->count; x++) {
            const float *taps = a->taps + (size_t)x * (size_t)a->most;
            for (int c = 0; c < channels; c++) {
                float sum = 0;
                for (int k = 0; k < a->most && a->first[x] + k < src->width; k++) {
                    sum += taps[k] * (float)row[(a->first[x] + k) * channels + c];
                }
                *dst++ = sum;
            }
        }
    }
}

/* dst: [a->count][values], src: [height][values]. */
static void along_columns(uint8_t *dst, const float *src, int height, size_t values,
                          const axis *a)
{
    for (int y = 0; y < a->count; y++) {
        const float *taps = a->taps + (size_t)y * (size_t)a->most;
        for (size_t i = 0; i < values; i++) {
            float sum = 0;
            for (int k = 0; k < a->most && a->first[y] + k < height; k++) {
                sum += taps[k] * src[(size_t)(a->first[y] + k) * values + i];
            }
            sum = sum < 0 ? 0 : sum > 255 ? 255 : sum;
            *dst++ = (uint8_t)lrintf(sum);
        }
    }
}

dk_status dk_resize(uint8_t *dst, int height, int width, const dk_samples *src,
                    dk_resize_filter filter, dk_error *err)
{
    axis x = {0}, y = {0};
    void *middle = NULL;
    size_t values = (size_t)width * (size_t)src->channels;
    if (height == src->height && width == src->width) {
        memcpy(dst, src->data, (size_t)height * values);
        return DK_OK;
    }
    dk_status status = axis_init(&x, width, src->width, filter, err);
    if (status == DK_OK) {
        status = axis_init(&y, height, src->height, filter, err);
    }
    if (status == DK_OK) {
        status = dk_try_alloc(&middle, (size_t)src->height * values * sizeof(float),
                              "a picture", err);
    }
    if (status == DK_OK) {
        along_rows(middle, src, &x);
        along_columns(dst, middle, src->height, values, &y);
    }
    dk_free(middle);
    axis_release(&x);
    axis_release(&y);
    return status;
}
