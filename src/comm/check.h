/* One call of a communicator with data that is known: made, and what came compared. The probe
   at the start of a group and `darkroom comm-test` are made of these. */
#ifndef DK_COMM_CHECK_H
#define DK_COMM_CHECK_H

#include "comm/communicator.h"

/* A call to check. */
typedef struct dk_comm_case {
    dk_comm_op op;
    dk_dtype type;          /* of reductions; U8 otherwise */
    dk_reduction reduction; /* of reductions */
    size_t bytes;           /* about what all ranks' parts are together; at least one element */
    bool uneven;            /* parts differ, some are empty */
    bool started; /* twice at once, in the asynchronous form, where the call has one */
} dk_comm_case;

/* What a rank found, and every rank knows of all ranks. */
typedef struct dk_comm_verdict {
    int64_t magic;
    int32_t wrong;   /* this rank got something wrong, */
    int32_t culprit; /* from this rank; -1: it cannot be told from what came */
    int64_t at;      /* where: its byte or element */
    char text[112];
} dk_comm_verdict;

typedef struct dk_comm_checker {
    dk_comm *comm; /* borrowed */
    /* What a rank brings and gets, and the place of another call's result; where the
       communicator has a lane, their twins on its device, which the calls work on. Owned. */
    dk_lane_memory src, dst, row, src_twin, dst_twin;
    uint32_t salt; /* of the next case */
    bool corrupts; /* this rank spoils what it brings: a check of the check */
} dk_comm_checker;

/* Sizes, by rank, of what a case moves, in bytes; of reductions in elements. */
typedef struct dk_comm_parts {
    size_t src[DK_COMM_MOST_RANKS], dst[DK_COMM_MOST_RANKS];
    size_t src_bytes, dst_bytes; /* in all */
    int peer;                    /* root, or the other rank of a message; -1: none */
} dk_comm_parts;

void dk_comm_checker_init(dk_comm_checker *checker, dk_comm *comm);
void dk_comm_checker_release(dk_comm_checker *checker);

/* Whether the transport has the call, and the call the form. */
bool dk_comm_case_exists(const dk_comm *comm, const dk_comm_case *c);

/* Collective: makes the call, compares, and all ranks tell each other what they found.
   DK_MISMATCH names the ranks that are wrong, on every rank alike; other failures are the
   call's. */
DK_MUST_USE dk_status dk_comm_check(dk_comm_checker *checker, const dk_comm_case *c,
                                    dk_error *err);

/* Collective: seconds that one call takes, the median of `repeats` (up to 64), on the slowest
   rank. Nothing is compared. */
DK_MUST_USE dk_status dk_comm_time(dk_comm_checker *checker, const dk_comm_case *c, int repeats,
                                   double *seconds, dk_error *err);

/* Bytes of a case as NCCL's tests count them, and what of it a rank's link carries: bus
   bandwidth is bytes * factor / seconds. */
double dk_comm_case_bytes(const dk_comm *comm, const dk_comm_case *c);
double dk_comm_bus_factor(dk_comm_op op, int ranks);

#endif
