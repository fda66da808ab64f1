/* Two ranks of one engine: this process leads, one that it forks follows. */
#ifndef DK_TESTS_RANKS_FIXTURE_H
#define DK_TESTS_RANKS_FIXTURE_H

#include <sys/types.h>

#include "darkroom/darkroom.h"

enum { RANK_DEADLINE_S = 2 };

/* An abstract address of this process; `name` sets it apart from its others. */
void name_meeting(char address[64], const char *name);
dk_status open_rank(dk_engine **engine, int rank, const char *address, dk_error *err);
/* Ends with 0 when the leader's engine was closed, with 1 after a failure. */
pid_t start_follower(const char *address);

#endif
