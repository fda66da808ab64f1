/* The messages of one call: posted all at once, then waited for with a deadline. Since every
   call of ours is made of messages between two ranks, whoever has not arrived is known: it is
   the other end of what is still missing. */
#ifndef DK_COMM_MPI_EXCHANGE_H
#define DK_COMM_MPI_EXCHANGE_H

#include "comm/mpi/life.h"

/* One group's end. */
typedef struct dk_mpi_transport {
    dk_transport base;
    dk_mpi_life *life; /* owned by the outermost */
    bool outermost;
    int tag;                       /* of the group's messages */
    int world[DK_COMM_MOST_RANKS]; /* its ranks, as the outermost group numbers them */
    MPI_Request *requests;         /* [capacity], owned */
    int *peers;                    /* of each, in the group */
    bool *receives;                /* which ones */
    MPI_Status *statuses;          /* what one look at them finds, */
    int *found;                    /* and of which */
    int count, left, capacity;     /* of the call that is made; not done yet */
    void *scratch;                 /* owned; grows */
    size_t scratch_bytes;
} dk_mpi_transport;

/* Posts a message, in pieces when it is large; a message to itself is the caller's to copy. Of
   0 bytes: none. Failures are kept for the wait. */
void dk_mpi_post_receive(dk_mpi_transport *t, void *dst, size_t bytes, int from);
void dk_mpi_post_send(dk_mpi_transport *t, const void *src, size_t bytes, int to);

/* Until all that was posted is done. After a failure nothing is under way any more, or MPI is
   not touched again. */
DK_MUST_USE dk_status dk_mpi_wait(dk_mpi_transport *t, const dk_comm_at *at, dk_error *err);

#endif
