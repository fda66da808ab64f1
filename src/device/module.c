/* Finding and loading the modules of devices. */
#include "device/module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/environment.h"
#include "base/file.h"
#include "base/string.h"
#include "device/cpu/cpu_device.h"

/* Folders to look in, as owned paths: the user's, or the program's own and the installed one.
 */
static int list_folders(char *folders[2])
{
    const char *given = dk_environment("DARKROOM_MODULE_PATH");
    if (given != NULL) {
        folders[0] = dk_strdup(given);
        return 1;
    }
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash == NULL) {
        return 0;
    }
    *slash = '\0';
    folders[0] = dk_strdup(program);
    folders[1] = dk_path_join(program, "../lib/darkroom");
    return 2;
}

static dk_status take_interface(const dk_device_module **out, void *handle, const char *path,
                                dk_error *err)
{
    dk_device_module_get_fn *get;
    *(void **)&get = dlsym(handle, DK_DEVICE_MODULE_SYMBOL);
    if (get == NULL) {
        return dk_fail(err, DK_UNSUPPORTED, "%s: not a module of Darkroom, it has no '%s'",
                       path, DK_DEVICE_MODULE_SYMBOL);
    }
    const dk_device_module *module = get();
    if (module->version != DK_DEVICE_MODULE_VERSION ||
        module->device_bytes != sizeof(dk_device)) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: it was built for another version of Darkroom (interface %d, this "
                       "program has %d)",
                       path, module->version, DK_DEVICE_MODULE_VERSION);
    }
    *out = module;
    return DK_OK;
}

static dk_status load_from(void **handle, const dk_device_module **out, const char *path,
                           dk_error *err)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return dk_fail(err, DK_UNSUPPORTED, "%s cannot be loaded: %s", path, dlerror());
    }
    dk_status status = take_interface(out, library, path, err);
    if (status != DK_OK) {
        dlclose(library);
        return status;
    }
    *handle = library;
    return DK_OK;
}

dk_status dk_device_module_load(void **handle, const dk_device_module **out, const char *kind,
                                dk_error *err)
{
    char *folders[2] = {0};
    dk_string name = DK_STRING_EMPTY, places = DK_STRING_EMPTY;
    dk_status status = DK_NOT_FOUND;
    dk_string_printf(&name, "libdarkroom-%s.so", kind);
    int count = list_folders(folders);
    for (int i = 0; i < count && status == DK_NOT_FOUND; i++) {
        char *path = dk_path_join(folders[i], name.data);
        if (dk_path_exists(path)) {
            status = load_from(handle, out, path, err);
        }
        dk_string_printf(&places, "%s%s", i > 0 ? ", " : "", path);
        dk_free(path);
    }
    if (status == DK_NOT_FOUND) {
        status = dk_fail(err, DK_NOT_FOUND,
                         "the module for '%s' is not there, looked for %s: ./dev build --%s "
                         "builds it, DARKROOM_MODULE_PATH names another folder",
                         kind, dk_string_text(&places), kind);
    }
    for (int i = 0; i < count; i++) {
        dk_free(folders[i]);
    }
    dk_string_release(&name);
    dk_string_release(&places);
    return status;
}

void dk_device_module_unload(void *handle)
{
    if (handle != NULL) {
        dlclose(handle);
    }
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

dk_status dk_device_open(dk_device **out, const dk_device_options *options, dk_error *err)
{
    const char *name = options->name != NULL ? options->name : "cpu";
    bool xpu = strcmp(name, "xpu") == 0 || strncmp(name, "xpu:", 4) == 0;
    if (!xpu && strcmp(name, "cpu") != 0) {
        return dk_fail(err, DK_INVALID,
                       "device is '%s', accepted are cpu, xpu, xpu:N (the Nth of several) and "
                       "xpu:cpu (the CPU through SYCL)",
                       name);
    }
    DK_TRY(xpu ? open_xpu(out, options, err) : dk_cpu_device_open(out, options, err));
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
