/* Writing files with every fallible call failing once: the old file or the whole new one is
   there, and nothing else. A full disk is a limit on the size of files. */
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/media.h"
#include "scratch.h"
#include "test.h"
#include "torture.h"
#include "weights/recast.h"
#include "weights/safetensors.h"

enum { MOST_CALLS = 200 };

typedef dk_status write_fn(const char *path, dk_error *err);

static dk_status write_tensors(const char *path, dk_error *err)
{
    static float a[3] = {1, 2, 3};
    static unsigned char b[2] = {4, 5};
    const dk_safetensors_entry entries[] = {{"a", DK_TENSOR(a, DK_F32, 3)},
                                            {"b", DK_TENSOR(b, DK_U8, 1, 2)}};
    return dk_safetensors_write(path, entries, 2, err);
}

static dk_status write_bytes(const char *path, dk_error *err)
{
    return dk_file_write(path, "new", 3, err);
}

static dk_status write_picture(const char *path, dk_error *err)
{
    static uint8_t rgb[16 * 16 * 3];
    const dk_frames frames = {.count = 1, .height = 16, .width = 16, .rgb = rgb};
    return dk_media_write(path, &frames, &(dk_media_options){.fps = 16, .recipe = "{}"}, err);
}

static void assert_old(const char *path)
{
    dk_error err;
    char *old;
    size_t size;
    assert_ok(dk_file_read(&old, &size, path, 1 << 20, &err), err);
    assert_string_equal(old, "old");
    dk_free(old);
}

static bool write_once(const char *folder, const char *name, write_fn *fn, int n)
{
    dk_error err = {0};
    const char *what;
    char *path = dk_path_join(folder, name);
    scratch_write(folder, name, "old");
    torture_arm(n);
    dk_status status = fn(path, &err);
    bool hit = torture_disarm(&what);
    if (status != DK_OK) {
        assert_true(hit);
        if (status != DK_IO && status != DK_NO_SPACE && status != DK_MEMORY) {
            fail_msg("%s: a failed %s became: %s", name, what, dk_status_text(status));
        }
        assert_useful(&err, path);
        assert_old(path);
    }
    assert_int_equal(scratch_count(folder), 1);
    dk_free(path);
    return hit;
}

static void torture_writer(const char *name, write_fn *fn)
{
    char *folder = scratch_create();
    int n = 1;
    while (write_once(folder, name, fn, n)) {
        assert_true(++n < MOST_CALLS);
    }
    assert_true(n > 4);
    scratch_remove(folder);
}

static void test_writers(void **state)
{
    (void)state;
    torture_writer("w.safetensors", write_tensors);
    torture_writer("w.bin", write_bytes);
    torture_writer("w.png", write_picture);
    torture_writer("w.jpg", write_picture);
    torture_writer("w.webp", write_picture);
}

/* Files may not grow beyond `bytes`: writing fails as on a full disk. */
static void limit_files(rlim_t bytes)
{
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, RLIM_INFINITY}), 0);
}

static void test_full_disk(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        write_fn *fn;
    } writers[] = {
        {"w.safetensors", write_tensors}, {"w.png", write_picture}, {"w.jpg", write_picture},
        {"w.webp", write_picture},        {"w.gif", write_picture}, {"w.mp4", write_picture},
        {"w.webm", write_picture},
    };
    for (size_t i = 0; i < sizeof writers / sizeof *writers; i++) {
        dk_error err = {0};
        char *folder = scratch_create(), *path = dk_path_join(folder, writers[i].name);
        scratch_write(folder, writers[i].name, "old");
        for (rlim_t bytes = 0; bytes < 48; bytes += 16) {
            limit_files(bytes);
            dk_status status = writers[i].fn(path, &err);
            limit_files(RLIM_INFINITY);
            if (status != DK_IO && status != DK_NO_SPACE) {
                fail_msg("%s: a full disk became: %s", writers[i].name, dk_status_text(status));
            }
            assert_useful(&err, path);
            assert_old(path);
            assert_int_equal(scratch_count(folder), 1);
        }
        dk_free(path);
        scratch_remove(folder);
    }
}

/* Recasting may leave a part of its file, but no open one, and says what failed. */
static void test_recast(void **state)
{
    (void)state;
    static const char from_path[] = "tests/golden/wan2.1-t2v/checkpoint/transformer/"
                                    "diffusion_pytorch_model.safetensors";
    dk_error err = {0};
    dk_safetensors *from;
    char *folder = scratch_create(), *to = dk_path_join(folder, "to.safetensors");
    const dk_recast_options options = {.dtype = DK_BF16};
    assert_ok(dk_safetensors_open(&from, from_path, &err), err);
    bool hit = true;
    for (int n = 1; hit; n = n < 8 ? n + 1 : n * 2) { /* a call for each tensor: leap */
        const char *what;
        torture_arm(n);
        dk_status status = dk_recast_file(to, from, &options, from_path, &err);
        hit = torture_disarm(&what);
        assert_true(hit ? status == DK_IO || status == DK_NO_SPACE : status == DK_OK);
        if (hit) {
            assert_useful(&err, to);
        }
        remove(to);
    }
    dk_safetensors_close(&from);
    dk_free(to);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writers),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_recast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
