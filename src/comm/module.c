/* Loading the modules of transports. */
#include "comm/module.h"

#include <string.h>

#include "base/alloc.h"
#include "base/load_module.h"

dk_status dk_transport_module_load(void **handle, const dk_transport_module **out,
                                   const char *kind, dk_error *err)
{
    void *symbol, *library;
    char *path;
    const char *builds = strcmp(kind, "xccl") == 0
                             ? "./dev build --xpu builds it"
                             : "./dev build builds it where MPI's headers are (libopenmpi-dev)";
    DK_TRY(dk_module_load(&library, &symbol, &path, kind, DK_TRANSPORT_MODULE_SYMBOL, builds,
                          err));
    dk_transport_module_get_fn *get;
    *(void **)&get = symbol;
    const dk_transport_module *module = get();
    dk_status status = DK_OK;
    if (module->version == DK_TRANSPORT_MODULE_VERSION &&
        module->transport_bytes == sizeof(dk_transport)) {
        *handle = library;
        *out = module;
    } else {
        status = dk_fail(err, DK_UNSUPPORTED,
                         "%s: it was built for another version of Darkroom (interface %d, this "
                         "program has %d)",
                         path, module->version, DK_TRANSPORT_MODULE_VERSION);
        dk_module_unload(library);
    }
    dk_free(path);
    return status;
}

dk_status dk_transport_module_open(dk_transport **out, const char *kind,
                                   const dk_transport_options *options, dk_error *err)
{
    void *handle;
    const dk_transport_module *module;
    dk_status status = dk_transport_module_load(&handle, &module, kind, err);
    if (status != DK_OK) {
        dk_device_lane *lane = options->lane;
        dk_device_lane_close(&lane);
        return status;
    }
    status = module->open(out, options, err);
    if (status == DK_OK) {
        (*out)->module = handle;
    } else {
        dk_module_unload(handle);
    }
    return status;
}

void dk_transport_close(dk_transport **transport)
{
    if (*transport != NULL) {
        void *module = (*transport)->module;
        (*transport)->ops->close(*transport);
        dk_module_unload(module);
        *transport = NULL;
    }
}
