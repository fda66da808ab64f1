/* What carries the calls of a communicator: one process's end of a group of ranks. Transports
   move bytes of host memory, or of that and a device's (see lane); everything else (checks,
   dimensions, asynchronous calls, counting) is communicator.c's.

   All ranks of a group make the same calls in the same order. A call returns when this rank's
   part is done: its buffers may be used again. A call that does not end by its deadline returns
   DK_TIMEOUT naming the ranks that did not arrive; a rank that is gone, or that gave up
   (`abandon`), is DK_NETWORK naming it and why. After either the group is of no more use. */
#ifndef DK_COMM_TRANSPORT_H
#define DK_COMM_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/log.h"
#include "device/lane.h"
#include "tensor/dtype.h"

typedef enum dk_reduction { DK_REDUCE_SUM, DK_REDUCE_MAX } dk_reduction;

typedef struct dk_transport dk_transport;

/* Ranks are those of the group. `at`: what the caller does, for messages ("all_to_all of sp"),
   and until when, in dk_now_ms's time. */
typedef struct dk_comm_at {
    const char *what;
    double deadline_ms;
    bool beside; /* this process computes meanwhile: waiting leaves the cores to that */
} dk_comm_at;

typedef struct dk_transport_ops {
    const char *name; /* "shm" */
    /* data[count] = the reduction over all ranks; F32, BF16 (summed in f32, rounded once; on a
       device as its library does) and I32. Every rank gets the same bits. */
    dk_status (*all_reduce)(dk_transport *t, void *data, dk_dtype type, size_t count,
                            dk_reduction reduction, const dk_comm_at *at, dk_error *err);
    /* dst[counts[rank]] = this rank's part of the reduction of src[sum of counts]. NULL: made
       of an all_reduce. */
    dk_status (*reduce_scatter)(dk_transport *t, void *dst, const void *src, dk_dtype type,
                                const size_t *counts, dk_reduction reduction,
                                const dk_comm_at *at, dk_error *err);
    /* dst = the src[bytes[rank]] of all ranks, one behind the other in their order. */
    dk_status (*all_gather)(dk_transport *t, void *dst, const void *src, const size_t *bytes,
                            const dk_comm_at *at, dk_error *err);
    /* src: what goes to rank 0, 1, ..., one behind the other, src_bytes[i] each; dst: what came
       from them. Sizes may differ and be 0; both ends of a pair tell the same. */
    dk_status (*all_to_all)(dk_transport *t, void *dst, const size_t *dst_bytes,
                            const void *src, const size_t *src_bytes, const dk_comm_at *at,
                            dk_error *err);
    dk_status (*broadcast)(dk_transport *t, void *data, size_t bytes, int root,
                           const dk_comm_at *at, dk_error *err);
    /* Both at once, of two ranks that may be the same or different ones; -1: none. NULL: the
       transport has none; a shift, in which all take part, is made of an all_to_all. */
    dk_status (*send_receive)(dk_transport *t, const void *src, size_t src_bytes, int to,
                              void *dst, size_t dst_bytes, int from, const dk_comm_at *at,
                              dk_error *err);
    dk_status (*barrier)(dk_transport *t, const dk_comm_at *at, dk_error *err);
    /* The ranks that name the same color >= 0 become a group, in the order of key, then of
       rank. A rank of color -1 belongs to none: *out is NULL. Owned; closed before `t`. */
    dk_status (*split)(dk_transport **out, dk_transport *t, int color, int key,
                       const dk_comm_at *at, dk_error *err);
    /* From any thread: all ranks' calls end soon, naming this rank and `why`. */
    void (*abandon)(dk_transport *t, const char *why);
    void (*close)(dk_transport *t); /* waits for nobody */
} dk_transport_ops;

/* The common head; each kind extends it. */
struct dk_transport {
    const dk_transport_ops *ops;
    int rank, ranks;      /* of this group */
    void *module;         /* of the outermost group: what it was loaded from; NULL: built in */
    dk_device_lane *lane; /* buffers may be its device's memory; NULL: they are the host's.
                             Owned by the outermost group */
};

enum { DK_COMM_MOST_RANKS = 64 };

/* What a group starts from. */
typedef struct dk_transport_options {
    int rank, ranks;
    const char *address;  /* where its ranks meet, see rendezvous.h; mpi needs none */
    const char *key;      /* of the meeting; NULL: "" */
    double deadline_ms;   /* for the meeting, in dk_now_ms's time */
    bool cores_are_short; /* more ranks on this host than it has cores */
    bool copies; /* shm: large messages go through its slots too, as where ranks cannot read
                    each other's memory; for tests */
    dk_device_lane *lane; /* taken: what the calls are enqueued on; NULL: host memory */
    const dk_log *log;    /* borrowed, may be NULL */
} dk_transport_options;

/* One rank alone. */
DK_MUST_USE dk_status dk_transport_self(dk_transport **out, dk_error *err);
/* Ranks of one host, through shared memory that vanishes with the last of them. */
DK_MUST_USE dk_status dk_transport_shm(dk_transport **out, const dk_transport_options *options,
                                       dk_error *err);

/* What a module exports under the name "dk_transport_module_get": libdarkroom-mpi.so,
   libdarkroom-xccl.so. */
enum { DK_TRANSPORT_MODULE_VERSION = 2 };
#define DK_TRANSPORT_MODULE_SYMBOL "dk_transport_module_get"

typedef struct dk_transport_module {
    int version;
    size_t transport_bytes; /* sizeof(dk_transport): a module of another build is refused */
    const char *libraries;  /* for reports: "Open MPI 4.1.4" */
    dk_status (*open)(dk_transport **out, const dk_transport_options *options, dk_error *err);
} dk_transport_module;
typedef const dk_transport_module *dk_transport_module_get_fn(void);

#endif
