/* The ranks of a replica as an engine sees them: their groups, what the leader tells the others
   to do, and the end. */
#ifndef DK_ENGINE_RANKS_H
#define DK_ENGINE_RANKS_H

#include "base/log.h"
#include "darkroom/darkroom.h"
#include "nn/parallel.h"

typedef struct dk_ranks {
    dk_groups groups;
    dk_comm *world; /* owned, as the next five */
    dk_comm *quiet; /* of all ranks, where the world's transport does not wait in silence: what
                       control and orders are parts of; NULL: the world's does */
    dk_comm *weights; /* of all ranks, for weights that are shared out; NULL: the world's */
    dk_comm *control; /* of the replica: small messages while it computes */
    dk_comm *orders;  /* of the replica: what to do next, waited for without a deadline */
    dk_comm
        *leaders; /* of all replicas in one world; NULL: one replica, or this rank follows */
    dk_nn_parallel parallel;
} dk_ranks;

/* The layout that the options ask for; the backend is checked, too. */
DK_MUST_USE dk_status dk_ranks_layout(dk_layout *out, const dk_engine_options *options,
                                      dk_error *err);
/* The same where there is no server, and so one replica. */
DK_MUST_USE dk_status dk_ranks_layout_alone(dk_layout *out, const dk_engine_options *options,
                                            dk_error *err);

/* Meets the others and forms the groups that the options ask for. *out: NULL for one rank.
   Owned. */
DK_MUST_USE dk_status dk_ranks_open(dk_ranks **out, const dk_engine_options *options,
                                    const dk_log *log, dk_error *err);
/* How many ranks share weights out by the options; 0: none. */
DK_MUST_USE dk_status dk_ranks_check_shards(int *shards, const dk_layout *layout,
                                            const dk_engine_options *options, dk_error *err);
/* The leader tells the others that it ends, unless they were lost. */
void dk_ranks_close(dk_ranks **ranks);

/* Their calls are told to a trace from now on; NULL: to none. */
void dk_ranks_set_trace(dk_ranks *ranks, dk_trace *trace);

bool dk_ranks_lead(const dk_ranks *ranks); /* also with NULL */
/* Whether the replica is more than this rank: MPI's world may be replicas of one each. */
bool dk_ranks_are_several(const dk_ranks *ranks); /* also with NULL */

/* Whether a call between ranks is under way, orders not counted; from any thread. */
bool dk_ranks_are_busy(const dk_ranks *ranks);

/* From the leader to the others: a text. */
DK_MUST_USE dk_status dk_ranks_tell(dk_ranks *ranks, const char *text, dk_error *err);
/* The next text; NULL: the leader has ended. Owned. */
DK_MUST_USE dk_status dk_ranks_listen(dk_ranks *ranks, char **text, dk_error *err);

/* Between the leaders of replicas that are one world, as MPI's are: a text from the first one,
   which is waited for without a deadline. mine: looked at there. *told: owned; NULL: this rank
   is the first one, follows, or has no other replica beside it. */
DK_MUST_USE dk_status dk_ranks_announce(dk_ranks *ranks, const char *mine, char **told,
                                        dk_error *err);

/* The same of an engine's. */
DK_MUST_USE dk_status dk_engine_announce(dk_engine *engine, const char *mine, char **told,
                                         dk_error *err);

/* What failed on one rank has failed on all; NULL: one rank. */
DK_MUST_USE dk_status dk_ranks_agree(dk_ranks *ranks, dk_status mine, dk_error *err);

#endif
