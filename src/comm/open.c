/* Opening the outermost group: the backend, its probe, and what is done when that fails. */
#include <string.h>

#include "base/string.h"
#include "comm/backend.h"
#include "comm/probe.h"

/* A call of the probe that takes longer than this is one that hangs. */
static const double PROBE_CALL_S = 20;

static void log_probe(const dk_comm *comm, const dk_comm_probe_result *r, const dk_log *log)
{
    dk_log_info(log,
                "the probe of %s took %.0f ms: all_reduce %.0f us, %.2f GB/s; all_to_all %.0f "
                "us, %.2f GB/s",
                dk_comm_backend(comm), r->ms, r->latency_us[DK_COMM_ALL_REDUCE],
                r->bandwidth_gbs[DK_COMM_ALL_REDUCE], r->latency_us[DK_COMM_ALL_TO_ALL],
                r->bandwidth_gbs[DK_COMM_ALL_TO_ALL]);
}

/* Whoever finds a fault that the
   others do not know of tells them. */
static dk_status probe(dk_comm *comm, const dk_log *log, dk_error *err)
{
    dk_comm_probe_result result;
    dk_error failure = {0};
    dk_status status = dk_comm_probe(comm, &result, &failure);
    if (status == DK_OK) {
        log_probe(comm, &result, log);
        return DK_OK;
    }
    if (status != DK_MISMATCH) {
        dk_comm_abandon(comm, failure.message);
    }
    return dk_fail(err, status, "the probe of %s failed: %s", dk_comm_backend(comm),
                   failure.message);
}

static dk_status open_one(dk_comm **out, const dk_comm_options *options, dk_error *err)
{
    dk_transport *transport;
    DK_TRY(dk_comm_open_transport(&transport, options, err));
    dk_comm *comm = dk_comm_create(transport, options);
    dk_status status = DK_OK;
    if (options->probe && transport->ranks > 1) {
        double deadline_s = options->deadline_s > 0 ? options->deadline_s : DK_COMM_DEADLINE_S;
        dk_comm_set_deadline(comm, deadline_s < PROBE_CALL_S ? deadline_s : PROBE_CALL_S);
        status = probe(comm, options->log, err);
        dk_comm_set_deadline(comm, deadline_s);
    }
    if (status != DK_OK) {
        dk_comm_close(&comm);
        return status;
    }
    *out = comm;
    return DK_OK;
}

/* Another meeting at the same place: whoever still comes to the first one is sent away. */
static dk_status open_shm_instead(dk_comm **out, const dk_comm_options *options, dk_error *err)
{
    dk_string key = DK_STRING_EMPTY;
    dk_comm_options instead = *options;
    dk_string_printf(&key, "%s/shm", options->key != NULL ? options->key : "");
    instead.backend = "shm";
    instead.lane = NULL; /* gone with the first one */
    instead.key = key.data;
    dk_status status = open_one(out, &instead, err);
    dk_string_release(&key);
    return status;
}

dk_status dk_comm_open(dk_comm **out, const dk_comm_options *options, dk_error *err)
{
    dk_error failure = {0};
    bool chooses = strcmp(dk_comm_spell_backend(options->backend), "auto") == 0;
    bool may_change = chooses && dk_comm_is_on_one_host(options) &&
                      strcmp(dk_comm_choose_backend(options), "xccl") == 0;
    dk_status status = open_one(out, options, &failure);
    if (status == DK_OK) {
        return DK_OK;
    }
    if (!may_change || status == DK_INVALID) {
        return dk_fail(err, status, "%s", failure.message);
    }
    dk_log_warn(options->log, "xccl is not fit for use, shm is used instead: %s",
                failure.message);
    return open_shm_instead(out, options, err);
}
