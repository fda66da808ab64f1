/* darkroom convert with its fallible calls failing: OUT is whole or absent, and nothing lies
   beside it. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "scratch.h"
#include "test.h"
#include "torture.h"
#include "weights/model_folder.h"

enum { MOST_CALLS = 100000 };

static char model[] = "tests/golden/wan2.1-t2v/checkpoint";

static dk_status convert(char *from, char *to, bool force, dk_error *err)
{
    dk_arguments arguments;
    char *argv[] = {from, to, "--log-level", "error", "--json", "--force"};
    dk_status status =
        dk_arguments_parse(&arguments, &dk_command_convert, force ? 6 : 5, argv, err);
    if (status == DK_OK) {
        status = dk_command_convert.run(&arguments, err);
    }
    dk_arguments_release(&arguments);
    return status;
}

static bool convert_once(char *folder, char *from, char *to, bool force, int n)
{
    dk_error err = {0};
    const char *what;
    int before = scratch_count(folder);
    bool existed = dk_path_exists(to);
    torture_arm(n);
    dk_status status = convert(from, to, force, &err);
    bool hit = torture_disarm(&what);
    if (status != DK_OK) {
        if (!hit || (status != DK_IO && status != DK_MEMORY && status != DK_NOT_FOUND)) {
            fail_msg("call %d, a failed %s, became: %s", n, what, err.message);
        }
        assert_useful(&err, "");
        assert_int_equal(scratch_count(folder), before);
        assert_true(dk_path_exists(to) == existed);
    } else if (!existed) {
        remove(to); /* a file; folders are only made over old ones here */
    }
    return hit;
}

/* Call after call at first, then in leaps: there is a call for each tensor. */
static int next(int n)
{
    return n < 40 ? n + 1 : n + n / 12;
}

static void test_file(void **state)
{
    (void)state;
    char *folder = scratch_create(), *to = dk_path_join(folder, "out.safetensors");
    char from[] = "tests/golden/wan2.1-t2v/checkpoint/vae/diffusion_pytorch_model.safetensors";
    for (int n = 1; convert_once(folder, from, to, false, n); n = next(n)) {
        assert_true(n < MOST_CALLS);
    }
    dk_free(to);
    scratch_remove(folder);
}

static void test_folder(void **state)
{
    (void)state;
    dk_error err;
    dk_model_folder *opened;
    char *folder = scratch_create(), *to = dk_path_join(folder, "out");
    assert_ok(convert(model, to, false, &err), err);
    for (int n = 1; convert_once(folder, model, to, true, n); n = next(n)) {
        assert_true(n < MOST_CALLS);
        assert_ok(dk_model_folder_open(&opened, to, &err), err);
        dk_model_folder_close(&opened);
    }
    dk_free(to);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
