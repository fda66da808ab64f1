/* Resizing: what must not change, exact means, and smooth pictures that survive. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "media/resize.h"
#include "test.h"

static void resize(uint8_t *dst, int height, int width, const dk_samples *src,
                   dk_resize_filter filter)
{
    dk_error err;
    assert_ok(dk_resize(dst, height, width, src, filter, &err), err);
}

static const dk_resize_filter filters[] = {DK_RESIZE_CUBIC, DK_RESIZE_AREA};

static void test_one_colour_stays(void **state)
{
    (void)state;
    static const int sizes[][4] = {
        {1, 1, 9, 5}, {7, 5, 3, 2}, {64, 64, 8, 8}, {13, 29, 31, 17}, {100, 3, 1, 7}};
    uint8_t src[100 * 64 * 3], dst[64 * 64 * 3];
    for (int f = 0; f < 2; f++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const int *s = sizes[i];
            memset(src, 137, sizeof src);
            const dk_samples picture = {s[0], s[1], 3, src};
            resize(dst, s[2], s[3], &picture, filters[f]);
            for (int k = 0; k < s[2] * s[3] * 3; k++) {
                assert_int_equal(dst[k], 137);
            }
        }
    }
}

static void test_same_size_is_a_copy(void **state)
{
    (void)state;
    uint8_t src[5 * 7 * 3], dst[5 * 7 * 3];
    for (int i = 0; i < (int)sizeof src; i++) {
        src[i] = (uint8_t)(i * 89);
    }
    const dk_samples picture = {5, 7, 3, src};
    for (int f = 0; f < 2; f++) {
        memset(dst, 0, sizeof dst);
        resize(dst, 5, 7, &picture, filters[f]);
        assert_memory_equal(dst, src, sizeof src);
    }
}

static void test_area_is_the_mean(void **state)
{
    (void)state;
    static const uint8_t src[2 * 6] = {0, 100, 200, 10, 20, 30, 50, 150, 250, 40, 50, 60};
    uint8_t dst[2];
    const dk_samples plane = {2, 6, 1, src};
    resize(dst, 1, 2, &plane, DK_RESIZE_AREA);
    assert_int_equal(dst[0], 125);
    assert_int_equal(dst[1], 35);
    /* 3 pixels into 2: each takes half of the middle one. */
    static const uint8_t three[] = {0, 90, 240};
    const dk_samples line = {1, 3, 1, three};
    resize(dst, 1, 2, &line, DK_RESIZE_AREA);
    assert_int_equal(dst[0], 30);
    assert_int_equal(dst[1], 190);
}

static uint8_t wave(double x, double y)
{
    return (uint8_t)lrint(127.5 + 80 * sin(6 * x) * cos(5 * y));
}

static void fill(uint8_t *dst, int height, int width)
{
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            dst[y * width + x] = wave((x + 0.5) / width, (y + 0.5) / height);
        }
    }
}

/* A smooth function sampled at one size and resized is the function sampled at the other. */
static void test_smooth_survives(void **state)
{
    (void)state;
    enum { HEIGHT = 48, WIDTH = 64 };
    static const int sizes[][2] = {{96, 128}, {31, 41}, {48, 17}, {120, 50}};
    uint8_t src[HEIGHT * WIDTH], dst[128 * 128], expected[128 * 128];
    fill(src, HEIGHT, WIDTH);
    const dk_samples plane = {HEIGHT, WIDTH, 1, src};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int height = sizes[i][0], width = sizes[i][1];
        resize(dst, height, width, &plane, DK_RESIZE_CUBIC);
        fill(expected, height, width);
        for (int k = 0; k < height * width; k++) {
            bool inside = k % width > 1 && k % width < width - 2 && k / width > 1 &&
                          k / width < height - 2;
            int most = inside ? 3 : 12; /* a border has no other side */
            assert_in_range(dst[k] - expected[k] + 100, 100 - most, 100 + most);
        }
    }
}

/* Black and white lines of one pixel shrink to gray, not to a pattern. */
static void test_lines_become_gray(void **state)
{
    (void)state;
    enum { SIDE = 64 };
    uint8_t src[SIDE * SIDE], dst[SIDE * SIDE];
    for (int i = 0; i < SIDE * SIDE; i++) {
        src[i] = i % 2 == 0 ? 0 : 255;
    }
    const dk_samples plane = {SIDE, SIDE, 1, src};
    resize(dst, 16, 16, &plane, DK_RESIZE_CUBIC);
    for (int i = 0; i < 16 * 16; i++) {
        assert_in_range(dst[i], i % 16 == 0 || i % 16 == 15 ? 110 : 124, 145);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_colour_stays),  cmocka_unit_test(test_same_size_is_a_copy),
        cmocka_unit_test(test_area_is_the_mean),  cmocka_unit_test(test_smooth_survives),
        cmocka_unit_test(test_lines_become_gray),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
