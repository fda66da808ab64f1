/* PNG pictures by libpng, made for hostile files: no text, profile or other ancillary chunk is
   kept or inflated. */
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "media/formats.h"

enum { CHANNELS = 3, CHUNK_BYTES = 1024 * 1024, CHUNK_COUNT = 16 };

typedef struct reader {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t left;
    bool has_alpha;    /* four channels are read */
    char problem[128]; /* libpng's last word */
} reader;

static void on_error(png_structp png, png_const_charp text)
{
    reader *r = png_get_error_ptr(png);
    snprintf(r->problem, sizeof r->problem, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void on_read(png_structp png, png_bytep bytes, size_t size)
{
    reader *r = png_get_io_ptr(png);
    if (size > r->left) {
        png_error(png, "the file ends too early");
    }
    memcpy(bytes, r->data, size);
    r->data += size;
    r->left -= size;
}

/* Everything to the first pixel. Functions with setjmp change no variable of their own. */
static bool read_header(reader *r, bool keep_alpha)
{
    static const png_byte ignored[] = "zTXt\0iTXt\0tEXt\0iCCP\0sPLT\0eXIf\0hIST\0pCAL";
    enum { IGNORED_COUNT = sizeof ignored / 5 };
    if (setjmp(png_jmpbuf(r->png))) {
        return false;
    }
    png_set_read_fn(r->png, r, on_read);
    png_set_user_limits(r->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* ours come later */
    png_set_chunk_cache_max(r->png, CHUNK_COUNT);
    png_set_chunk_malloc_max(r->png, CHUNK_BYTES);
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, ignored, IGNORED_COUNT);
    png_read_info(r->png, r->info);
    /* Whatever it is becomes RGB of 8 bits. */
    png_set_strip_16(r->png);
    png_set_palette_to_rgb(r->png);
    png_set_expand_gray_1_2_4_to_8(r->png);
    png_set_gray_to_rgb(r->png);
    r->has_alpha =
        keep_alpha && ((png_get_color_type(r->png, r->info) & PNG_COLOR_MASK_ALPHA) != 0 ||
                       png_get_valid(r->png, r->info, PNG_INFO_tRNS) != 0);
    if (r->has_alpha) {
        png_set_tRNS_to_alpha(r->png); /* does nothing to those with a channel for it */
    } else {
        png_set_strip_alpha(r->png);
    }
    return true;
}

/* libpng merges the passes of an interlaced picture in the rows that it is given. */
static bool read_rows(reader *r, uint8_t *rows, int width, int height)
{
    const size_t stride = (size_t)width * (r->has_alpha ? CHANNELS + 1 : CHANNELS);
    if (setjmp(png_jmpbuf(r->png))) {
        return false;
    }
    const int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    if (png_get_rowbytes(r->png, r->info) != stride) {
        png_error(r->png, "a kind of pixel that libpng does not convert");
    }
    for (int pass = 0; pass < passes; pass++) {
        for (int y = 0; y < height; y++) {
            png_read_row(r->png, rows + (size_t)y * stride, NULL);
        }
    }
    png_read_end(r->png, NULL); /* checks what remains */
    return true;
}

/* The pixels of an image that is begun; false with libpng's word for it in r. */
static dk_status read_pixels(reader *r, dk_image *image, bool *read, const char *where,
                             dk_error *err)
{
    void *rgba;
    if (!r->has_alpha) {
        *read = read_rows(r, image->rgb, image->width, image->height);
        return DK_OK;
    }
    const size_t pixels = (size_t)image->width * (size_t)image->height;
    DK_TRY(dk_try_alloc(&rgba, pixels * (CHANNELS + 1), where, err));
    *read = read_rows(r, rgba, image->width, image->height);
    dk_status status = *read ? dk_image_split(image, rgba, where, err) : DK_OK;
    dk_free(rgba);
    return status;
}

dk_status dk_png_decode(dk_image *out, const uint8_t *data, size_t size, const char *where,
                        const dk_media_limits *limits, dk_error *err)
{
    reader r = {.data = data, .left = size};
    dk_image image = {0};
    dk_status status = DK_OK;
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
    r.info = r.png != NULL ? png_create_info_struct(r.png) : NULL;
    if (r.info == NULL) {
        status = dk_fail(err, DK_MEMORY, "%s: no memory for the PNG reader", where);
        goto done;
    }
    bool read = read_header(&r, limits->keep_alpha);
    if (read) {
        DK_TRY_DONE(dk_image_begin(&image, png_get_image_width(r.png, r.info),
                                   png_get_image_height(r.png, r.info), where, limits, err));
        DK_TRY_DONE(read_pixels(&r, &image, &read, where, err));
    }
    if (!read) {
        status = dk_fail(err, DK_FORMAT, "%s: not a whole PNG picture (%s), " DK_IMAGE_ACCEPTED,
                         where, r.problem);
        goto done;
    }
    *out = image;
    image = (dk_image){0};
done:
    dk_image_release(&image);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    return status;
}
