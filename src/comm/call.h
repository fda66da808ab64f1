/* A call of a communicator as one value, so that it can be carried out now or by the queue. */
#ifndef DK_COMM_CALL_H
#define DK_COMM_CALL_H

#include "comm/communicator.h"

typedef struct dk_comm_call {
    dk_comm *comm;
    dk_comm_op op;
    void *dst;
    const void *src;
    dk_dtype type;
    size_t count, outer;
    dk_reduction reduction;
    int peer;              /* root, or the other rank */
    dk_comm_wait_fn *wait; /* wait(mark) comes first; NULL: nothing does */
    void *mark;
    /* By rank; counts of a reduce_scatter; of a shift or a message the first one alone. */
    size_t src_bytes[DK_COMM_MOST_RANKS], dst_bytes[DK_COMM_MOST_RANKS];
} dk_comm_call;

/* scratch: of the transport's lane, kept from one call to the next. */
DK_MUST_USE dk_status dk_comm_call_run(const dk_comm_call *call, dk_transport *transport,
                                       dk_lane_memory *scratch, const dk_comm_at *at,
                                       dk_error *err);
/* What this rank sends to others, whatever way the transport takes: an all_reduce is counted as
   a reduce_scatter and an all_gather. */
double dk_comm_call_bytes(const dk_comm_call *call, int rank, int ranks);

#endif
