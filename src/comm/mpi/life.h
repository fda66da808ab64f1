/* MPI's life in this process, and what ranks tell each other beside their calls.

   MPI begins and ends once per process, and both may wait for other ranks for ever: a thread of
   our own does either (MPI wants the same one for both), so that those who wait for it can stop
   waiting. All other calls of MPI are made under one lock, none of them blocks. */
#ifndef DK_COMM_MPI_LIFE_H
#define DK_COMM_MPI_LIFE_H

#include <mpi.h>
#include <pthread.h>
#include <stdbool.h>

#include "comm/transport.h"

enum { DK_MPI_WHY_BYTES = 240, DK_MPI_TAG = 1 };

/* What a rank tells all others when it gives up, or when it leaves. */
typedef struct dk_mpi_note {
    int leaves; /* 0: it gives up */
    char why[DK_MPI_WHY_BYTES];
} dk_mpi_note;

/* How far the thread has come. */
typedef enum dk_mpi_phase {
    DK_MPI_BEGINS,
    DK_MPI_RUNS,
    DK_MPI_ENDS,
    DK_MPI_ENDED,
    DK_MPI_FAILED
} dk_mpi_phase;

typedef struct dk_mpi_life {
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows, and of MPI */
    pthread_cond_t changed;
    dk_mpi_phase phase;
    char failure[256];      /* of DK_MPI_FAILED */
    MPI_Comm data, control; /* messages of calls; notes */
    int rank, ranks;
    bool cores_are_short;
    int next_tag; /* for the next group */

    dk_mpi_note heard, told;
    MPI_Request hears, tells[DK_COMM_MOST_RANKS];
    bool has_told;
    int gave_up; /* a rank, itself perhaps; -1: none */
    char why[DK_MPI_WHY_BYTES];
    double left_ms[DK_COMM_MOST_RANKS]; /* when it left, in dk_now_ms's time; 0: it has not */
    bool failed;                        /* a call has: there will be no more */
    bool spoiled; /* a message under way cannot be taken back: MPI is touched no more */
} dk_mpi_life;

/* Begins MPI. DK_TIMEOUT: the other ranks have not begun in time; the thread then goes on
   waiting and keeps its memory. Owned. */
DK_MUST_USE dk_status dk_mpi_life_begin(dk_mpi_life **out, const dk_transport_options *options,
                                        dk_error *err);

/* Ends it. MPI waits for all ranks then: for up to 10 s when all went well, 1 s otherwise; the
   thread and its memory are left behind after that. A process that exits in that state is
   one that mpirun takes for dead: it ends the ranks that are left, as MPI_Abort would. */
void dk_mpi_life_end(dk_mpi_life *life);

/* Under the lock: hears what others have told, without waiting. */
void dk_mpi_life_hear(dk_mpi_life *life);

/* Takes and releases the lock: tells all others, once, without waiting. */
void dk_mpi_life_tell(dk_mpi_life *life, bool leaves, const char *why);

#endif
