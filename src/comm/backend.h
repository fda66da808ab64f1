/* Which transport a communicator gets. */
#ifndef DK_COMM_BACKEND_H
#define DK_COMM_BACKEND_H

#include "comm/communicator.h"

/* The transport that options->backend names. "auto": of one rank, self; of ranks that meet at a
   "unix:" address, thus on one host, shm; of others that mpirun or srun started, mpi; otherwise
   xccl. DK_INVALID lists the names. Owned. */
DK_MUST_USE dk_status dk_comm_open_transport(dk_transport **out, const dk_comm_options *options,
                                             dk_error *err);

#endif
