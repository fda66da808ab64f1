/* The probe at the start of a group. */
#include "comm/probe.h"

#include "base/clock.h"
#include "comm/check.h"

enum { REPEATS_SMALL = 5, REPEATS_LARGE = 3 };

static dk_status check_op(dk_comm_checker *k, dk_comm_case c, dk_error *err)
{
    static const size_t sizes[] = {DK_COMM_PROBE_SMALL_BYTES, DK_COMM_PROBE_LARGE_BYTES};
    for (int i = 0; i < 2; i++) {
        c.bytes = sizes[i];
        c.uneven = false;
        DK_TRY(dk_comm_check(k, &c, err));
        c.uneven = true;
        if (dk_comm_case_exists(k->comm, &c)) {
            DK_TRY(dk_comm_check(k, &c, err));
        }
    }
    return DK_OK;
}

static dk_status time_op(dk_comm_checker *k, dk_comm_case c, dk_comm_probe_result *out,
                         dk_error *err)
{
    double seconds;
    c.bytes = DK_COMM_PROBE_SMALL_BYTES;
    DK_TRY(dk_comm_time(k, &c, REPEATS_SMALL, &seconds, err));
    out->latency_us[c.op] = seconds * 1e6;
    c.bytes = DK_COMM_PROBE_LARGE_BYTES;
    DK_TRY(dk_comm_time(k, &c, REPEATS_LARGE, &seconds, err));
    double factor = dk_comm_bus_factor(c.op, dk_comm_ranks(k->comm));
    out->bandwidth_gbs[c.op] =
        seconds > 0 ? dk_comm_case_bytes(k->comm, &c) * factor / seconds * 1e-9 : 0;
    return DK_OK;
}

dk_status dk_comm_probe(dk_comm *comm, dk_comm_probe_result *out, dk_error *err)
{
    dk_comm_checker k;
    double start_ms = dk_now_ms();
    dk_status status = DK_OK;
    *out = (dk_comm_probe_result){0};
    dk_comm_checker_init(&k, comm);
    for (int op = 0; op < DK_COMM_OP_COUNT && status == DK_OK; op++) {
        bool reduction = op == DK_COMM_ALL_REDUCE || op == DK_COMM_REDUCE_SCATTER;
        dk_comm_case c = {.op = (dk_comm_op)op, .type = reduction ? DK_F32 : DK_U8};
        if (op == DK_COMM_RECEIVE || !dk_comm_case_exists(comm, &c)) {
            continue; /* a message is sent and received in one case */
        }
        status = check_op(&k, c, err);
        if (status == DK_OK && reduction) {
            c.type = DK_BF16;
            status = check_op(&k, c, err);
        }
        if (status == DK_OK) {
            status = time_op(&k, c, out, err);
        }
    }
    dk_comm_checker_release(&k);
    out->ms = dk_now_ms() - start_ms;
    return status;
}
