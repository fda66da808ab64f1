/* Finding and loading the modules of devices. */
#include "device/module.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/load_module.h"
#include "base/string.h"
#include "device/cpu/cpu_device.h"

dk_status dk_device_module_load(void **handle, const dk_device_module **out, const char *kind,
                                dk_error *err)
{
    void *symbol, *library;
    char *path;
    dk_string builds = DK_STRING_EMPTY;
    dk_string_printf(&builds, "./dev build --%s builds it", kind);
    dk_status status = dk_module_load(&library, &symbol, &path, kind, DK_DEVICE_MODULE_SYMBOL,
                                      builds.data, err);
    dk_string_release(&builds);
    if (status != DK_OK) {
        return status;
    }
    dk_device_module_get_fn *get;
    *(void **)&get = symbol;
    const dk_device_module *module = get();
    if (module->version == DK_DEVICE_MODULE_VERSION &&
        module->device_bytes == sizeof(dk_device)) {
        *handle = library;
        *out = module;
    } else {
        status = dk_fail(err, DK_UNSUPPORTED,
                         "%s: it was built for another version of Darkroom (interface %d, this "
                         "program has %d)",
                         path, module->version, DK_DEVICE_MODULE_VERSION);
        dk_module_unload(library);
    }
    dk_free(path);
    return status;
}

void dk_device_module_unload(void *handle)
{
    dk_module_unload(handle);
}

static dk_status open_xpu(dk_device **out, const dk_device_options *options, dk_error *err)
{
    void *handle;
    const dk_device_module *module;
    DK_TRY(dk_device_module_load(&handle, &module, "xpu", err));
    dk_status status = module->open(out, options, err);
    if (status != DK_OK) {
        dk_device_module_unload(handle);
        return status;
    }
    (*out)->module = handle;
    return DK_OK;
}

dk_status dk_device_check_name(const char *name, dk_error *err)
{
    bool known =
        strcmp(name, "cpu") == 0 || strcmp(name, "xpu") == 0 || strncmp(name, "xpu:", 4) == 0;
    return known ? DK_OK
                 : dk_fail(err, DK_INVALID,
                           "device is '%s', accepted are cpu, xpu, xpu:N (the Nth of several) "
                           "and xpu:cpu (the CPU through SYCL)",
                           name);
}

dk_status dk_device_open(dk_device **out, const dk_device_options *options, dk_error *err)
{
    const char *name = options->name != NULL ? options->name : "cpu";
    DK_TRY(dk_device_check_name(name, err));
    bool cpu = strcmp(name, "cpu") == 0;
    DK_TRY(cpu ? dk_cpu_device_open(out, options, err) : open_xpu(out, options, err));
    snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    (*out)->trace = options->trace;
    (*out)->trace_lane = options->trace_lane != NULL ? options->trace_lane : DK_TRACE_COMPUTE;
    return DK_OK;
}

void dk_device_close(dk_device **device)
{
    if (*device != NULL) {
        void *module = (*device)->module;
        (*device)->ops->close(*device);
        dk_device_module_unload(module);
        *device = NULL;
    }
}
