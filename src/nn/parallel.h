/* A model on several ranks: who computes which rows, and calls between ranks as layers make
   them. Models name neither ranks nor groups: what they call is the same on one rank, where
   nothing of this does anything.

   A failure of a call is kept by the device, like that of an operation; after it this rank is
   cut off. One whose device failed makes its calls all the same, so that nobody waits for it,
   and tells at the next check. A dry run calls nobody. A call waits, in a thread of its own,
   until what it reads is computed, and not for what the device is given after it; where neither
   the host nor the transport can address the device's memory it goes through the host's. */
#ifndef DK_NN_PARALLEL_H
#define DK_NN_PARALLEL_H

#include "comm/groups.h"
#include "nn/context.h"

/* How a replica's ranks share a model's work; borrowed by contexts. */
struct dk_nn_parallel {
    const dk_groups *groups;
    dk_comm *control; /* of the replica's ranks: small messages, wishes to stop */
    dk_comm *orders;  /* of the same, without a deadline: what is done next */
};

/* Rows [begin, begin + count) of a sequence. */
typedef struct dk_nn_part {
    int64_t begin, count;
} dk_nn_part;

/* Of a sequence of so many tokens, those of this rank; all of them on one. */
dk_nn_part dk_nn_sequence_part(const dk_nn *nn, int64_t tokens);

/* whole [tokens][cols] = the rows of all ranks; mine: this rank's. On one rank a copy. */
void dk_nn_gather_sequence(dk_nn *nn, const dk_tensor *whole, const dk_tensor *mine);

/* Of pictures of so many rows, those of this rank of the replica: none where there are fewer
   rows than ranks and others have them. All of them on one. */
dk_nn_part dk_nn_picture_part(const dk_nn *nn, int64_t rows);

/* Whole pictures, one behind the other. */
typedef struct dk_nn_pictures {
    int64_t count, rows, width;
} dk_nn_pictures;

/* whole [pixels of all pictures][cols] = the rows of all ranks, on each of them or on the
   leader alone, where the others' whole is not looked at; mine: this rank's, of every picture.
   Not for one rank. */
void dk_nn_gather_rows(dk_nn *nn, const dk_tensor *whole, const dk_tensor *mine,
                       const dk_nn_pictures *pictures);
void dk_nn_gather_rows_to_leader(dk_nn *nn, const dk_tensor *whole, const dk_tensor *mine,
                                 const dk_nn_pictures *pictures);

/* x = its sum over comm's ranks; F32 or BF16. NULL: one rank. */
void dk_nn_sum(dk_nn *nn, dk_comm *comm, const dk_tensor *x);

/* Whether this is rank 0 of its replica, which talks to the world. */
bool dk_nn_leads(const dk_nn *nn);

/* *word becomes the leader's of what is done next, which the others wait for as long as it
   takes. A rank that is cut off gets an error. */
DK_MUST_USE dk_status dk_nn_call_roll(dk_nn *nn, uint64_t *word, dk_error *err);

/* On the replica's ranks at once: the leader's word; the largest of all ranks' words. A failure
   is kept by the device, and what comes back is `mine`. */
uint64_t dk_nn_agree(dk_nn *nn, uint64_t mine);
uint64_t dk_nn_agree_most(dk_nn *nn, uint64_t mine);
/* The same without waiting: one word under way, and the largest of all ranks' once it has been
   heard; 0 where nothing was said. */
void dk_nn_say(dk_nn *nn, uint64_t mine);
uint64_t dk_nn_hear(dk_nn *nn);
/* What was local and may have failed on some ranks alone, has failed on all. */
DK_MUST_USE dk_status dk_nn_agree_status(dk_nn *nn, dk_status mine, dk_error *err);
/* The leader's bytes of host memory on all ranks. */
void dk_nn_share(dk_nn *nn, void *data, size_t bytes);
/* The leader's tensor of the device on all ranks. */
void dk_nn_share_tensor(dk_nn *nn, const dk_tensor *x);

/* The branches of guidance that are computed side by side, and which one this rank works on. */
int dk_nn_branches(const dk_nn *nn);
int dk_nn_branch(const dk_nn *nn);
/* A branch's tensor on the ranks of all branches. */
void dk_nn_share_branch(dk_nn *nn, const dk_tensor *x, int branch);

/* For calls that are made elsewhere: whether this rank makes any now, and what came of one. */
bool dk_nn_calls(const dk_nn *nn);
void dk_nn_note_call(dk_nn *nn, dk_status status, const dk_error *error);

/* This rank leaves the others, whose calls fail with `why`. It makes none any more, and
   whatever ranks agree on from now on fails with that, or the error that came before it. */
void dk_nn_abandon(dk_nn *nn, const char *why);

#define DK_NN_ANOTHER_RANK "another rank of the replica failed: its own log says how"
/* What this rank says of a failure of another one; a wish to stop is nobody's failure. */
dk_status dk_nn_fail_elsewhere(dk_error *err, dk_status status);

/* A call that goes on while the device computes. */
typedef struct dk_nn_transfer {
    dk_comm *comm;
    dk_comm_ticket ticket;
    void *host;    /* owned: where the device's memory is not the host's */
    void *arrived; /* the part of `host` that goes to dst */
    void *dst;
    size_t dst_bytes;
} dk_nn_transfer;

/* Sizes in bytes, by rank of comm. */
dk_nn_transfer dk_nn_start_all_to_all(dk_nn *nn, dk_comm *comm, void *dst,
                                      const size_t *dst_bytes, const void *src,
                                      const size_t *src_bytes);
dk_nn_transfer dk_nn_start_shift(dk_nn *nn, dk_comm *comm, void *dst, size_t dst_bytes,
                                 const void *src, size_t src_bytes);
void dk_nn_finish(dk_nn *nn, dk_nn_transfer *transfer);

#endif
