/* Pictures: written, read again, compared; and what writers refuse. */
#include "media_fixture.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/image.h"

/* Writes one frame as folder/name and reads it again; returns the PSNR. */
static double round_trip(void **state, const char *name, int quality, int height, int width)
{
    dk_error err;
    dk_frames frames;
    dk_image image = {0};
    char *path = fixture_path(state, name);
    fixture_frames(&frames, 1, height, width);
    const dk_media_options options = {.quality = quality, .recipe = "{\"seed\":\"1\"}"};
    assert_ok(dk_media_write(path, &frames, &options, &err), err);
    assert_ok(dk_media_read_image(&image, path, NULL, &err), err);
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    double psnr = fixture_psnr(image.rgb, frames.rgb, (size_t)height * (size_t)width * 3);
    dk_image_release(&image);
    fixture_frames_release(&frames);
    dk_free(path);
    return psnr;
}

static void assert_above(double value, double bound)
{
    if (!(value > bound)) {
        fail_msg("%g dB, expected more than %g", value, bound);
    }
}

static void test_lossless(void **state)
{
    assert_true(round_trip(state, "a.png", 0, 31, 47) >= 100);
    assert_true(round_trip(state, "b.PNG", 50, 1, 1) >= 100);
    assert_true(round_trip(state, "a.webp", 100, 31, 47) >= 100);
    assert_true(round_trip(state, "b.webp", 100, 1, 1) >= 100);
}

/* The bounds are what a viewer calls indistinguishable (40 dB, full chroma), good (34 dB,
   halved chroma at the square's edges) and poor but recognisable. */
static void test_lossy(void **state)
{
    assert_above(round_trip(state, "a.jpg", 0, 96, 128), 40);
    assert_above(round_trip(state, "b.jpeg", 100, 33, 17), 44);
    assert_above(round_trip(state, "c.jpg", 80, 96, 128), 34);
    assert_above(round_trip(state, "d.jpg", 1, 96, 128), 15);
    assert_above(round_trip(state, "a.webp", 0, 96, 128), 34);
    assert_above(round_trip(state, "b.webp", 99, 33, 17), 30);
    assert_above(round_trip(state, "c.webp", 1, 96, 128), 20);
}

/* From quality 90 on, a JPEG's chroma is not halved: single saturated pixels keep their hue. */
static void test_jpeg_chroma(void **state)
{
    enum { SIDE = 64 };
    dk_error err;
    uint8_t rgb[SIDE * SIDE * 3] = {0};
    for (int i = 0; i < SIDE * SIDE; i++) {
        rgb[3 * i + ((i + i / SIDE) % 2 == 0 ? 0 : 2)] = 255;
    }
    const dk_frames frames = {1, SIDE, SIDE, rgb};
    double psnr[2];
    for (int full = 0; full < 2; full++) {
        dk_image image;
        char *path = fixture_path(state, "chroma.jpg");
        const dk_media_options options = {.quality = full ? 90 : 89};
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        assert_ok(dk_media_read_image(&image, path, NULL, &err), err);
        psnr[full] = fixture_psnr(image.rgb, rgb, sizeof rgb);
        dk_image_release(&image);
        dk_free(path);
    }
    assert_above(psnr[1], 20);
    assert_true(psnr[0] < 10);
}

/* The message of a refused write; nothing may be left in the folder. */
static void refuse(void **state, const char *name, int count, int width, int quality,
                   const char *message)
{
    dk_error err = {0};
    dk_frames frames;
    int before = fixture_file_count(state);
    char *path = fixture_path(state, name);
    fixture_frames(&frames, count > 0 ? count : 1, 4, width);
    frames.count = count;
    const dk_media_options options = {.quality = quality, .fps = 8};
    assert_int_equal(dk_media_write(path, &frames, &options, &err), DK_INVALID);
    if (strstr(err.message, message) == NULL) {
        fail_msg("'%s' does not say '%s'", err.message, message);
    }
    assert_int_equal(fixture_file_count(state), before);
    fixture_frames_release(&frames);
    dk_free(path);
}

static void test_refusals(void **state)
{
    const char *all = "accepted are png, jpg, jpeg, webp, mp4, webm, gif";
    refuse(state, "x.bmp", 1, 4, 0, all);
    refuse(state, "png.", 1, 4, 0, all);
    refuse(state, "x.png.tmp", 1, 4, 0, all);
    refuse(state, "x.png", 2, 4, 0,
           "2 frames do not fit into one picture, accepted are mp4, "
           "webm, gif");
    refuse(state, "x.webp", 0, 4, 0, "0 frames, accepted are 1 and more");
    refuse(state, "x.jpg", 1, 4, 101, "quality is 101, accepted are 1 to 100");
    refuse(state, "x.jpg", 1, 4, -1, "quality is -1");
    refuse(state, "x.webp", 1, 16384, 0, "16384 x 4 pixels, accepted are 1 to 16383");
    refuse(state, "x.mp4", 2, 5, 0, "5 x 4 pixels, mp4 needs even sides");
    refuse(state, "x.webm", 1, 5, 0, "5 x 4 pixels, webm needs even sides");
}

static void test_format_check(void **state)
{
    (void)state;
    dk_error err;
    assert_string_equal(dk_media_formats(), "png, jpg, jpeg, webp, mp4, webm, gif");
    assert_ok(dk_media_format_check("a/b.c/x.PNG", 1, &err), err);
    assert_ok(dk_media_format_check("jpeg", 1, &err), err);
    assert_ok(dk_media_format_check("gif", 81, &err), err);
    assert_ok(dk_media_format_check("x.webm", 1, &err), err);
    assert_int_equal(dk_media_format_check("jpg", 2, &err), DK_INVALID);
    assert_int_equal(dk_media_format_check("a.png/x", 1, &err), DK_INVALID);
    assert_int_equal(dk_media_format_check("", 1, NULL), DK_INVALID);
    assert_true(dk_media_is_video("x.mp4") && dk_media_is_video("GIF"));
    assert_false(dk_media_is_video("x.png") || dk_media_is_video("x.txt"));
}

/* A path under a file cannot be written; a folder in the way cannot be replaced. Every format
   must say so in the name of the user's path and leave nothing. */
static void test_unwritable(void **state)
{
    static const char *const names[] = {"file/x.png", "file/x.jpg",  "file/x.webp",
                                        "file/x.mp4", "file/x.webm", "file/x.gif"};
    dk_error err;
    dk_frames frames;
    char *file = fixture_path(state, "file");
    fixture_frames(&frames, 1, 16, 16);
    assert_ok(dk_file_write(file, "x", 1, &err), err);
    int before = fixture_file_count(state);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = fixture_path(state, names[i]);
        const dk_media_options options = {.fps = 8, .recipe = "{}"};
        assert_int_equal(dk_media_write(path, &frames, &options, &err), DK_IO);
        assert_non_null(strstr(err.message, path));
        assert_non_null(strstr(err.message, "Not a directory"));
        dk_free(path);
    }
    assert_int_equal(fixture_file_count(state), before);
    fixture_frames_release(&frames);
    dk_free(file);
}

/* A file that stands there is replaced. */
static void test_replaces(void **state)
{
    dk_error err;
    dk_frames frames;
    char *path = fixture_path(state, "again.png");
    const dk_media_options options = {0};
    fixture_frames(&frames, 1, 8, 8);
    assert_ok(dk_file_write(path, "old", 3, &err), err);
    int before = fixture_file_count(state);
    assert_ok(dk_media_write(path, &frames, &options, &err), err);
    assert_int_equal(fixture_file_count(state), before);
    dk_image image;
    assert_ok(dk_media_read_image(&image, path, NULL, &err), err);
    dk_image_release(&image);
    fixture_frames_release(&frames);
    dk_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossless),     cmocka_unit_test(test_lossy),
        cmocka_unit_test(test_jpeg_chroma),  cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_format_check), cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_replaces),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
