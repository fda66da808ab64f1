/* The transport over oneCCL: what its files share. */
#ifndef DK_COMM_XCCL_XCCL_TRANSPORT_H
#define DK_COMM_XCCL_XCCL_TRANSPORT_H

#include "comm/rendezvous.h"
#include "comm/xccl/arrivals.h"
#include "comm/xccl/carrier.h"
#include "comm/xccl/staging.h"

/* What a group and its sub-groups share. */
typedef struct dk_xccl_family {
    dk_rendezvous *meeting;
    dk_xccl_carrier *carrier;
    dk_xccl_board *board;
    bool here[DK_COMM_MOST_RANKS]; /* by outermost rank: on this host, thus on the board */
    bool one_host;
    int next_group; /* number of the next one, on the board */
} dk_xccl_family;

typedef struct dk_xccl_transport {
    dk_transport base;
    dk_xccl_family *family; /* owned by the outermost */
    bool outermost;
    onecclComm_t comm;
    int group;                     /* on the board; from DK_XCCL_MOST_GROUPS on: not there */
    int world[DK_COMM_MOST_RANKS]; /* its ranks, as the outermost group numbers them */
    dk_lane_memory scratch;
    dk_xccl_staging staging;
    /* What small calls work on: not on the stack, which a call that is left behind would write
       to. */
    int64_t words[4 * DK_COMM_MOST_RANKS];
} dk_xccl_transport;

/* One call of oneCCL: noted on the board; a time-out names who has not arrived. */
DK_MUST_USE dk_status dk_xccl_make(dk_xccl_transport *t, onecclComm_t *made,
                                   const dk_xccl_call *call, const dk_comm_at *at,
                                   dk_error *err);

/* The operations of dk_transport_ops; send_receive: on a device alone. */
dk_status dk_xccl_all_reduce(dk_transport *t, void *data, dk_dtype type, size_t count,
                             dk_reduction reduction, const dk_comm_at *at, dk_error *err);
dk_status dk_xccl_reduce_scatter(dk_transport *t, void *dst, const void *src, dk_dtype type,
                                 const size_t *counts, dk_reduction reduction,
                                 const dk_comm_at *at, dk_error *err);
dk_status dk_xccl_all_gather(dk_transport *t, void *dst, const void *src, const size_t *bytes,
                             const dk_comm_at *at, dk_error *err);
dk_status dk_xccl_all_to_all(dk_transport *t, void *dst, const size_t *dst_bytes,
                             const void *src, const size_t *src_bytes, const dk_comm_at *at,
                             dk_error *err);
dk_status dk_xccl_broadcast(dk_transport *t, void *data, size_t bytes, int root,
                            const dk_comm_at *at, dk_error *err);
dk_status dk_xccl_send_receive(dk_transport *t, const void *src, size_t src_bytes, int to,
                               void *dst, size_t dst_bytes, int from, const dk_comm_at *at,
                               dk_error *err);
dk_status dk_xccl_barrier(dk_transport *t, const dk_comm_at *at, dk_error *err);

#endif
