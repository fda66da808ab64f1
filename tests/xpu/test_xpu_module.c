/* The XPU module as a library: it comes and goes without a trace, what is no module of this
   build is refused, and what is asked for and is not there is named. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "device/module.h"
#include "test.h"

/* --- leaks -------------------------------------------------------------------------------- */

enum { ROWS = 33, COLS = 64, DEPTH = 48 };

typedef struct footprint {
    long resident_kib;
    int files, threads;
} footprint;

static int entries_of(const char *folder)
{
    int count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

static footprint look(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &pages, &resident), 2);
    fclose(file);
    return (footprint){.resident_kib = resident * sysconf(_SC_PAGESIZE) / 1024,
                       .files = entries_of("/proc/self/fd"),
                       .threads = entries_of("/proc/self/task")};
}

/* A linear layer with a bias: a primitive, an adopted matrix and a mirrored vector, scratch.
   With `norm` also a kernel of ours. */
static void compute(dk_device *device, bool with_norm)
{
    static float weight[COLS * DEPTH], bias[COLS], src[ROWS * DEPTH], dst[ROWS * COLS];
    const dk_adoption adoptions[] = {
        {.host = weight, .bytes = sizeof weight, .name = "w"},
        {.host = bias, .bytes = sizeof bias, .name = "b", .vectors = true}};
    void *from = NULL, *to = NULL;
    dk_error err;
    for (int i = 0; i < COLS * DEPTH; i++) {
        weight[i] = (float)(i % 7) * 0.25f;
    }
    for (int i = 0; i < ROWS * DEPTH; i++) {
        src[i] = (float)(i % 5) - 2.0f;
    }
    assert_ok(dk_device_alloc(device, &from, sizeof src, "src", &err), err);
    assert_ok(dk_device_alloc(device, &to, sizeof dst, "dst", &err), err);
    dk_device_adopt(device, &adoptions[0]);
    dk_device_adopt(device, &adoptions[1]);
    dk_device_write(device, from, src, sizeof src);
    const dk_linear_args layer = {.rows = ROWS,
                                  .cols = COLS,
                                  .depth = DEPTH,
                                  .src = from,
                                  .src_type = DK_F32,
                                  .src_stride = DEPTH,
                                  .weight = weight,
                                  .weight_type = DK_F32,
                                  .bias = bias,
                                  .dst = to,
                                  .dst_type = DK_F32,
                                  .dst_stride = COLS};
    const dk_norm_args norm = {.kind = DK_NORM_LAYER,
                               .rows = ROWS,
                               .cols = COLS,
                               .src = to,
                               .src_type = DK_F32,
                               .dst = to,
                               .dst_type = DK_F32,
                               .weight = bias,
                               .eps = 1e-6f};
    for (int dry = 1; dry >= 0; dry--) {
        dk_device_set_dry(device, dry);
        dk_device_linear(device, &layer);
    }
    dk_device_read(device, dst, to, sizeof dst);
    if (with_norm) {
        dk_device_norm(device, &norm);
    }
    assert_ok(dk_device_sync(device, &err), err);
    double sum = 0;
    for (int i = 0; i < DEPTH; i++) {
        sum += (double)src[DEPTH + i] * (double)weight[DEPTH + i];
    }
    assert_true(dst[COLS + 1] > sum - 1e-3 && dst[COLS + 1] < sum + 1e-3);
    dk_device_disown(device, weight);
    dk_device_disown(device, bias);
    dk_device_free(device, from);
    dk_device_free(device, to);
}

/* Loads, opens, computes, closes and unloads so many times; after the first `warm` of them,
   files and threads stay as many as they are and memory grows by no more than that in all. */
static void expect_no_trace(int rounds, int warm, bool norm, long most_growth_kib)
{
    const dk_device_options options = {.name = "xpu:cpu", .exact = true};
    footprint before = {0};
    for (int round = 0; round < rounds; round++) {
        dk_device *device = NULL;
        dk_error err;
        assert_ok(dk_device_open(&device, &options, &err), err);
        compute(device, norm);
        dk_device_close(&device);
        if (round == warm - 1) {
            before = look();
        }
    }
    footprint after = look();
    print_message("%d rounds: %ld to %ld KiB, %d to %d files, %d to %d threads\n",
                  rounds - warm, before.resident_kib, after.resident_kib, before.files,
                  after.files, before.threads, after.threads);
    assert_true(after.resident_kib <= before.resident_kib + most_growth_kib);
    assert_true(after.files <= before.files);
    assert_true(after.threads <= before.threads);
}

/* Intel's OpenCL keeps some 12 KiB of each queue that was used. */
static void comes_and_goes(void **state)
{
    (void)state;
    enum { ROUNDS = 110, WARM = 10, KIB_PER_QUEUE = 40 };
    expect_no_trace(ROUNDS, WARM, false, (ROUNDS - WARM) * KIB_PER_QUEUE);
}

/* dpctl 0.22 never gives back the program that a kernel bundle is made of, OpenCL's and Level
   Zero's alike: 1 to 2 MiB for each file of cl/ with each device. It is not to become more. */
static void comes_and_goes_with_kernels(void **state)
{
    (void)state;
    enum { ROUNDS = 12, WARM = 4, KIB_PER_BUNDLE = 7 * 1024 };
    expect_no_trace(ROUNDS, WARM, true, (ROUNDS - WARM) * KIB_PER_BUNDLE);
}

/* Two at a time share what is loaded; the first one's end leaves the other at work. */
static void two_at_a_time(void **state)
{
    (void)state;
    const dk_device_options options = {.name = "xpu:cpu", .exact = true};
    dk_device *a = NULL, *b = NULL;
    dk_error err;
    assert_ok(dk_device_open(&a, &options, &err), err);
    assert_ok(dk_device_open(&b, &options, &err), err);
    compute(a, true);
    dk_device_close(&a);
    compute(b, true);
    dk_device_close(&b);
}

/* --- refusals ----------------------------------------------------------------------------- */

/* Opens "xpu:cpu" from a folder of modules; the message. */
static void expect_refused(const char *folder, dk_status status, const char *text)
{
    const dk_device_options options = {.name = "xpu:cpu"};
    char *before = dk_strdup(getenv("DARKROOM_MODULE_PATH"));
    char *path = dk_path_join(getenv("DK_TEST_MODULES"), folder);
    dk_device *device = NULL;
    dk_error err;
    setenv("DARKROOM_MODULE_PATH", path, 1);
    assert_int_equal(dk_device_open(&device, &options, &err), status);
    setenv("DARKROOM_MODULE_PATH", before, 1);
    assert_null(device);
    if (strstr(err.message, text) == NULL ||
        strstr(err.message, "libdarkroom-xpu.so") == NULL) {
        fail_msg("%s: %s", folder, err.message);
    }
    dk_free(before);
    dk_free(path);
}

static void other_builds(void **state)
{
    (void)state;
    expect_refused("version", DK_UNSUPPORTED, "another version of Darkroom");
    expect_refused("size", DK_UNSUPPORTED, "another version of Darkroom");
    expect_refused("nothing", DK_UNSUPPORTED, "not a module of Darkroom");
    expect_refused("absent", DK_NOT_FOUND, "./dev build --xpu");
}

static bool has_gpu(void)
{
    enum { MOST = 32 };
    dk_device_info found[MOST];
    const dk_device_module *module;
    void *handle;
    dk_error err;
    bool gpu = false;
    assert_ok(dk_device_module_load(&handle, &module, "xpu", &err), err);
    int count = module->list(found, MOST);
    assert_true(count >= 1);
    assert_int_equal(module->list(NULL, 0), count);
    for (int i = 0; i < count && i < MOST; i++) {
        gpu = gpu || strcmp(found[i].kind, "gpu") == 0;
    }
    dk_device_module_unload(handle);
    return gpu;
}

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        dk_status status;
        const char *text[2];
    } cases[] = {
        {"xpu:x", DK_INVALID, {"'xpu:x'", "accepted are xpu, xpu:N"}},
        {"xpu:", DK_INVALID, {"'xpu:'", "accepted are xpu, xpu:N"}},
        {"xpu:-1", DK_INVALID, {"'xpu:-1'", "from 0 to 1023"}},
        {"xpu:1024", DK_INVALID, {"'xpu:1024'", "from 0 to 1023"}},
        {"xpu:7", DK_NOT_FOUND, {"xpu:7", "found: "}},
        {"xpu", DK_NOT_FOUND, {"no such GPU", "xpu:cpu asks for the CPU by name"}},
        {"xpu:0", DK_NOT_FOUND, {"no such GPU", "ZE_AFFINITY_MASK"}},
    };
    bool gpu = has_gpu();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const dk_device_options options = {.name = cases[i].name};
        dk_device *device = NULL;
        dk_error err;
        if (gpu && cases[i].status == DK_NOT_FOUND) {
            continue;
        }
        assert_int_equal(dk_device_open(&device, &options, &err), cases[i].status);
        assert_null(device);
        for (int k = 0; k < 2; k++) {
            if (strstr(err.message, cases[i].text[k]) == NULL) {
                fail_msg("%s: %s", cases[i].name, err.message);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_builds),
        cmocka_unit_test(names),
        cmocka_unit_test(two_at_a_time),
        cmocka_unit_test(comes_and_goes),
        cmocka_unit_test(comes_and_goes_with_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
