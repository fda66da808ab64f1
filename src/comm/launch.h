/* What those who start ranks tell them: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
   MASTER_ADDR and MASTER_PORT (torchrun, and this program), mpirun's and srun's variables. */
#ifndef DK_COMM_LAUNCH_H
#define DK_COMM_LAUNCH_H

#include <stdbool.h>

#include "base/error.h"

typedef struct dk_launch {
    bool is_rank; /* somebody has started this process as one of several, or of one */
    bool by_mpi;  /* and MPI works in it: mpirun, srun --mpi */
    int rank, ranks, local_rank, local_ranks; /* local: of this host; -1: not told */
    char address[256];                        /* "host:port" or "unix:@name"; "": not told */
    char key[128];                            /* DARKROOM_COMM_KEY; "": none */
} dk_launch;

/* What is not told is empty; numbers that are none count as not told. */
void dk_launch_read(dk_launch *out);

/* Whoever starts ranks meant several of them: DK_INVALID when a number is none, when only one
   of RANK and WORLD_SIZE is there, or when they do not fit each other. */
DK_MUST_USE dk_status dk_launch_check(dk_error *err);

#endif
