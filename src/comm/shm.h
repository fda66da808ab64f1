/* The inside of the shm transport, for its own files.

   Every rank of a group has, in memory that all of them map, a line of counters, a door and two
   slots. What it gives to others it lays into its slots, in rounds that are numbered from the
   group's start: round k into slot k % 2. The counters tell how far it is:

     READY    rounds that lie in its slots for others to read
     REDUCED  rounds of which it has summed its share, in its own slot
     DONE     rounds that it has read from everybody: round k is laid into a slot when all are
              done with k - 2

   Large messages do without slots where the kernel lets a process read another one's memory
   (process_vm_readv: of the same user, and kernel.yama.ptrace_scope 0): one copy instead of
   two, and no rounds.

   A rank that waits spins for a moment, then sleeps at its own door, on which it has written
   whom it waits for; who goes on with a counter knocks at the doors that name it. */
#ifndef DK_COMM_SHM_H
#define DK_COMM_SHM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "comm/rendezvous.h"
#include "comm/transport.h"

enum {
    DK_SHM_SLOT_BYTES = 1 << 20,
    DK_SHM_PAIR_BYTES = 1 << 18, /* a slot of a pair of ranks */
    DK_SHM_WHAT_BYTES = 40,
    DK_SHM_WHY_BYTES = 512,
    DK_SHM_DIRECT_BYTES = 1 << 16, /* from here on messages are read where they lie */
    DK_SHM_ANY = 0xffff,           /* at a door: whoever it is */
};

typedef enum dk_shm_count {
    DK_SHM_READY,
    DK_SHM_REDUCED,
    DK_SHM_DONE,
    DK_SHM_COUNTS
} dk_shm_count;

typedef enum dk_shm_op {
    DK_SHM_ALL_REDUCE,
    DK_SHM_REDUCE_SCATTER,
    DK_SHM_ALL_GATHER,
    DK_SHM_ALL_TO_ALL,
    DK_SHM_BROADCAST,
    DK_SHM_BARRIER,
} dk_shm_op;

/* What a rank calls, laid beside the first round: ranks that call different things see it. */
typedef struct dk_shm_call {
    uint32_t op, type, reduction, root;
    uint64_t count;
    uint64_t source; /* where the others read what is sent in this process's own memory; 0: it
                        lies in the slots */
    char what[DK_SHM_WHAT_BYTES]; /* for messages */
    uint64_t sizes[DK_COMM_MOST_RANKS];
} dk_shm_call;

/* A rank's part of the shared memory; each kind of writer has cache lines of its own. */
typedef struct dk_shm_rank {
    _Alignas(64) atomic_uint counts[DK_SHM_COUNTS]; /* written by the rank */
    atomic_uint has_left;
    _Alignas(64) atomic_uint door;   /* a futex: written by those who knock, */
    _Alignas(64) atomic_uint awaits; /* the rank it waits for, plus one; 0: nobody */
    _Alignas(64) dk_shm_call calls[2];
} dk_shm_rank;

/* From one rank to another, without the others: the same with two counters. */
typedef struct dk_shm_channel {
    _Alignas(64) atomic_uint sent;
    uint64_t bytes[2]; /* of the whole message whose first piece lies in the slot */
    _Alignas(64) atomic_uint taken;
} dk_shm_channel;

/* Shared by all groups of this process that come from one outermost one. */
typedef struct dk_shm_life {
    dk_rendezvous *meeting; /* owned */
    pid_t pids[DK_COMM_MOST_RANKS];
    bool spins; /* waiting spins first */
    bool reads; /* every rank can read every other's memory */
    atomic_bool is_over;
    pthread_mutex_t mutex; /* of what follows, set once */
    int rank;              /* who ended it, by rank of the outermost group */
    char why[DK_SHM_WHY_BYTES];
} dk_shm_life;

/* A mapping of the memory of a group. */
typedef struct dk_shm_segment {
    unsigned char *base;
    size_t size;
} dk_shm_segment;

typedef struct dk_shm {
    dk_transport head;
    dk_shm_life *life; /* owned by the outermost group */
    bool is_outermost;
    dk_shm_segment segment;
    dk_shm_rank *ranks;       /* [ranks], in the segment */
    dk_shm_channel *channels; /* [from][to], in the segment */
    uint32_t round;           /* the next one */
    uint32_t sent[DK_COMM_MOST_RANKS], taken[DK_COMM_MOST_RANKS]; /* the next of each pair */
    int world[DK_COMM_MOST_RANKS]; /* ranks of the outermost group */
} dk_shm;

/* --- shm_segment.c */

/* How a rank finds the memory that another one has made. */
typedef struct dk_shm_key {
    int32_t pid, fd;
    uint64_t nonce;
} dk_shm_key;

/* Memory for a group; key->fd is owned by the caller, and held until all have opened it. */
DK_MUST_USE dk_status dk_shm_segment_create(dk_shm_segment *out, dk_shm_key *key, int ranks,
                                            dk_error *err);
DK_MUST_USE dk_status dk_shm_segment_open(dk_shm_segment *out, const dk_shm_key *key, int ranks,
                                          dk_error *err);
void dk_shm_segment_close(dk_shm_segment *segment);

/* Sets the pointers of a group from its segment. */
void dk_shm_place(dk_shm *g);
unsigned char *dk_shm_slot(const dk_shm *g, int rank, uint32_t round);
/* [DK_SHM_PAIR_BYTES] */
unsigned char *dk_shm_pair_slot(const dk_shm *g, int from, int to, uint32_t round);

/* --- shm_wait.c */

typedef struct dk_shm_wait dk_shm_wait;
struct dk_shm_wait {
    bool (*is_over)(const dk_shm *g, const dk_shm_wait *wait);
    bool (*is_late)(const dk_shm *g, const dk_shm_wait *wait, int rank); /* for whom to wait */
    uint32_t awaits; /* at the door: a rank plus one, or DK_SHM_ANY */
    dk_shm_count count;
    uint32_t target;
    const void *context;
};

DK_MUST_USE dk_status dk_shm_await(dk_shm *g, const dk_shm_wait *wait, const dk_comm_at *at,
                                   dk_error *err);
/* Until that counter of all ranks has reached target. */
DK_MUST_USE dk_status dk_shm_await_all(dk_shm *g, dk_shm_count count, uint32_t target,
                                       const dk_comm_at *at, dk_error *err);
/* Sets a counter of this rank, and knocks. */
void dk_shm_post(dk_shm *g, dk_shm_count count, uint32_t value);
void dk_shm_knock(dk_shm *g, int rank); /* if it waits for this one */

/* DK_NETWORK when the group has been given up. */
DK_MUST_USE dk_status dk_shm_check_life(const dk_shm *g, const dk_comm_at *at, dk_error *err);
/* The end of every call: a failure ends the group, for the other ranks too. */
dk_status dk_shm_end_call(dk_shm *g, dk_status status, const dk_error *reason, dk_error *err);
/* Notes who ended the groups; only the first one counts. */
void dk_shm_life_end(dk_shm_life *life, int rank, const char *why);
void dk_shm_abandon(dk_transport *t, const char *why);

static inline bool dk_shm_reached(uint32_t value, uint32_t target)
{
    return (int32_t)(value - target) >= 0;
}

/* "rank 1", and in a sub-group "rank 1 (5 of all)". */
enum { DK_SHM_NAME_BYTES = 32 };
const char *dk_shm_name(const dk_shm *g, int rank, char out[DK_SHM_NAME_BYTES]);

/* --- shm_direct.c */

/* bytes of the memory of another rank's process. */
DK_MUST_USE dk_status dk_shm_read(const dk_shm *g, int rank, void *dst, uint64_t source,
                                  size_t bytes, const dk_comm_at *at, dk_error *err);
/* Whether that works with a process. */
bool dk_shm_can_read(pid_t pid, uint64_t source, const void *expected, size_t bytes);

/* --- shm_collective.c, shm_reduce.c, shm_pair.c: the calls */

typedef struct dk_shm_exchange dk_shm_exchange;
/* A call in rounds: fill lays this rank's part of round j into its slot, share (may be NULL)
   works on what all have laid, drain takes out what this rank wants. */
struct dk_shm_exchange {
    dk_shm_call call;
    uint32_t rounds; /* at least 1 */
    void (*fill)(dk_shm *g, const dk_shm_exchange *x, unsigned char *slot, uint32_t j);
    void (*share)(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j);
    void (*drain)(dk_shm *g, const dk_shm_exchange *x, uint32_t round, uint32_t j);
    bool whole; /* everybody reads all that a rank sends; else each its own part */
    /* Compares another rank's call with this one's, and may add rounds; NULL: equal ones. */
    dk_status (*agree)(dk_shm *g, dk_shm_exchange *x, int rank, const dk_shm_call *theirs,
                       dk_error *err);
    unsigned char *dst;
    const unsigned char *src;
    const size_t *src_bytes, *dst_bytes;
    /* By rank, once all have laid their calls: whether it has laid nothing into its slots.
       Kept, since a rank may lay its next call while this one's last round is taken out. */
    bool is_direct[DK_COMM_MOST_RANKS];
};
DK_MUST_USE dk_status dk_shm_run(dk_shm *g, dk_shm_exchange *x, const dk_comm_at *at,
                                 dk_error *err);

dk_status dk_shm_all_reduce(dk_transport *t, void *data, dk_dtype type, size_t count,
                            dk_reduction reduction, const dk_comm_at *at, dk_error *err);
dk_status dk_shm_reduce_scatter(dk_transport *t, void *dst, const void *src, dk_dtype type,
                                const size_t *counts, dk_reduction reduction,
                                const dk_comm_at *at, dk_error *err);
dk_status dk_shm_all_gather(dk_transport *t, void *dst, const void *src, const size_t *bytes,
                            const dk_comm_at *at, dk_error *err);
dk_status dk_shm_all_to_all(dk_transport *t, void *dst, const size_t *dst_bytes,
                            const void *src, const size_t *src_bytes, const dk_comm_at *at,
                            dk_error *err);
dk_status dk_shm_broadcast(dk_transport *t, void *data, size_t bytes, int root,
                           const dk_comm_at *at, dk_error *err);
dk_status dk_shm_barrier(dk_transport *t, const dk_comm_at *at, dk_error *err);
dk_status dk_shm_send_receive(dk_transport *t, const void *src, size_t src_bytes, int to,
                              void *dst, size_t dst_bytes, int from, const dk_comm_at *at,
                              dk_error *err);

#endif
