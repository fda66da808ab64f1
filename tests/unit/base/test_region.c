/* Regions of memory: large pages asked of the system, and pages given back to it. */
#include "test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/region.h"
#include "device/device.h"

enum { LARGE = 8 << 20, SMALL = 64 << 10 };

/* Whether the mapping around the address was asked to have large pages: the flag hg of
   proc_pid_smaps(5). */
static bool wants_large_pages(const void *address)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    assert_non_null(file);
    char line[512];
    bool inside = false, wants = false;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long first, end;
        if (sscanf(line, "%lx-%lx ", &first, &end) == 2) {
            inside = first <= (unsigned long)address && (unsigned long)address < end;
        } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            wants = strstr(line, " hg") != NULL;
        }
    }
    fclose(file);
    return wants;
}

static bool system_has_large_pages(void)
{
    return access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) == 0;
}

static void large_memory_asks_for_large_pages(void **state)
{
    (void)state;
    dk_error err;
    void *large, *small, *of_device;
    assert_ok(dk_region_open(&large, LARGE, "large", &err), err);
    assert_ok(dk_region_open(&small, SMALL, "small", &err), err);
    assert_int_equal(wants_large_pages((char *)large + LARGE / 2), system_has_large_pages());
    assert_false(wants_large_pages((char *)small + SMALL / 2));

    dk_device *device;
    const dk_device_options options = {.name = "cpu", .threads = 1};
    assert_ok(dk_device_open(&device, &options, &err), err);
    assert_ok(dk_device_alloc(device, &of_device, LARGE, "large", &err), err);
    assert_int_equal(wants_large_pages((char *)of_device + LARGE / 2),
                     system_has_large_pages());
    dk_device_free(device, of_device);
    dk_device_close(&device);
    dk_region_close(large, LARGE);
    dk_region_close(small, SMALL);
}

static void pages_given_back_are_zeros(void **state)
{
    (void)state;
    dk_error err;
    void *memory;
    assert_ok(dk_region_open(&memory, LARGE, "region", &err), err);
    char *bytes = memory;
    memset(bytes, 1, LARGE);
    dk_pages_give_back(bytes + LARGE / 2, LARGE / 2);
    assert_int_equal(bytes[LARGE / 2 - 1], 1);
    assert_int_equal(bytes[LARGE / 2], 0);
    assert_int_equal(bytes[LARGE - 1], 0);
    dk_region_close(memory, LARGE);
    dk_region_close(NULL, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_memory_asks_for_large_pages),
        cmocka_unit_test(pages_given_back_are_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
