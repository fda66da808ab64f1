/* Backends by name. */
#include "comm/backend.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/string.h"
#include "comm/launch.h"
#include "comm/module.h"

const char *dk_comm_spell_backend(const char *asked)
{
    bool other = asked != NULL && (strcmp(asked, "ccl") == 0 || strcmp(asked, "oneccl") == 0);
    return asked == NULL ? "auto" : other ? "xccl" : asked;
}

dk_status dk_comm_check_backend(const char *asked, int ranks, dk_error *err)
{
    static const char *const names[] = {"auto", "xccl", "mpi", "shm"};
    const char *backend = dk_comm_spell_backend(asked);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(backend, names[i]) == 0) {
            return DK_OK;
        }
    }
    if (strcmp(backend, "self") != 0) {
        return dk_fail(
            err, DK_INVALID,
            "distributed_backend is '%s', accepted are auto, xccl, mpi, shm and, for "
            "one rank, self",
            backend);
    }
    return ranks == 1 ? DK_OK
                      : dk_fail(err, DK_INVALID,
                                "distributed_backend is 'self', which is for one rank, but %d "
                                "ranks are to talk: accepted are auto, xccl, mpi, shm",
                                ranks);
}

static bool has_local_address(const dk_comm_options *options)
{
    return options->address != NULL && dk_starts_with(options->address, "unix:");
}

/* Ranks of this host against its cores, as far as it is known how many they are. */
static bool lacks_cores(const dk_comm_options *options, const dk_launch *launch)
{
    int here = has_local_address(options) ? options->ranks : launch->local_ranks;
    return here > sysconf(_SC_NPROCESSORS_ONLN);
}

bool dk_comm_is_on_one_host(const dk_comm_options *options)
{
    dk_launch launch;
    dk_launch_read(&launch);
    return has_local_address(options) ||
           (launch.local_ranks > 0 && launch.local_ranks == options->ranks);
}

const char *dk_comm_choose_backend(const dk_comm_options *options)
{
    dk_launch launch;
    dk_launch_read(&launch);
    if (options->ranks == 1) {
        return "self";
    }
    if (has_local_address(options)) {
        return options->lane != NULL && options->lane->number >= 0 ? "xccl" : "shm";
    }
    return launch.by_mpi ? "mpi" : "xccl";
}

static dk_status open_named(dk_transport **out, const char *backend,
                            dk_transport_options *options, dk_error *err)
{
    if (strcmp(backend, "xccl") == 0) {
        return dk_transport_module_open(out, backend, options, err);
    }
    dk_device_lane_close(&options->lane);
    if (strcmp(backend, "self") == 0) {
        return dk_transport_self(out, err);
    }
    return strcmp(backend, "shm") == 0 ? dk_transport_shm(out, options, err)
                                       : dk_transport_module_open(out, backend, options, err);
}

dk_status dk_comm_open_transport(dk_transport **out, const dk_comm_options *options,
                                 dk_error *err)
{
    DK_TRY(dk_comm_check_backend(options->backend, options->ranks, err));
    dk_launch launch;
    dk_launch_read(&launch);
    double start_s = options->start_s > 0 ? options->start_s : DK_COMM_START_S;
    dk_transport_options transport = {.rank = options->rank,
                                      .ranks = options->ranks,
                                      .address = options->address,
                                      .key = options->key,
                                      .deadline_ms = dk_now_ms() + start_s * 1e3,
                                      .cores_are_short = lacks_cores(options, &launch),
                                      .lane = options->lane,
                                      .log = options->log};
    const char *backend = dk_comm_spell_backend(options->backend);
    if (options->backend != NULL && strcmp(backend, options->backend) != 0) {
        dk_log_warn(options->log, "distributed_backend %s: oneCCL's is called xccl",
                    options->backend);
    }
    if (strcmp(backend, "auto") == 0) {
        backend = dk_comm_choose_backend(options);
        dk_log_info(options->log, "ranks communicate by %s", backend);
    }
    return open_named(out, backend, &transport, err);
}
