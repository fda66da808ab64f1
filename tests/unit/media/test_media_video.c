/* Videos as libav reads them: size, count, speed, colours; and that the same frames give the
   same bytes. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "media_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/formats.h"

static const char recipe[] = "{\"prompt\":\"a cat\"}";

static void write_clip(const char *path, const dk_frames *frames, double fps, int quality)
{
    dk_error err;
    const dk_media_options options = {.quality = quality, .fps = fps, .recipe = recipe};
    assert_ok(dk_media_write(path, frames, &options, &err), err);
}

/* Writes and reads `count` frames; every frame must be above `bound` dB. */
static void round_trip(void **state, const char *name, int count, double fps, double bound)
{
    dk_frames frames;
    clip read;
    char *path = fixture_path(state, name);
    size_t bytes = 48 * 64 * 3;
    fixture_frames(&frames, count, 48, 64);
    write_clip(path, &frames, fps, 90);
    clip_read(&read, path);
    assert_int_equal(read.count, count);
    assert_int_equal(read.width, 64);
    assert_int_equal(read.height, 48);
    for (int i = 0; i < count; i++) {
        size_t at = (size_t)i * bytes;
        double psnr = fixture_psnr(read.rgb + at, frames.rgb + at, bytes);
        if (!(psnr > bound)) {
            fail_msg("%s: frame %d has %g dB, expected more than %g", name, i, psnr, bound);
        }
    }
    /* Hundredths of a second are all that GIF can say. */
    if (count > 1 && fabs(read.fps - fps) > fps * 0.02) {
        fail_msg("%s: %g frames per second, expected %g", name, read.fps, fps);
    }
    /* Where other programs show it; they leave out GIF's comments. */
    if (!dk_ends_with(name, ".gif")) {
        assert_non_null(read.comment);
        assert_string_equal(read.comment, recipe);
    }
    clip_release(&read);
    fixture_frames_release(&frames);
    dk_free(path);
}

/* Halved chroma at the square's edges costs most of what is lost; a wrong colour matrix or
   range would fall below 27 dB. */
static void test_colours(void **state)
{
    round_trip(state, "a.mp4", 9, 16, 32);
    round_trip(state, "b.mp4", 5, 23.976, 32);
    round_trip(state, "a.webm", 9, 16, 32);
    round_trip(state, "b.webm", 5, 12.5, 32);
    round_trip(state, "a.gif", 9, 12.5, 22);
    round_trip(state, "b.gif", 16, 50, 22);
}

static void test_one_frame(void **state)
{
    round_trip(state, "one.mp4", 1, 16, 32);
    round_trip(state, "one.webm", 1, 16, 32);
    round_trip(state, "one.gif", 1, 16, 30);
}

/* A clip of few colours keeps them exactly in GIF. */
static void test_gif_exact(void **state)
{
    enum { SIDE = 16, FRAMES = 3, BYTES = SIDE * SIDE * 3 };
    uint8_t rgb[FRAMES * BYTES];
    for (int i = 0; i < FRAMES * BYTES; i++) {
        rgb[i] = (uint8_t)((i / 3 % SIDE + i / BYTES) / 4 * 60 + i % 3 * 7);
    }
    const dk_frames frames = {FRAMES, SIDE, SIDE, rgb};
    clip read;
    char *path = fixture_path(state, "exact.gif");
    write_clip(path, &frames, 10, 0);
    clip_read(&read, path);
    assert_int_equal(read.count, FRAMES);
    assert_memory_equal(read.rgb, rgb, sizeof rgb);
    clip_release(&read);
    dk_free(path);
}

static void test_gif_repeats(void **state)
{
    dk_error err;
    dk_frames frames;
    char *path = fixture_path(state, "loop.gif"), *bytes;
    size_t size;
    fixture_frames(&frames, 3, 8, 9);
    write_clip(path, &frames, 16, 0);
    assert_ok(dk_file_read(&bytes, &size, path, 1 << 20, &err), err);
    /* Application extension NETSCAPE2.0: sub-block 1, repeat count 0 = for ever. */
    static const char loop[] = "NETSCAPE2.0\x03\x01\x00\x00";
    bool found = false;
    for (size_t i = 0; i + sizeof loop <= size; i++) {
        found = found || memcmp(bytes + i, loop, sizeof loop) == 0;
    }
    assert_true(found);
    assert_int_equal(bytes[size - 1], 0x3B);
    dk_free(bytes);
    fixture_frames_release(&frames);
    dk_free(path);
}

static void test_same_bytes(void **state)
{
    static const char *const endings[] = {"mp4", "webm", "gif"};
    dk_error err;
    dk_frames frames;
    fixture_frames(&frames, 12, 256, 512);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char *bytes[2];
        size_t size[2];
        for (int turn = 0; turn < 2; turn++) {
            char name[32], *path;
            snprintf(name, sizeof name, "turn%d.%s", turn, endings[i]);
            path = fixture_path(state, name);
            write_clip(path, &frames, 16, 0);
            assert_ok(dk_file_read(&bytes[turn], &size[turn], path, 1 << 24, &err), err);
            dk_free(path);
        }
        assert_int_equal(size[0], size[1]);
        assert_memory_equal(bytes[0], bytes[1], size[0]);
        dk_free(bytes[0]);
        dk_free(bytes[1]);
    }
    fixture_frames_release(&frames);
}

static void test_quality_changes_size(void **state)
{
    static const char *const names[] = {"q.mp4", "q.webm"};
    dk_error err;
    dk_frames frames;
    fixture_frames(&frames, 8, 96, 128);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = fixture_path(state, names[i]);
        size_t size[2];
        for (int high = 0; high < 2; high++) {
            char *bytes;
            write_clip(path, &frames, 16, high ? 100 : 1);
            assert_ok(dk_file_read(&bytes, &size[high], path, 1 << 24, &err), err);
            dk_free(bytes);
        }
        assert_true(size[1] > 2 * size[0]);
        dk_free(path);
    }
    fixture_frames_release(&frames);
}

static void refuse_fps(void **state, const char *name, double fps, const char *message)
{
    dk_error err;
    dk_frames frames;
    int before = fixture_file_count(state);
    char *path = fixture_path(state, name);
    fixture_frames(&frames, 2, 8, 8);
    const dk_media_options options = {.fps = fps};
    assert_int_equal(dk_media_write(path, &frames, &options, &err), DK_INVALID);
    assert_non_null(strstr(err.message, message));
    assert_non_null(strstr(err.message, path));
    assert_int_equal(fixture_file_count(state), before);
    fixture_frames_release(&frames);
    dk_free(path);
}

static void test_fps(void **state)
{
    refuse_fps(state, "fps.mp4", 0, "accepted for mp4 are 1 to 240");
    refuse_fps(state, "fps.webm", 241, "fps is 241, accepted for webm are 1 to 240");
    refuse_fps(state, "fps.mp4", NAN, "fps is nan");
    refuse_fps(state, "fps.gif", 60, "fps is 60, accepted for gif are 1 to 50");
}

/* A disk that is full, as /dev/full plays it: every writer notices. */
/* Frames may end where the process's memory ends: nothing behind them is read. */
static void test_nothing_behind(void **state)
{
    static const char *const names[] = {"edge.mp4", "edge.webm", "edge.gif"};
    enum { HEIGHT = 64, WIDTH = 64, COUNT = 4, PAGE = 4096 };
    size_t bytes = (size_t)COUNT * HEIGHT * WIDTH * 3; /* whole pages */
    uint8_t *memory =
        mmap(NULL, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED && bytes % PAGE == 0);
    assert_int_equal(mprotect(memory + bytes, PAGE, PROT_NONE), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = fixture_path(state, names[i]);
        const dk_frames frames = {
            .count = COUNT, .height = HEIGHT, .width = WIDTH, .rgb = memory};
        write_clip(path, &frames, 10, 50);
        dk_free(path);
    }
    munmap(memory, bytes + PAGE);
}

static void test_full_disk(void **state)
{
    (void)state;
    static const char *const names[] = {"x.png", "x.jpg", "x.webp", "x.mp4", "x.webm", "x.gif"};
    dk_media_writer *const writers[] = {dk_png_write, dk_jpeg_write, dk_webp_write,
                                        dk_mp4_write, dk_webm_write, dk_gif_write};
    dk_error err;
    dk_frames frames;
    if (!dk_path_exists("/dev/full")) {
        skip();
    }
    fixture_frames(&frames, 1, 64, 64);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const dk_media_target target = {.file = "/dev/full", .name = names[i]};
        const dk_media_options options = {.fps = 8, .recipe = "{}"};
        dk_status status = writers[i](&target, &frames, &options, &err);
        if (status != DK_IO || strstr(err.message, names[i]) != err.message) {
            fail_msg("%s: status %d", names[i], (int)status);
        }
    }
    fixture_frames_release(&frames);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_colours),
        cmocka_unit_test(test_one_frame),
        cmocka_unit_test(test_gif_exact),
        cmocka_unit_test(test_gif_repeats),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_quality_changes_size),
        cmocka_unit_test(test_fps),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_nothing_behind),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
