/* Which transport a communicator gets. */
#ifndef DK_COMM_BACKEND_H
#define DK_COMM_BACKEND_H

#include "comm/communicator.h"

enum { DK_COMM_DEADLINE_S = 300 }; /* of a call, where the options say nothing */

/* The transport that options->backend names. "auto": of one rank, self; of ranks that meet at a
   "unix:" address, thus on one host, shm, or xccl where a GPU's memory is meant; of others that
   mpirun or srun started, mpi; otherwise xccl. options->lane is taken by xccl, and by others
   closed. DK_INVALID lists the names. Owned. */
DK_MUST_USE dk_status dk_comm_open_transport(dk_transport **out, const dk_comm_options *options,
                                             dk_error *err);

/* What "auto" stands for, and whether all ranks are known to be on this host. */
const char *dk_comm_choose_backend(const dk_comm_options *options);
bool dk_comm_is_on_one_host(const dk_comm_options *options);

/* The outermost communicator over a transport, which it takes. Owned. */
dk_comm *dk_comm_create(dk_transport *transport, const dk_comm_options *options);

#endif
