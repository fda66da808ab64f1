/* How oneCCL is told what it takes from the environment alone. */
#ifndef DK_COMM_XCCL_SETUP_H
#define DK_COMM_XCCL_SETUP_H

#include <stdbool.h>

#include "base/log.h"
#include "device/lane.h"

/* Before oneCCL is first used in this process; sets what the user has not set.

   On host memory (lane NULL): CCL_PLUGIN=ONECCL_LEGACY_CPU, the one that takes no queue, and on
   SYCL's CPU ONECCL_LEGACY, the GPUs', which it would not choose there; for both
   CCL_ATL_TRANSPORT=ofi, since under mpirun it would look for Intel's MPI. Its workers spin,
   which a host that has no core for each of them cannot afford: with a core for every rank
   CCL_WORKER_OFFLOAD=0 and CCL_ATL_SHM=1 (1 MiB is reduced in 0.11 ms, not 8 to 11), with more
   ranks than cores CCL_YIELD=sched_yield (1.2 ms; there the others would take 47).
   On a GPU: CCL_ALLREDUCE=ring, since the default one of 2022.x is known to hang.
   Always: CCL_LOG_LEVEL=error. What was set is logged at level debug. */
void dk_xccl_set_up(const dk_device_lane *lane, bool cores_are_short, bool one_host,
                    const dk_log *log);
/* Between hosts: FI_TCP_IFACE, since oneCCL's TCP takes any of several interfaces by itself,
   also one that leads to no other host. */
void dk_xccl_set_interface(const char *name, const dk_log *log);

/* oneCCL writes remarks to standard output while it begins, which belongs to the program: from
   _begin to _end they go to standard error, with what other threads print meanwhile. Returns
   what _end takes. */
int dk_xccl_divert_begin(void);
void dk_xccl_divert_end(int kept);

#endif
