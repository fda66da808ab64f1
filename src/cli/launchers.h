/* Ranks that a launcher started: mpirun, srun, or whatever sets RANK, WORLD_SIZE, MASTER_ADDR
   and MASTER_PORT. */
#ifndef DK_CLI_LAUNCHERS_H
#define DK_CLI_LAUNCHERS_H

#include "cli/ranks.h"

/* *launched: there was one of several ranks, whose place the options and cores now hold; texts
   are the team's. DK_INVALID: the environment contradicts itself or the flags. */
DK_MUST_USE dk_status dk_launcher_place(dk_rank_team *team, dk_engine_options *options,
                                        dk_core_share *cores, bool *launched, dk_error *err);

/* Whether a launcher of several ranks started this process or those above it, and as which.
   DK_INVALID: what it says makes no sense. */
DK_MUST_USE dk_status dk_launcher_rank(int *rank, int *ranks, bool *launched, dk_error *err);

/* The other way round, for programs that start ranks themselves: a name and a key that nobody
   guesses, and the environment in which the next process finds itself to be that rank. */
DK_MUST_USE dk_status dk_launcher_arrange(dk_rank_team *team, dk_error *err);
void dk_launcher_tell(const dk_rank_team *team, int rank, int ranks);

#endif
