/* A thread that makes oneCCL's calls. None of them can be stopped or given a deadline, so that
   whoever waits for one waits for this thread instead: when the time is over, or a rank is
   lost, the thread is left behind in its call, with what it works on, and the group is of no
   more use. A process in that state is expected to end soon. */
#ifndef DK_COMM_XCCL_CARRIER_H
#define DK_COMM_XCCL_CARRIER_H

#include "comm/transport.h"
#include "comm/xccl/oneccl.h"

typedef struct dk_xccl_carrier dk_xccl_carrier;

typedef enum dk_xccl_kind {
    DK_XCCL_INIT,
    DK_XCCL_SPLIT,
    DK_XCCL_DESTROY,
    DK_XCCL_ALL_REDUCE,
    DK_XCCL_REDUCE_SCATTER,
    DK_XCCL_ALL_GATHER,
    DK_XCCL_ALL_TO_ALL,
    DK_XCCL_BROADCAST,
    DK_XCCL_MESSAGES
} dk_xccl_kind;

/* Copied. A message's other rank is `to` or `from`; -1: none. */
typedef struct dk_xccl_call {
    dk_xccl_kind kind;
    onecclComm_t comm;
    const void *src;
    void *dst;
    size_t count, dst_count; /* dst_count: of a message that is received */
    onecclDataType_t type;
    onecclRedOp_t reduction;
    int root, to, from;
    int color, key;           /* of a split */
    int rank, ranks, device;  /* of the beginning; device -1: no GPU */
    const onecclUniqueId *id; /* borrowed for the call; on time-out too: see _id */
} dk_xccl_call;

/* lane: what the calls are enqueued on and waited for; borrowed, NULL: host memory. */
DK_MUST_USE dk_status dk_xccl_carrier_create(dk_xccl_carrier **out, dk_device_lane *lane,
                                             dk_error *err);
/* Leaves the thread, and the memory that it uses, behind when it is in a call. */
void dk_xccl_carrier_destroy(dk_xccl_carrier *carrier);

/* The place for a unique id that lives as long as the thread. */
onecclUniqueId *dk_xccl_carrier_id(dk_xccl_carrier *carrier);

/* Makes the call; *made: of INIT and SPLIT, may be NULL otherwise. DK_TIMEOUT: it is not done;
   DK_NETWORK: a rank is lost, a call has failed before, or oneCCL says so. */
DK_MUST_USE dk_status dk_xccl_carrier_call(dk_xccl_carrier *carrier, onecclComm_t *made,
                                           const dk_xccl_call *call, const dk_comm_at *at,
                                           dk_error *err);

/* From any thread: calls under way and to come fail with this. The first reason stays. */
void dk_xccl_carrier_lose(dk_xccl_carrier *carrier, int rank, const char *why);

/* Whether a rank is lost, or has left. */
bool dk_xccl_carrier_lost(dk_xccl_carrier *carrier);

/* Whether a call has failed: memory that it may use has to stay. */
bool dk_xccl_carrier_failed(dk_xccl_carrier *carrier);

#endif
