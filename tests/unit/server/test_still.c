/* Small pictures of an output. */
#include <string.h>

#include "base/alloc.h"
#include "server/service/still.h"
#include "test.h"

/* Frames whose pixels tell their frame and place. */
static uint8_t *make_frames(dk_frames *out, int count, int width, int height)
{
    uint8_t *rgb = dk_alloc((size_t)count * (size_t)height * (size_t)width * 3), *at = rgb;
    for (int f = 0; f < count; f++) {
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                *at++ = (uint8_t)f;
                *at++ = (uint8_t)x;
                *at++ = (uint8_t)y;
            }
        }
    }
    *out = (dk_frames){.count = count, .height = height, .width = width, .rgb = rgb};
    return rgb;
}

static void test_scale_down_averages(void **state)
{
    (void)state;
    const uint8_t src[2 * 4 * 3] = {0,   0, 0, 100, 0, 0, 10, 0, 0, 30, 0, 0,
                                    200, 0, 0, 100, 0, 4, 50, 0, 0, 70, 0, 0};
    uint8_t dst[2 * 3];
    dk_still_scale(dst, 2, 1, sizeof dst, src, 4, 2);
    assert_int_equal(dst[0], 100);
    assert_int_equal(dst[2], 1);
    assert_int_equal(dst[3], 40);
    dk_still_scale(dst, 1, 1, 3, src, 4, 2);
    assert_int_equal(dst[0], 70);
}

static void test_scale_keeps_and_repeats(void **state)
{
    (void)state;
    const uint8_t src[2 * 3] = {1, 2, 3, 4, 5, 6};
    uint8_t dst[2 * 16];
    memset(dst, 99, sizeof dst);
    dk_still_scale(dst, 2, 1, 6, src, 2, 1);
    assert_memory_equal(dst, src, 6);
    dk_still_scale(dst, 4, 2, 16, src, 2, 1); /* rows of 16 bytes, 12 of them pixels */
    static const uint8_t row[12] = {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6};
    assert_memory_equal(dst, row, 12);
    assert_memory_equal(dst + 16, row, 12);
    assert_int_equal(dst[12], 99);
    assert_int_equal(dst[31], 99);
}

/* Every pair of sizes reads and writes inside (the sanitizers look), and keeps one colour. */
static void test_scale_of_all_sizes(void **state)
{
    (void)state;
    for (int from = 1; from <= 12; from++) {
        uint8_t *src = dk_alloc((size_t)(from * (13 - from) * 3));
        memset(src, 77, (size_t)(from * (13 - from) * 3));
        for (int to = 1; to <= 12; to++) {
            uint8_t *dst = dk_alloc((size_t)(to * (13 - to) * 3));
            dk_still_scale(dst, to, 13 - to, (size_t)to * 3, src, from, 13 - from);
            for (int i = 0; i < to * (13 - to) * 3; i++) {
                assert_int_equal(dst[i], 77);
            }
            dk_free(dst);
        }
        dk_free(src);
    }
}

static void test_thumbnail(void **state)
{
    (void)state;
    static const int sizes[][4] = {
        {512, 256, 256, 128}, {256, 512, 128, 256}, {100, 40, 100, 40}, {256, 256, 256, 256},
        {1000, 1, 256, 1},    {1, 1000, 1, 256},    {1, 1, 1, 1},       {257, 100, 256, 99}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        dk_frames frames;
        dk_still still;
        uint8_t *rgb = make_frames(&frames, 5, sizes[i][0], sizes[i][1]);
        dk_still_thumbnail(&still, &frames);
        assert_int_equal(still.frames.count, 1);
        assert_int_equal(still.frames.width, sizes[i][2]);
        assert_int_equal(still.frames.height, sizes[i][3]);
        assert_ptr_equal(still.frames.rgb, still.rgb);
        assert_int_equal(still.rgb[0], 2); /* the middle frame */
        dk_still_release(&still);
        assert_null(still.rgb);
        dk_still_release(&still);
        dk_free(rgb);
    }
}

/* Which frame the sheet shows at a place. */
static int frame_at(const dk_still *still, int place, int width, int height)
{
    int columns = still->frames.width / width;
    size_t row = (size_t)(place / columns * height), column = (size_t)(place % columns * width);
    return still->rgb[(row * (size_t)still->frames.width + column) * 3];
}

static void test_spritesheet(void **state)
{
    (void)state;
    static const struct {
        int frames, columns, rows, first, second, last;
    } cases[] = {{1, 1, 1, 0, -1, 0}, {2, 2, 1, 0, 1, 1},   {4, 4, 1, 0, 1, 3},
                 {5, 4, 2, 0, 1, 4},  {16, 4, 4, 0, 1, 15}, {17, 4, 4, 0, 1, 16},
                 {81, 4, 4, 0, 5, 80}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_frames frames;
        dk_still still;
        int shown = cases[i].frames < DK_SHEET_FRAMES ? cases[i].frames : DK_SHEET_FRAMES;
        uint8_t *rgb = make_frames(&frames, cases[i].frames, 20, 10);
        dk_still_spritesheet(&still, &frames);
        assert_int_equal(still.frames.width, 20 * cases[i].columns);
        assert_int_equal(still.frames.height, 10 * cases[i].rows);
        assert_int_equal(frame_at(&still, 0, 20, 10), cases[i].first);
        if (shown > 1) {
            assert_int_equal(frame_at(&still, 1, 20, 10), cases[i].second);
        }
        assert_int_equal(frame_at(&still, shown - 1, 20, 10), cases[i].last);
        dk_still_release(&still);
        dk_free(rgb);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale_down_averages),
        cmocka_unit_test(test_scale_keeps_and_repeats),
        cmocka_unit_test(test_scale_of_all_sizes),
        cmocka_unit_test(test_thumbnail),
        cmocka_unit_test(test_spritesheet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
