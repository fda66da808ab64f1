/* oneCCL's calls on a queue take memory of its device alone: what lies on the host goes through
   memory of the device, there and back. */
#ifndef DK_COMM_XCCL_STAGING_H
#define DK_COMM_XCCL_STAGING_H

#include "comm/xccl/carrier.h"

typedef struct dk_xccl_staging {
    dk_lane_memory src, dst;
    void *host; /* where dst of the call that is made belongs; NULL: it is there */
    size_t host_bytes;
} dk_xccl_staging;

/* Before the call, of a group of so many ranks: *call names memory of the device, with what its
   source held. lane NULL: nothing is done. */
DK_MUST_USE dk_status dk_xccl_stage(dk_xccl_staging *staging, dk_device_lane *lane, int ranks,
                                    dk_xccl_call *call, dk_error *err);
/* After it: what came is where the caller wants it. */
DK_MUST_USE dk_status dk_xccl_unstage(dk_xccl_staging *staging, dk_device_lane *lane,
                                      dk_error *err);

#endif
