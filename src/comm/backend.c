/* Backends by name. */
#include "comm/backend.h"

#include <string.h>

#include "base/clock.h"
#include "base/string.h"
#include "comm/launch.h"
#include "comm/module.h"

enum { START_S = 60 };

static const char *choose(const dk_comm_options *options)
{
    dk_launch launch;
    if (options->ranks == 1) {
        return "self";
    }
    if (options->address != NULL && dk_starts_with(options->address, "unix:")) {
        return "shm";
    }
    dk_launch_read(&launch);
    return launch.by_mpi ? "mpi" : "xccl";
}

static dk_status open_named(dk_transport **out, const char *backend,
                            const dk_transport_options *options, dk_error *err)
{
    if (strcmp(backend, "self") == 0) {
        return dk_transport_self(out, err);
    }
    if (strcmp(backend, "shm") == 0) {
        return dk_transport_shm(out, options, err);
    }
    if (strcmp(backend, "mpi") == 0 || strcmp(backend, "xccl") == 0) {
        return dk_transport_module_open(out, backend, options, err);
    }
    bool nearly = strcmp(backend, "ccl") == 0 || strcmp(backend, "oneccl") == 0;
    return dk_fail(err, DK_INVALID,
                   "the backend of communicators is '%s', accepted are auto, xccl, mpi, shm and "
                   "self%s",
                   backend, nearly ? ": oneCCL's is called xccl" : "");
}

dk_status dk_comm_open_transport(dk_transport **out, const dk_comm_options *options,
                                 dk_error *err)
{
    double start_s = options->start_s > 0 ? options->start_s : START_S;
    const dk_transport_options transport = {.rank = options->rank,
                                            .ranks = options->ranks,
                                            .address = options->address,
                                            .key = options->key,
                                            .deadline_ms = dk_now_ms() + start_s * 1e3,
                                            .log = options->log};
    const char *backend = options->backend != NULL ? options->backend : "auto";
    if (strcmp(backend, "auto") == 0) {
        backend = choose(options);
        dk_log_info(options->log, "ranks communicate by %s", backend);
    }
    return open_named(out, backend, &transport, err);
}
