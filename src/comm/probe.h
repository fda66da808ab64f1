/* Is a transport fit for use? Known faults of the stack are calls that hang and copies that are
   wrong, which a group finds out before it works, not in the middle of it. */
#ifndef DK_COMM_PROBE_H
#define DK_COMM_PROBE_H

#include "comm/communicator.h"

enum { DK_COMM_PROBE_SMALL_BYTES = 1 << 10, DK_COMM_PROBE_LARGE_BYTES = 1 << 20 };

typedef struct dk_comm_probe_result {
    double latency_us[DK_COMM_OP_COUNT];    /* of DK_COMM_PROBE_SMALL_BYTES; 0: not offered */
    double bandwidth_gbs[DK_COMM_OP_COUNT]; /* bus bandwidth at _LARGE_BYTES, 10^9 bytes/s */
    double ms;                              /* what the probe took */
} dk_comm_probe_result;

/* Collective: every call with known data at two sizes, even and uneven, then timed. The
   deadline is the communicator's. DK_MISMATCH names the call and the ranks whose data was
   wrong, on all ranks alike; what fails otherwise leaves the group of no more use. */
DK_MUST_USE dk_status dk_comm_probe(dk_comm *comm, dk_comm_probe_result *out, dk_error *err);

#endif
