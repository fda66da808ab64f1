/* Kinds of pictures that come in: every PNG type, JPEG colour spaces, limits, and what is
   refused. The pictures are made here with libpng and libjpeg. */
#include "media_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "media/image.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE };

static void append(png_structp png, png_bytep bytes, size_t size)
{
    dk_string_append(png_get_io_ptr(png), (const char *)bytes, size);
}

static void flush(png_structp png)
{
    (void)png;
}

/* SIDE x SIDE pixels of any PNG type; data: rows as the type packs them. */
static void make_png(dk_string *out, int type, int depth, int interlace, const uint8_t *data)
{
    static const png_color colors[4] = {{10, 20, 30}, {40, 50, 60}, {70, 80, 90}, {255, 0, 1}};
    static const png_byte alphas[2] = {0, 128};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_bytep rows[SIDE];
    png_set_write_fn(png, out, append, flush);
    png_set_IHDR(png, info, SIDE, SIDE, depth, type, interlace, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_PLTE(png, info, colors, 4);
        png_set_tRNS(png, info, alphas, 2, NULL);
    }
    size_t stride = png_get_rowbytes(png, info);
    for (int y = 0; y < SIDE; y++) {
        rows[y] = (png_bytep)(uintptr_t)(data + (size_t)y * stride);
    }
    png_set_rows(png, info, rows);
    png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    png_destroy_write_struct(&png, &info);
}

/* Reads what make_png makes, plain and interlaced, and compares with expected RGB. */
static void check_png(int type, int depth, const uint8_t *data,
                      const uint8_t expected[PIXELS * 3])
{
    for (int interlace = 0; interlace < 2; interlace++) {
        dk_error err;
        dk_image image;
        dk_string file = DK_STRING_EMPTY;
        make_png(&file, type, depth, interlace, data);
        assert_ok(dk_image_decode(&image, file.data, file.length, "png", NULL, &err), err);
        assert_int_equal(image.width, SIDE);
        assert_int_equal(image.height, SIDE);
        assert_memory_equal(image.rgb, expected, PIXELS * 3);
        dk_image_release(&image);
        dk_string_release(&file);
    }
}

static void test_png_rgb(void **state)
{
    (void)state;
    uint8_t rgb[PIXELS * 3], rgba[PIXELS * 4], deep[PIXELS * 6];
    for (int i = 0; i < PIXELS * 3; i++) {
        rgb[i] = (uint8_t)(i * 5);
        rgba[i / 3 * 4 + i % 3] = rgb[i];
        rgba[i / 3 * 4 + 3] = (uint8_t)(i * 3); /* dropped */
        deep[2 * i] = rgb[i];
        deep[2 * i + 1] = (uint8_t)(255 - i); /* low byte: dropped */
    }
    check_png(PNG_COLOR_TYPE_RGB, 8, rgb, rgb);
    check_png(PNG_COLOR_TYPE_RGB_ALPHA, 8, rgba, rgb);
    check_png(PNG_COLOR_TYPE_RGB, 16, deep, rgb);
}

static void test_png_gray(void **state)
{
    (void)state;
    uint8_t gray[PIXELS], both[PIXELS * 2], deep[PIXELS * 2], rgb[PIXELS * 3];
    for (int i = 0; i < PIXELS; i++) {
        gray[i] = both[2 * i] = deep[2 * i] = (uint8_t)(i * 4);
        both[2 * i + 1] = (uint8_t)i;
        deep[2 * i + 1] = (uint8_t)(255 - i);
        memset(rgb + 3 * i, gray[i], 3);
    }
    check_png(PNG_COLOR_TYPE_GRAY, 8, gray, rgb);
    check_png(PNG_COLOR_TYPE_GRAY_ALPHA, 8, both, rgb);
    check_png(PNG_COLOR_TYPE_GRAY, 16, deep, rgb);
    uint8_t bits[SIDE];
    for (int y = 0; y < SIDE; y++) {
        bits[y] = (uint8_t)(0x35 << (y % 3));
        for (int x = 0; x < SIDE; x++) {
            memset(rgb + 3 * (y * SIDE + x), (bits[y] >> (7 - x) & 1) * 255, 3);
        }
    }
    check_png(PNG_COLOR_TYPE_GRAY, 1, bits, rgb);
}

static void test_png_palette(void **state)
{
    (void)state;
    static const uint8_t colors[4][3] = {{10, 20, 30}, {40, 50, 60}, {70, 80, 90}, {255, 0, 1}};
    uint8_t wide[PIXELS], narrow[PIXELS / 4] = {0}, rgb[PIXELS * 3];
    for (int i = 0; i < PIXELS; i++) {
        wide[i] = (uint8_t)(i * 7 / 3 % 4);
        narrow[i / 4] = (uint8_t)(narrow[i / 4] | wide[i] << (6 - i % 4 * 2));
        memcpy(rgb + 3 * i, colors[wide[i]], 3);
    }
    check_png(PNG_COLOR_TYPE_PALETTE, 8, wide, rgb);
    check_png(PNG_COLOR_TYPE_PALETTE, 2, narrow, rgb);
}

/* The same with its alpha kept; expected_alpha NULL: the file has none. */
static void check_alpha(const void *file, size_t size, const uint8_t *expected,
                        const uint8_t *expected_alpha)
{
    dk_error err;
    dk_image image;
    const dk_media_limits keep = {.keep_alpha = true};
    assert_ok(dk_image_decode(&image, file, size, "alpha", &keep, &err), err);
    assert_memory_equal(image.rgb, expected, PIXELS * 3);
    assert_true((image.alpha != NULL) == (expected_alpha != NULL));
    if (expected_alpha != NULL) {
        assert_memory_equal(image.alpha, expected_alpha, PIXELS);
    }
    dk_image_release(&image);
    assert_null(image.alpha);
    assert_ok(dk_image_decode(&image, file, size, "alpha", NULL, &err), err);
    assert_null(image.alpha);
    dk_image_release(&image);
    assert_int_equal(dk_image_decode(&image, file, size - 20, "cut", &keep, &err), DK_FORMAT);
}

static void check_png_alpha(int type, int depth, const uint8_t *data, const uint8_t *expected,
                            const uint8_t *expected_alpha)
{
    for (int interlace = 0; interlace < 2; interlace++) {
        dk_string file = DK_STRING_EMPTY;
        make_png(&file, type, depth, interlace, data);
        check_alpha(file.data, file.length, expected, expected_alpha);
        dk_string_release(&file);
    }
}

static void test_png_alpha(void **state)
{
    (void)state;
    static const uint8_t colors[4][3] = {{10, 20, 30}, {40, 50, 60}, {70, 80, 90}, {255, 0, 1}};
    static const uint8_t alphas[4] = {0, 128, 255, 255};
    uint8_t rgb[PIXELS * 3], rgba[PIXELS * 4], deep[PIXELS * 8], alpha[PIXELS];
    uint8_t gray[PIXELS * 2], gray_rgb[PIXELS * 3], indexes[PIXELS], colored[PIXELS * 3],
        index_alpha[PIXELS];
    for (int i = 0; i < PIXELS; i++) {
        alpha[i] = (uint8_t)(i * 4);
        for (int c = 0; c < 4; c++) {
            uint8_t value = c == 3 ? alpha[i] : (uint8_t)(i * 5 + c);
            rgba[4 * i + c] = deep[8 * i + 2 * c] = value;
            deep[8 * i + 2 * c + 1] = (uint8_t)i;
        }
        memcpy(rgb + 3 * i, rgba + 4 * i, 3);
        gray[2 * i] = (uint8_t)(255 - i);
        gray[2 * i + 1] = alpha[i];
        memset(gray_rgb + 3 * i, 255 - i, 3);
        indexes[i] = (uint8_t)(i % 4);
        memcpy(colored + 3 * i, colors[i % 4], 3);
        index_alpha[i] = alphas[i % 4];
    }
    check_png_alpha(PNG_COLOR_TYPE_RGB_ALPHA, 8, rgba, rgb, alpha);
    check_png_alpha(PNG_COLOR_TYPE_RGB_ALPHA, 16, deep, rgb, alpha);
    check_png_alpha(PNG_COLOR_TYPE_GRAY_ALPHA, 8, gray, gray_rgb, alpha);
    check_png_alpha(PNG_COLOR_TYPE_PALETTE, 8, indexes, colored, index_alpha);
    check_png_alpha(PNG_COLOR_TYPE_RGB, 8, rgb, rgb, NULL);
}

static void test_webp_alpha(void **state)
{
    (void)state;
    uint8_t rgb[PIXELS * 3], rgba[PIXELS * 4], alpha[PIXELS], *file = NULL;
    for (int i = 0; i < PIXELS; i++) {
        alpha[i] = (uint8_t)(64 + i); /* never 0: libwebp changes invisible colours */
        for (int c = 0; c < 3; c++) {
            rgb[3 * i + c] = rgba[4 * i + c] = (uint8_t)(i * 3 + c);
        }
        rgba[4 * i + 3] = alpha[i];
    }
    size_t size = WebPEncodeLosslessRGBA(rgba, SIDE, SIDE, SIDE * 4, &file);
    assert_true(size > 0);
    check_alpha(file, size, rgb, alpha);
    WebPFree(file);
    size = WebPEncodeLosslessRGB(rgb, SIDE, SIDE, SIDE * 3, &file);
    check_alpha(file, size, rgb, NULL);
    WebPFree(file);
}

/* SIDE x SIDE pixels of one value; owned by the caller (free). */
static unsigned char *make_jpeg(unsigned long *size, J_COLOR_SPACE space, int components)
{
    struct jpeg_compress_struct jpeg = {0};
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL, row[SIDE * 4];
    JSAMPROW rows = row;
    memset(row, 100, sizeof row);
    *size = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, size);
    jpeg.image_width = jpeg.image_height = SIDE;
    jpeg.input_components = components;
    jpeg.in_color_space = space;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 100, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        jpeg_write_scanlines(&jpeg, &rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return bytes;
}

static void test_jpeg_spaces(void **state)
{
    (void)state;
    dk_error err;
    dk_image image;
    unsigned long size;
    unsigned char *gray = make_jpeg(&size, JCS_GRAYSCALE, 1);
    assert_ok(dk_image_decode(&image, gray, size, "gray", NULL, &err), err);
    for (int i = 0; i < PIXELS * 3; i++) {
        assert_int_equal(image.rgb[i], 100);
    }
    dk_image_release(&image);
    free(gray);
    unsigned char *cmyk = make_jpeg(&size, JCS_CMYK, 4);
    assert_int_equal(dk_image_decode(&image, cmyk, size, "cmyk.jpg", NULL, &err),
                     DK_UNSUPPORTED);
    assert_string_equal(err.message, "cmyk.jpg: a CMYK picture, accepted are JPEGs in gray, "
                                     "YCbCr or RGB");
    free(cmyk);
}

/* A whole JPEG with bytes missing in the middle of its data is not filled with gray. */
static void test_jpeg_cut(void **state)
{
    (void)state;
    dk_error err;
    dk_image image;
    unsigned long size;
    unsigned char *bytes = make_jpeg(&size, JCS_RGB, 3);
    assert_ok(dk_image_decode(&image, bytes, size, "jpeg", NULL, &err), err);
    dk_image_release(&image);
    assert_int_equal(dk_image_decode(&image, bytes, size - 12, "cut.jpg", NULL, &err),
                     DK_FORMAT);
    assert_non_null(strstr(err.message, "not a whole JPEG picture (Premature end"));
    free(bytes);
}

/* Offset of the next marker at or behind `at`: 0xFF and not 0. */
static size_t next_marker(const char *bytes, size_t at)
{
    while (bytes[at] != '\xFF' || bytes[at + 1] == 0) {
        at++;
    }
    return at;
}

/* A progressive JPEG whose first scan comes again and again: each costs a pass over the whole
   picture. */
static void test_jpeg_scans(void **state)
{
    (void)state;
    enum { TURNS = 150 };
    dk_error err;
    dk_image image;
    char *bytes;
    size_t size, scan = 2;
    dk_string many = DK_STRING_EMPTY;
    assert_ok(dk_file_read(&bytes, &size, "tests/fuzz/corpus/jpeg/progressive.jpg", 4096, &err),
              err);
    while (memcmp(bytes + scan, "\xFF\xDA", 2) != 0) {
        scan = next_marker(bytes, scan + 2);
    }
    size_t end = next_marker(bytes, scan + 2);
    dk_string_append(&many, bytes, scan);
    for (int i = 0; i < TURNS; i++) {
        dk_string_append(&many, bytes + scan, end - scan);
    }
    dk_string_append(&many, bytes + end, size - end);
    assert_ok(dk_image_decode(&image, bytes, size, "few", NULL, &err), err);
    dk_image_release(&image);
    assert_int_equal(dk_image_decode(&image, many.data, many.length, "many", NULL, &err),
                     DK_FORMAT);
    assert_non_null(strstr(err.message, "more than 100 scans"));
    dk_string_release(&many);
    dk_free(bytes);
}

static void test_limits(void **state)
{
    static const char *const names[] = {"l.png", "l.jpg", "l.webp"};
    dk_error err;
    dk_frames frames;
    fixture_frames(&frames, 1, 10, 20);
    for (int i = 0; i < 3; i++) {
        dk_image image = {0};
        char *path = fixture_path(state, names[i]);
        const dk_media_options options = {0};
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        dk_media_limits limits = {.max_pixels = 200};
        assert_ok(dk_media_read_image(&image, path, &limits, &err), err);
        dk_image_release(&image);
        limits.max_pixels = 199;
        assert_int_equal(dk_media_read_image(&image, path, &limits, &err), DK_FORMAT);
        assert_non_null(strstr(err.message, "20 x 10 pixels, accepted are 1 to 199 in all"));
        limits = (dk_media_limits){.max_bytes = 20};
        assert_int_equal(dk_media_read_image(&image, path, &limits, &err), DK_FORMAT);
        assert_non_null(strstr(err.message, "at most 20 are accepted"));
        assert_null(image.rgb);
        dk_free(path);
    }
    fixture_frames_release(&frames);
}

static void test_refused(void **state)
{
    static const char *const names[] = {"v.gif", "v.mp4", "v.webm"};
    dk_error err;
    dk_frames frames;
    dk_image image;
    fixture_frames(&frames, 1, 16, 16);
    for (int i = 0; i < 3; i++) {
        char *path = fixture_path(state, names[i]);
        const dk_media_options options = {.fps = 8};
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        assert_int_equal(dk_media_read_image(&image, path, NULL, &err), DK_UNSUPPORTED);
        assert_non_null(strstr(err.message, "accepted are png, jpeg, webp"));
        dk_free(path);
    }
    fixture_frames_release(&frames);
    assert_int_equal(dk_image_decode(&image, "", 0, "empty", NULL, &err), DK_FORMAT);
    assert_string_equal(err.message, "empty: not a picture, accepted are png, jpeg, webp");
    char *missing = fixture_path(state, "missing.png");
    assert_int_equal(dk_media_read_image(&image, missing, NULL, &err), DK_NOT_FOUND);
    dk_free(missing);
    assert_int_equal(dk_media_read_image(&image, *state, NULL, &err), DK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png_rgb),     cmocka_unit_test(test_png_gray),
        cmocka_unit_test(test_png_palette), cmocka_unit_test(test_png_alpha),
        cmocka_unit_test(test_webp_alpha),  cmocka_unit_test(test_jpeg_spaces),
        cmocka_unit_test(test_jpeg_cut),    cmocka_unit_test(test_limits),
        cmocka_unit_test(test_jpeg_scans),  cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
