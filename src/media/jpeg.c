/* JPEG by libjpeg. The recipe is an XMP packet in an APP1 segment. A segment holds 64 KiB and
   prompts may be longer: such a recipe stands in comment segments (COM), each "darkroom:" and
   a piece of the text. */
#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include "base/string.h"
#include "media/formats.h"

enum {
    CHANNELS = 3,
    DEFAULT_QUALITY = 90,
    FULL_COLOR_QUALITY = 90, /* from here on 4:4:4: chroma is not halved */
    SEGMENT_BYTES = 65533,   /* of a segment's content */
};

typedef struct writer {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
} writer;

static void on_error(j_common_ptr jpeg)
{
    writer *w = jpeg->client_data;
    longjmp(w->failed, 1);
}

static void on_message(j_common_ptr jpeg)
{
    (void)jpeg;
}

/* Whole characters only, so that every segment is text on its own. */
static size_t piece_length(const char *text, size_t left)
{
    size_t length = SEGMENT_BYTES - DK_RECIPE_MARK_BYTES;
    if (left <= length) {
        return left;
    }
    for (int back = 0; back < 3 && ((unsigned char)text[length] & 0xC0) == 0x80; back++) {
        length--;
    }
    return length;
}

static void write_comments(struct jpeg_compress_struct *jpeg, const char *recipe,
                           dk_string *piece)
{
    size_t left = strlen(recipe);
    while (left > 0) {
        size_t length = piece_length(recipe, left);
        dk_string_clear(piece);
        dk_string_puts(piece, DK_RECIPE_MARK);
        dk_string_append(piece, recipe, length);
        jpeg_write_marker(jpeg, JPEG_COM, (const JOCTET *)piece->data, (unsigned)piece->length);
        recipe += length;
        left -= length;
    }
}

static void write_recipe(struct jpeg_compress_struct *jpeg, const char *recipe,
                         dk_string *packet)
{
    dk_string_append(packet, DK_XMP_SIGNATURE, sizeof DK_XMP_SIGNATURE); /* with its NUL */
    dk_xmp_write(packet, recipe);
    if (packet->length <= SEGMENT_BYTES) {
        jpeg_write_marker(jpeg, JPEG_APP0 + 1, (const JOCTET *)packet->data,
                          (unsigned)packet->length);
    } else {
        write_comments(jpeg, recipe, packet);
    }
}

static void write_rows(struct jpeg_compress_struct *jpeg, const uint8_t *rgb)
{
    size_t stride = (size_t)jpeg->image_width * CHANNELS;
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(rgb + jpeg->next_scanline * stride);
        jpeg_write_scanlines(jpeg, &row, 1);
    }
}

/* Everything that may longjmp: no variable changes behind setjmp. */
static bool encode(writer *w, FILE *file, const dk_frames *frames,
                   const dk_media_options *options, dk_string *piece)
{
    const int quality = options->quality > 0 ? options->quality : DEFAULT_QUALITY;
    if (setjmp(w->failed)) {
        return false;
    }
    jpeg_create_compress(&w->jpeg);
    jpeg_stdio_dest(&w->jpeg, file);
    w->jpeg.image_width = (JDIMENSION)frames->width;
    w->jpeg.image_height = (JDIMENSION)frames->height;
    w->jpeg.input_components = CHANNELS;
    w->jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&w->jpeg);
    jpeg_set_quality(&w->jpeg, quality, TRUE);
    w->jpeg.optimize_coding = TRUE;
    if (quality >= FULL_COLOR_QUALITY) {
        w->jpeg.comp_info[0].h_samp_factor = w->jpeg.comp_info[0].v_samp_factor = 1;
    }
    jpeg_start_compress(&w->jpeg, TRUE);
    if (options->recipe != NULL) {
        write_recipe(&w->jpeg, options->recipe, piece);
    }
    write_rows(&w->jpeg, frames->rgb);
    jpeg_finish_compress(&w->jpeg);
    return true;
}

dk_status dk_jpeg_write(const dk_media_target *target, const dk_frames *frames,
                        const dk_media_options *options, dk_error *err)
{
    writer w = {0};
    dk_string piece = DK_STRING_EMPTY;
    FILE *file = fopen(target->file, "wb");
    if (file == NULL) {
        return dk_media_fail_errno(target, err);
    }
    w.jpeg.err = jpeg_std_error(&w.errors);
    w.jpeg.client_data = &w;
    w.errors.error_exit = on_error;
    w.errors.output_message = on_message;
    bool written = encode(&w, file, frames, options, &piece);
    jpeg_destroy_compress(&w.jpeg);
    dk_string_release(&piece);
    written = fclose(file) == 0 && written;
    return written ? DK_OK : dk_media_fail_errno(target, err);
}
