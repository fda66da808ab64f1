/* Transports that are modules: libdarkroom-mpi.so, libdarkroom-xccl.so. */
#ifndef DK_COMM_MODULE_H
#define DK_COMM_MODULE_H

#include "comm/transport.h"

/* Loads the module of a transport, "mpi" or "xccl", as base/load_module.h finds it.
   DK_NOT_FOUND says where it was looked for and how it is built, DK_UNSUPPORTED which library
   is missing, or that the module is another build's. handle: for dk_module_unload
   (base/load_module.h), after the transport was closed; dk_transport.module is the place to
   keep it. */
DK_MUST_USE dk_status dk_transport_module_load(void **handle, const dk_transport_module **out,
                                               const char *kind, dk_error *err);

/* Loads the module and opens its transport, which keeps the handle in `module`. */
DK_MUST_USE dk_status dk_transport_module_open(dk_transport **out, const char *kind,
                                               const dk_transport_options *options,
                                               dk_error *err);
/* Closes any outermost transport and unloads its module, if it has one. */
void dk_transport_close(dk_transport **transport);

#endif
