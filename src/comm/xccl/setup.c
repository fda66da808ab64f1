/* The environment that oneCCL reads. */
#include "comm/xccl/setup.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/environment.h"

static void set(const char *name, const char *value, const dk_log *log)
{
    if (dk_environment_default(name, value)) {
        dk_log_debug(log, "xccl: %s=%s, since it is not set", name, value);
    }
}

void dk_xccl_set_up(const dk_device_lane *lane, bool cores_are_short, bool one_host,
                    const dk_log *log)
{
    set("CCL_LOG_LEVEL", "error", log);
    if (lane != NULL && lane->number >= 0) {
        set("CCL_ALLREDUCE", "ring", log);
        return;
    }
    set("CCL_ATL_TRANSPORT", "ofi", log);
    set("CCL_PLUGIN", lane != NULL ? "ONECCL_LEGACY" : "ONECCL_LEGACY_CPU", log);
    if (cores_are_short) {
        set("CCL_YIELD", "sched_yield", log);
        return;
    }
    set("CCL_WORKER_OFFLOAD", "0", log);
    if (one_host) {
        set("CCL_ATL_SHM", "1", log);
    }
}

void dk_xccl_set_interface(const char *name, const dk_log *log)
{
    set("FI_TCP_IFACE", name, log);
}

int dk_xccl_divert_begin(void)
{
    fflush(stdout);
    int kept = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    if (kept >= 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
    }
    return kept;
}

void dk_xccl_divert_end(int kept)
{
    fflush(stdout);
    if (kept >= 0) {
        dup2(kept, STDOUT_FILENO);
        close(kept);
    }
}
