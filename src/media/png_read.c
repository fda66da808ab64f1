/* PNG pictures by libpng, made for hostile files: no text, profile or other ancillary chunk is
   kept or inflated. */
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "media/formats.h"

enum { CHANNELS = 3, CHUNK_BYTES = 1024 * 1024, CHUNK_COUNT = 16 };

typedef struct reader {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t left;
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
static bool read_header(reader *r)
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
    png_set_strip_alpha(r->png);
    return true;
}

/* libpng merges the passes of an interlaced picture in the rows that it is given. */
static bool read_rows(reader *r, const dk_image *image)
{
    const size_t stride = (size_t)image->width * CHANNELS;
    if (setjmp(png_jmpbuf(r->png))) {
        return false;
    }
    const int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    if (png_get_rowbytes(r->png, r->info) != stride) {
        png_error(r->png, "a kind of pixel that libpng does not convert");
    }
    for (int pass = 0; pass < passes; pass++) {
        for (int y = 0; y < image->height; y++) {
            png_read_row(r->png, image->rgb + (size_t)y * stride, NULL);
        }
    }
    png_read_end(r->png, NULL); /* checks what remains */
    return true;
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
    bool read = read_header(&r);
    if (read) {
        DK_TRY_DONE(dk_image_begin(&image, png_get_image_width(r.png, r.info),
                                   png_get_image_height(r.png, r.info), where, limits, err));
        read = read_rows(&r, &image);
    }
    if (!read) {
        status = dk_fail(err, DK_FORMAT, "%s: not a whole PNG picture (%s), " DK_IMAGE_ACCEPTED,
                         where, r.problem);
        goto done;
    }
    *out = image;
    image.rgb = NULL;
done:
    dk_image_release(&image);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    return status;
}
