/* The shm transport: how a group comes together, is split, and ends. */
#define _GNU_SOURCE
#include "comm/shm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* What a rank tells the others when they meet. */
typedef struct introduction {
    char boot[40]; /* of the host's kernel */
    uint64_t pid_space, user;
    int32_t pid;
    dk_status status; /* of rank 0: whether there is memory */
    uint64_t place;   /* where this introduction lies, for others that try to read it */
    dk_shm_key key;   /* of rank 0 */
} introduction;

static void close_group(dk_transport *t);

static dk_status split(dk_transport **out, dk_transport *t, int color, int key,
                       const dk_comm_at *at, dk_error *err);

static const dk_transport_ops ops = {
    .name = "shm",
    .all_reduce = dk_shm_all_reduce,
    .reduce_scatter = dk_shm_reduce_scatter,
    .all_gather = dk_shm_all_gather,
    .all_to_all = dk_shm_all_to_all,
    .broadcast = dk_shm_broadcast,
    .send_receive = dk_shm_send_receive,
    .barrier = dk_shm_barrier,
    .split = split,
    .abandon = dk_shm_abandon,
    .close = close_group,
};

static void close_group(dk_transport *t)
{
    dk_shm *g = (dk_shm *)t;
    /* Who leaves because the group has ended is not the reason: that reaches everybody. */
    if (g->ranks != NULL && !atomic_load(&g->life->is_over)) {
        atomic_store(&g->ranks[g->head.rank].has_left, 1);
    }
    if (g->is_outermost && g->life != NULL) {
        dk_rendezvous_close(&g->life->meeting);
        pthread_mutex_destroy(&g->life->mutex);
        dk_free(g->life);
    }
    dk_shm_segment_close(&g->segment);
    dk_free(g);
}

static dk_shm *make_group(int rank, int ranks)
{
    dk_shm *g = dk_alloc(sizeof *g);
    g->head = (dk_transport){.ops = &ops, .rank = rank, .ranks = ranks};
    return g;
}

static void introduce(introduction *own)
{
    struct stat space;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t count = read(fd, own->boot, sizeof own->boot - 4); /* without the new line */
        (void)count; /* no text: all hosts look alike, and opening the memory fails */
        close(fd);
    }
    if (stat("/proc/self/ns/pid", &space) == 0) {
        own->pid_space = (uint64_t)space.st_ino;
    }
    own->user = (uint64_t)geteuid();
    own->pid = (int32_t)getpid();
}

/* The same verdict on all ranks. */
static dk_status check_introductions(const introduction *all, int ranks, dk_error *err)
{
    for (int i = 1; i < ranks; i++) {
        if (memcmp(all[i].boot, all[0].boot, sizeof all[0].boot) != 0) {
            return dk_fail(err, DK_UNSUPPORTED,
                           "shm joins ranks of one host, but rank %d runs on another one than "
                           "rank 0; expected mpi or xccl",
                           i);
        }
        if (all[i].pid_space != all[0].pid_space) {
            return dk_fail(err, DK_UNSUPPORTED,
                           "shm joins processes that see each other, but rank %d is in another "
                           "container (PID namespace) than rank 0; expected mpi or xccl",
                           i);
        }
        if (all[i].user != all[0].user) {
            return dk_fail(err, DK_UNSUPPORTED,
                           "shm joins processes of one user, but rank %d is user %llu's and "
                           "rank 0 user %llu's",
                           i, (unsigned long long)all[i].user, (unsigned long long)all[0].user);
        }
    }
    if (all[0].status != DK_OK) {
        return dk_fail(err, DK_MEMORY, "rank 0 has no shared memory for the group");
    }
    return DK_OK;
}

/* How a rank has come along. */
typedef struct outcome {
    dk_error error; /* status DK_OK: well */
    bool reads;     /* the memory of all others */
} outcome;

/* The first failure that a rank tells of. */
static dk_status check_outcomes(const dk_shm *g, outcome *all, dk_error *err)
{
    char name[DK_SHM_NAME_BYTES];
    for (int i = 0; i < g->head.ranks; i++) {
        dk_error *error = &all[i].error;
        error->message[sizeof error->message - 1] = '\0';
        if (error->status != DK_OK) {
            return dk_fail(err, DK_UNSUPPORTED, "%s: %s", dk_shm_name(g, i, name),
                           error->message);
        }
    }
    return DK_OK;
}

static bool can_read_all(const introduction *all, int ranks)
{
    bool can = true;
    for (int i = 0; i < ranks; i++) {
        can = can &&
              dk_shm_can_read((pid_t)all[i].pid, all[i].place, all[i].boot, sizeof all[i].boot);
    }
    return can;
}

/* Every rank maps the memory that rank 0 has made, and all hear whether all have. */
static dk_status join(dk_shm *g, dk_shm_key *made, const dk_transport_options *options,
                      dk_error *err)
{
    double deadline_ms = options->deadline_ms;
    size_t ranks = (size_t)g->head.ranks;
    introduction own = {0}, *all = dk_alloc(ranks * sizeof *all);
    outcome *ends = dk_alloc(ranks * sizeof *ends), mine = {0};
    dk_error *reason = &mine.error;
    dk_status status = DK_OK;
    introduce(&own);
    own.place = (uint64_t)(uintptr_t)own.boot;
    if (g->head.rank == 0) {
        own.status = dk_shm_segment_create(&g->segment, made, g->head.ranks, reason);
        own.key = *made;
    }
    DK_TRY_DONE(
        dk_rendezvous_exchange(g->life->meeting, all, &own, sizeof own, deadline_ms, err));
    DK_TRY_DONE(check_introductions(all, g->head.ranks, err));
    for (size_t i = 0; i < ranks; i++) {
        g->life->pids[i] = (pid_t)all[i].pid;
        g->world[i] = (int)i;
    }
    if (g->head.rank != 0) {
        reason->status = dk_shm_segment_open(&g->segment, &all[0].key, g->head.ranks, reason);
    }
    mine.reads = !options->copies && can_read_all(all, g->head.ranks);
    DK_TRY_DONE(
        dk_rendezvous_exchange(g->life->meeting, ends, &mine, sizeof mine, deadline_ms, err));
    DK_TRY_DONE(check_outcomes(g, ends, err));
    g->life->reads = true;
    for (size_t i = 0; i < ranks; i++) {
        g->life->reads = g->life->reads && ends[i].reads;
    }
    dk_shm_place(g);
done:
    dk_free(ends);
    dk_free(all);
    return status;
}

static void lost(void *context, int rank, const char *why)
{
    dk_shm_life_end(context, rank, why);
}

dk_status dk_transport_shm(dk_transport **out, const dk_transport_options *options,
                           dk_error *err)
{
    dk_rendezvous_options meeting = {.address = options->address,
                                     .key = options->key,
                                     .rank = options->rank,
                                     .ranks = options->ranks,
                                     .deadline_ms = options->deadline_ms};
    dk_shm_key made = {.fd = -1};
    dk_status status;
    if (options->ranks > DK_COMM_MOST_RANKS) {
        return dk_fail(err, DK_UNSUPPORTED, "shm of %d ranks, expected at most %d",
                       options->ranks, DK_COMM_MOST_RANKS);
    }
    dk_shm *g = make_group(options->rank, options->ranks);
    g->is_outermost = true;
    g->life = dk_alloc(sizeof *g->life);
    g->life->spins = !options->cores_are_short;
    pthread_mutex_init(&g->life->mutex, NULL);
    DK_TRY_DONE(dk_rendezvous_open(&g->life->meeting, &meeting, err));
    DK_TRY_DONE(join(g, &made, options, err));
    DK_TRY_DONE(dk_rendezvous_watch(g->life->meeting, lost, g->life, err));
done:
    if (made.fd >= 0) {
        close(made.fd);
    }
    if (status != DK_OK) {
        close_group(&g->head);
        return status;
    }
    *out = &g->head;
    return DK_OK;
}

/* --- split */

typedef struct membership {
    int32_t color, key, rank;
} membership;

static int compare_memberships(const void *a, const void *b)
{
    const membership *x = a, *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* Everybody's `bytes` bytes, by rank. */
static dk_status tell_all(dk_transport *t, void *all, const void *own, size_t bytes,
                          const dk_comm_at *at, dk_error *err)
{
    size_t sizes[DK_COMM_MOST_RANKS];
    for (int i = 0; i < t->ranks; i++) {
        sizes[i] = bytes;
    }
    return dk_shm_all_gather(t, all, own, sizes, at, err);
}

/* The group of this rank's color, without memory; NULL for color -1. */
static dk_shm *sub_group(const dk_shm *parent, const membership *all, int color)
{
    membership members[DK_COMM_MOST_RANKS];
    int count = 0, own = 0;
    for (int i = 0; i < parent->head.ranks; i++) {
        if (all[i].color == color) {
            members[count++] = all[i];
        }
    }
    if (color < 0) {
        return NULL;
    }
    qsort(members, (size_t)count, sizeof members[0], compare_memberships);
    dk_shm *g = make_group(0, count);
    g->life = parent->life;
    for (int i = 0; i < count; i++) {
        g->world[i] = parent->world[members[i].rank];
        own = members[i].rank == parent->head.rank ? i : own;
    }
    g->head.rank = own;
    return g;
}

/* The parent's rank that makes the memory of a color: its first one. */
static int maker_of(const dk_shm *parent, const dk_shm *g)
{
    int maker = 0;
    while (parent->world[maker] != g->world[0]) {
        maker++;
    }
    return maker;
}

static dk_status split(dk_transport **out, dk_transport *t, int color, int key,
                       const dk_comm_at *at, dk_error *err)
{
    dk_shm *parent = (dk_shm *)t, *g = NULL;
    membership own = {.color = color, .key = key, .rank = t->rank}, all[DK_COMM_MOST_RANKS];
    dk_shm_key made = {.fd = -1}, keys[DK_COMM_MOST_RANKS];
    outcome *ends = dk_alloc((size_t)t->ranks * sizeof *ends), mine = {0};
    dk_error *reason = &mine.error;
    dk_status status, opened = DK_OK;
    DK_TRY_DONE(tell_all(t, all, &own, sizeof own, at, err));
    g = sub_group(parent, all, color);
    bool makes = g != NULL && g->head.rank == 0;
    if (makes) {
        opened = dk_shm_segment_create(&g->segment, &made, g->head.ranks, reason);
    }
    DK_TRY_DONE(tell_all(t, keys, &made, sizeof made, at, err));
    if (g != NULL && !makes) {
        opened =
            dk_shm_segment_open(&g->segment, &keys[maker_of(parent, g)], g->head.ranks, reason);
    }
    reason->status = opened;
    DK_TRY_DONE(tell_all(t, ends, &mine, sizeof mine, at, err));
    DK_TRY_DONE(check_outcomes(parent, ends, err));
    if (g != NULL) {
        dk_shm_place(g);
    }
done:
    if (made.fd >= 0) {
        close(made.fd);
    }
    dk_free(ends);
    if (status != DK_OK) {
        if (g != NULL) {
            close_group(&g->head);
        }
        return status;
    }
    *out = g != NULL ? &g->head : NULL;
    return DK_OK;
}
