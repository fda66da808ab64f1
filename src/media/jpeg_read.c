/* JPEG pictures by libjpeg. Damaged data, which libjpeg fills with gray, is an error here. */
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>

#include <jpeglib.h>

#include <jerror.h>

#include "media/formats.h"

enum {
    CHANNELS = 3,
    MAX_SCANS = 100 /* each scan of a progressive picture passes over all of it */
};

typedef struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    char problem[JMSG_LENGTH_MAX];
} reader;

static void on_error(j_common_ptr jpeg)
{
    reader *r = jpeg->client_data;
    jpeg->err->format_message(jpeg, r->problem);
    longjmp(r->failed, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    switch (jpeg->err->msg_code) {
    case JWRN_ARITH_BAD_CODE:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_NOT_SEQUENTIAL:
        if (level < 0) {
            on_error(jpeg);
        }
        break;
    default: /* oddities that leave the picture whole */
        break;
    }
}

static void on_progress(j_common_ptr jpeg)
{
    reader *r = jpeg->client_data;
    if (r->jpeg.input_scan_number > MAX_SCANS) {
        snprintf(r->problem, sizeof r->problem, "more than %d scans", MAX_SCANS);
        longjmp(r->failed, 1);
    }
}

/* Functions with setjmp change no variable of their own behind it. */
static bool read_header(reader *r, const uint8_t *data, size_t size)
{
    if (setjmp(r->failed)) {
        return false;
    }
    jpeg_create_decompress(&r->jpeg);
    r->jpeg.progress = &r->progress;
    r->progress.progress_monitor = on_progress;
    jpeg_mem_src(&r->jpeg, data, size);
    jpeg_read_header(&r->jpeg, TRUE);
    return true;
}

static bool read_rows(reader *r, const dk_image *image)
{
    const size_t stride = (size_t)image->width * CHANNELS;
    if (setjmp(r->failed)) {
        return false;
    }
    r->jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&r->jpeg);
    while (r->jpeg.output_scanline < r->jpeg.output_height) {
        JSAMPROW row = image->rgb + r->jpeg.output_scanline * stride;
        jpeg_read_scanlines(&r->jpeg, &row, 1);
    }
    jpeg_finish_decompress(&r->jpeg);
    return true;
}

static bool is_cmyk(J_COLOR_SPACE space)
{
    return space == JCS_CMYK || space == JCS_YCCK;
}

dk_status dk_jpeg_decode(dk_image *out, const uint8_t *data, size_t size, const char *where,
                         const dk_media_limits *limits, dk_error *err)
{
    reader r = {0};
    dk_image image = {0};
    dk_status status = DK_OK;
    r.jpeg.err = jpeg_std_error(&r.errors);
    r.jpeg.client_data = &r;
    r.errors.error_exit = on_error;
    r.errors.emit_message = on_message;
    bool read = read_header(&r, data, size);
    if (read && is_cmyk(r.jpeg.jpeg_color_space)) {
        status = dk_fail(err, DK_UNSUPPORTED,
                         "%s: a CMYK picture, accepted are JPEGs in gray, YCbCr or RGB", where);
        goto done;
    }
    if (read) {
        DK_TRY_DONE(dk_image_begin(&image, r.jpeg.image_width, r.jpeg.image_height, where,
                                   limits, err));
        read = read_rows(&r, &image);
    }
    if (!read) {
        status =
            dk_fail(err, DK_FORMAT, "%s: not a whole JPEG picture (%s), " DK_IMAGE_ACCEPTED,
                    where, r.problem);
        goto done;
    }
    *out = image;
    image.rgb = NULL;
done:
    dk_image_release(&image);
    jpeg_destroy_decompress(&r.jpeg);
    return status;
}
