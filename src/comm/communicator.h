/* Communicators: what the ranks of a group do together. One interface over four transports
   (self, shm, mpi, xccl); names and meaning of the calls are those of MPI and oneCCL.

   All ranks of a group make the same calls in the same order, asynchronous ones included: one
   thread per outermost group carries the calls of all its sub-groups one after the other, in
   the order in which they were started. Every call has a deadline; a failure names the call,
   the group and the ranks, and leaves the group of no more use.

   Memory is the host's, or a device's that the host can address; of a communicator with a lane
   (device/lane.h) also its device's, whether the host can or not. */
#ifndef DK_COMM_COMMUNICATOR_H
#define DK_COMM_COMMUNICATOR_H

#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "comm/transport.h"
#include "tensor/dtype.h"

typedef struct dk_comm dk_comm;

enum { DK_COMM_START_S = 60 }; /* for a meeting, where the options say nothing */

typedef struct dk_comm_options {
    const char *backend; /* "auto" (or NULL), "shm", "mpi", "xccl", "self" */
    int rank, ranks;     /* ignored by mpi, which knows */
    const char *address; /* where the ranks meet: see rendezvous.h */
    const char *key;     /* who does not know it is sent away; NULL: "" */
    double start_s;      /* for the meeting; 0: DK_COMM_START_S */
    double deadline_s;   /* of every call; 0: 300 */
    bool probe; /* the transport is checked with data first; "auto" falls back, loudly */
    dk_device_lane *lane; /* taken: of the device whose memory calls will name, for backends
                             that enqueue them there, which is xccl's way; NULL: the host's */
    const dk_log *log;    /* borrowed, may be NULL */
} dk_comm_options;

/* What a user's spelling of a backend stands for: "ccl" and "oneccl" are "xccl", NULL is
   "auto". Borrowed. */
const char *dk_comm_spell_backend(const char *asked);

/* DK_INVALID: there is no such backend, or it cannot have so many ranks. */
DK_MUST_USE dk_status dk_comm_check_backend(const char *asked, int ranks, dk_error *err);

/* Owned. The address of the meeting is used once. */
DK_MUST_USE dk_status dk_comm_open(dk_comm **out, const dk_comm_options *options,
                                   dk_error *err);
/* Waits for started calls; other ranks are not waited for. */
void dk_comm_close(dk_comm **comm);

/* The ranks that name the same color become a group called `name` (borrowed for the call), in
   the order of key; color < 0: *out becomes NULL. Owned, closed before `comm`. */
DK_MUST_USE dk_status dk_comm_split(dk_comm **out, dk_comm *comm, int color, int key,
                                    const char *name, dk_error *err);

/* Calls of the outermost group become spans of a lane (DK_TRACE_COMMUNICATION; a static text);
   borrowed, NULL: none. */
void dk_comm_set_trace(dk_comm *comm, dk_trace *trace, const char *lane);

/* Of this group's calls from now on, in seconds; INFINITY: none. */
void dk_comm_set_deadline(dk_comm *comm, double seconds);

int dk_comm_rank(const dk_comm *comm);
int dk_comm_ranks(const dk_comm *comm);
const char *dk_comm_name(const dk_comm *comm);    /* "sp" */
const char *dk_comm_backend(const dk_comm *comm); /* "shm" */
/* Borrowed; NULL: all memory is the host's. */
dk_device_lane *dk_comm_lane(const dk_comm *comm);
bool dk_comm_has_messages(const dk_comm *comm); /* send and receive */

/* The next call of this communicator begins when wait(mark) has returned, which the thread that
   carries the call calls once, unless an earlier call has failed: what it works on is being
   computed until then. */
typedef void dk_comm_wait_fn(void *mark);
void dk_comm_after(dk_comm *comm, dk_comm_wait_fn *wait, void *mark);

/* From any thread: all calls of the outermost group, here and on other ranks, fail soon. */
void dk_comm_abandon(dk_comm *comm, const char *why);

typedef enum dk_comm_op {
    DK_COMM_ALL_REDUCE,
    DK_COMM_REDUCE_SCATTER,
    DK_COMM_ALL_GATHER,
    DK_COMM_GATHER,
    DK_COMM_ALL_TO_ALL,
    DK_COMM_BROADCAST,
    DK_COMM_SEND,
    DK_COMM_RECEIVE,
    DK_COMM_SHIFT,
    DK_COMM_BARRIER,
    DK_COMM_OP_COUNT
} dk_comm_op;
extern const char *const dk_comm_op_names[DK_COMM_OP_COUNT];

/* data[count] = its sum or maximum over all ranks. F32, BF16 (summed in f32), I32. */
DK_MUST_USE dk_status dk_comm_all_reduce(dk_comm *comm, void *data, dk_dtype type, size_t count,
                                         dk_reduction reduction, dk_error *err);
/* dst[counts[rank]]: this rank's part of the reduction of src[sum of counts]. */
DK_MUST_USE dk_status dk_comm_reduce_scatter(dk_comm *comm, void *dst, const void *src,
                                             dk_dtype type, const size_t *counts,
                                             dk_reduction reduction, dk_error *err);
/* Along a dimension: src is [outer][bytes[rank]], dst [outer][sum of bytes]; outer = 1 is the
   first dimension. Parts may differ. */
DK_MUST_USE dk_status dk_comm_all_gather(dk_comm *comm, void *dst, const void *src,
                                         size_t outer, const size_t *bytes, dk_error *err);
/* The same to one rank; dst is looked at there alone. */
DK_MUST_USE dk_status dk_comm_gather(dk_comm *comm, void *dst, const void *src, size_t outer,
                                     const size_t *bytes, int root, dk_error *err);
/* src: what goes to rank 0, 1, …, one behind the other, src_bytes[i] each; dst: what came. */
DK_MUST_USE dk_status dk_comm_all_to_all(dk_comm *comm, void *dst, const size_t *dst_bytes,
                                         const void *src, const size_t *src_bytes,
                                         dk_error *err);
DK_MUST_USE dk_status dk_comm_broadcast(dk_comm *comm, void *data, size_t bytes, int root,
                                        dk_error *err);
/* Between two ranks: DK_UNSUPPORTED where the transport has none (xccl without a GPU). */
DK_MUST_USE dk_status dk_comm_send(dk_comm *comm, const void *src, size_t bytes, int to,
                                   dk_error *err);
DK_MUST_USE dk_status dk_comm_receive(dk_comm *comm, void *dst, size_t bytes, int from,
                                      dk_error *err);
/* Everybody sends to the next rank and receives from the one before; sizes may differ. */
DK_MUST_USE dk_status dk_comm_shift(dk_comm *comm, void *dst, size_t dst_bytes, const void *src,
                                    size_t src_bytes, dk_error *err);
DK_MUST_USE dk_status dk_comm_barrier(dk_comm *comm, dk_error *err);

/* The same, carried on while the caller computes: buffers stay untouched until the ticket has
   been waited for. Arrays of sizes are copied. Ticket 0 is none: waiting for it is fine. */
typedef uint64_t dk_comm_ticket;
dk_comm_ticket dk_comm_start_all_to_all(dk_comm *comm, void *dst, const size_t *dst_bytes,
                                        const void *src, const size_t *src_bytes);
dk_comm_ticket dk_comm_start_all_gather(dk_comm *comm, void *dst, const void *src, size_t outer,
                                        const size_t *bytes);
dk_comm_ticket dk_comm_start_all_reduce(dk_comm *comm, void *data, dk_dtype type, size_t count,
                                        dk_reduction reduction);
dk_comm_ticket dk_comm_start_shift(dk_comm *comm, void *dst, size_t dst_bytes, const void *src,
                                   size_t src_bytes);
/* Returns the first failure of the calls up to this one. */
DK_MUST_USE dk_status dk_comm_wait(dk_comm *comm, dk_comm_ticket ticket, dk_error *err);

/* Whether a call of the outermost group is under way; from any thread. */
bool dk_comm_is_busy(const dk_comm *comm);

/* What the calls of a kind have cost so far, of a group with all its sub-groups. */
typedef struct dk_comm_work {
    uint64_t calls;
    double bytes;   /* that this rank sent */
    double seconds; /* in the transport */
    double waited;  /* of them, seconds in which the caller could do nothing else */
} dk_comm_work;
void dk_comm_get_work(const dk_comm *comm, dk_comm_work out[DK_COMM_OP_COUNT]);

#endif
