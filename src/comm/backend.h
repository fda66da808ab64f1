/* Which transport a communicator gets. */
#ifndef DK_COMM_BACKEND_H
#define DK_COMM_BACKEND_H

#include "comm/communicator.h"

/* The transport that options->backend names. "auto": of one rank, self; of ranks that mpirun
   started on several hosts, mpi; of ranks that meet at a "unix:" address, thus on one host, shm;
   otherwise xccl, or mpi where its module is missing. DK_INVALID lists the names. Owned. */
DK_MUST_USE dk_status dk_comm_open_transport(dk_transport **out, const dk_comm_options *options,
                                             dk_error *err);

#endif
