/* PNG by libpng; the recipe is an iTXt chunk "darkroom". */
#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "media/formats.h"

enum { CHANNELS = 3, COMPRESSION = 4 };

/* libpng's own functions print. */
static void on_error(png_structp png, png_const_charp text)
{
    (void)text;
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* Everything that may longjmp: no variable of the caller changes in here. */
static bool encode(FILE *file, const dk_frames *frames, const char *recipe)
{
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    if (info == NULL || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return false;
    }
    png_init_io(png, file);
    png_set_compression_level(png, COMPRESSION);
    png_set_IHDR(png, info, (png_uint_32)frames->width, (png_uint_32)frames->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_text text = {.compression = PNG_ITXT_COMPRESSION_NONE,
                     .key = (png_charp) "darkroom",
                     .text = (png_charp)recipe,
                     .itxt_length = recipe != NULL ? strlen(recipe) : 0};
    if (recipe != NULL) {
        png_set_text(png, info, &text, 1);
    }
    png_write_info(png, info);
    for (int y = 0; y < frames->height; y++) {
        png_write_row(png, frames->rgb + (size_t)y * (size_t)frames->width * CHANNELS);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return true;
}

dk_status dk_png_write(const dk_media_target *target, const dk_frames *frames,
                       const dk_media_options *options, dk_error *err)
{
    FILE *file = fopen(target->file, "wb");
    if (file == NULL) {
        return dk_media_fail_errno(target, err);
    }
    bool written = encode(file, frames, options->recipe);
    written = fclose(file) == 0 && written;
    return written ? DK_OK : dk_media_fail_errno(target, err);
}

dk_status dk_media_encode_png(dk_string *out, const dk_frames *frames, dk_error *err)
{
    char *bytes = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&bytes, &size);
    if (memory == NULL) {
        return dk_fail(err, DK_MEMORY, "no memory for a picture");
    }
    bool written = encode(memory, frames, NULL);
    written = fclose(memory) == 0 && written;
    if (written) {
        dk_string_append(out, bytes, size);
    }
    free(bytes); /* open_memstream's */
    return written ? DK_OK : dk_fail(err, DK_MEMORY, "a picture could not be encoded");
}
