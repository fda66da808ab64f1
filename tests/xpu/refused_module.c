/* A module that looks like ours and is of another build; DK_TEST_… says in what. */
#include "device/module.h"

int dk_test_nothing; /* something to export */

#if !defined(DK_TEST_NOTHING)

#if defined(DK_TEST_VERSION)
enum { VERSION = DK_DEVICE_MODULE_VERSION + 1, MORE_BYTES = 0 };
#else
enum { VERSION = DK_DEVICE_MODULE_VERSION, MORE_BYTES = 8 };
#endif

static const dk_device_module module = {
    .version = VERSION,
    .device_bytes = sizeof(dk_device) + MORE_BYTES,
    .libraries = "",
};

dk_device_module_get_fn dk_device_module_get;

const dk_device_module *dk_device_module_get(void)
{
    return &module;
}

#endif
