/* Which of Level Zero's cards a device of SYCL's is, with a loader of ours (ze_loader.c): no
   GPU is at hand. The layouts were compared with Level Zero's headers when they were written.
 */
#include <stdio.h>
#include <string.h>

#include "device/xpu/identity.h"
#include "test.h"

static dk_device_info device(const char *kind, const char *name)
{
    dk_device_info info = {0};
    snprintf(info.kind, sizeof info.kind, "%s", kind);
    snprintf(info.name, sizeof info.name, "%s", name);
    return info;
}

static void all_are_seen(void **state)
{
    (void)state;
    dk_device_info found[] = {device("gpu", "Card B"), device("gpu", "Card A"),
                              device("gpu", "Card B"), device("gpu", "Graphics"),
                              device("cpu", "A processor")};
    dk_xpu_identify(found, 5);
    assert_string_equal(found[0].uuid, "01010101-0101-0101-0101-010101010101");
    assert_string_equal(found[1].uuid, "02020202-0202-0202-0202-020202020202");
    assert_string_equal(found[2].uuid, "03030303-0303-0303-0303-030303030303");
    assert_string_equal(found[3].uuid, "04040404-0404-0404-0404-040404040404");
    assert_int_equal(found[0].free_bytes, 1024);
    assert_int_equal(found[1].free_bytes, 7);
    assert_int_equal(found[2].free_bytes, 11);
    assert_int_equal(found[3].free_bytes, 0);
    assert_string_equal(found[4].uuid, ""); /* no OpenCL is loaded here */
    assert_true(found[4].free_bytes > 1u << 20);
}

/* A selector has hidden one of two alike: nobody says which. */
static void one_is_hidden(void **state)
{
    (void)state;
    dk_device_info found[] = {device("gpu", "Card B"), device("gpu", "Card A"),
                              device("gpu", "Card C")};
    dk_xpu_identify(found, 3);
    assert_string_equal(found[0].uuid, "");
    assert_int_equal(found[0].free_bytes, 0);
    assert_string_equal(found[1].uuid, "02020202-0202-0202-0202-020202020202");
    assert_string_equal(found[2].uuid, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_seen),
        cmocka_unit_test(one_is_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
