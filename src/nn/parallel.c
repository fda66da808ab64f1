/* Calls between ranks over device memory. */
#include "nn/parallel.h"

#include <string.h>

#include "base/alloc.h"

static const dk_groups *groups_of(const dk_nn *nn)
{
    return nn->parallel != NULL ? nn->parallel->groups : NULL;
}

bool dk_nn_calls(const dk_nn *nn)
{
    return !nn->device->dry && !nn->cut_off;
}

static void keep_failure(dk_nn *nn, const dk_error *error)
{
    if (nn->device->failed == DK_OK) {
        nn->device->failed = error->status;
        nn->device->failure = *error;
    }
}

static void cut_off(dk_nn *nn, const dk_error *error)
{
    if (!nn->cut_off) {
        nn->cut_off = true;
        nn->lost = *error;
    }
}

void dk_nn_note_call(dk_nn *nn, dk_status status, const dk_error *error)
{
    if (status != DK_OK) {
        cut_off(nn, error);
        keep_failure(nn, error);
    }
}

/* The next call comes after all that the device was given, which its thread waits for. */
static void follow(dk_nn *nn, dk_comm *comm)
{
    const dk_device_ops *ops = nn->device->ops;
    if (ops->mark != NULL && nn->device->failed == DK_OK) {
        void *mark = ops->mark(nn->device);
        dk_comm_after(comm, mark != NULL ? ops->wait_for : NULL, mark);
    }
}

/* Whether calls work on memory of the host, and the device's is none: it is copied, which waits
   for what the device was given. */
static bool goes_through_host(const dk_nn *nn, const dk_comm *comm)
{
    return !nn->device->host_memory && dk_comm_lane(comm) == NULL;
}

/* Where a call finds `bytes` of x: there, or in a copy on the host; owned then. read: of what
   is there. */
static void *borrow(dk_nn *nn, dk_comm *comm, void *x, size_t bytes, bool read)
{
    if (!goes_through_host(nn, comm)) {
        follow(nn, comm);
        return x;
    }
    void *host = dk_alloc(bytes);
    if (read) {
        dk_device_read(nn->device, host, x, bytes);
    }
    return host;
}

/* After the call. */
static void give_back(dk_nn *nn, void *x, void *borrowed, size_t bytes)
{
    if (borrowed != x) {
        dk_device_write(nn->device, x, borrowed, bytes);
        dk_free(borrowed);
    }
}

dk_nn_part dk_nn_sequence_part(const dk_nn *nn, int64_t tokens)
{
    const dk_groups *g = groups_of(nn);
    if (g == NULL) {
        return (dk_nn_part){0, tokens};
    }
    int parts = dk_layout_sp(&g->layout);
    int part = g->place.ulysses + g->layout.ulysses * g->place.ring;
    return (dk_nn_part){dk_part_begin(tokens, parts, part), dk_part_size(tokens, parts, part)};
}

dk_nn_part dk_nn_picture_part(const dk_nn *nn, int64_t rows)
{
    const dk_groups *g = groups_of(nn);
    if (g == NULL) {
        return (dk_nn_part){0, rows};
    }
    int ranks = dk_comm_ranks(g->replica), rank = dk_comm_rank(g->replica);
    return (dk_nn_part){dk_part_begin(rows, ranks, rank), dk_part_size(rows, ranks, rank)};
}

enum { EVERY_RANK = -1 };

/* Of parts of a dimension, see dk_comm_all_gather, to one rank or every one. */
typedef struct gathering {
    dk_comm *comm;
    int64_t outer;
    size_t bytes[DK_COMM_MOST_RANKS];
    int root;
} gathering;

static void make_gather(dk_nn *nn, const gathering *g, void *dst, const void *src)
{
    dk_error err;
    size_t outer = (size_t)g->outer;
    if (g->root == EVERY_RANK) {
        dk_nn_note_call(nn, dk_comm_all_gather(g->comm, dst, src, outer, g->bytes, &err), &err);
    } else {
        dk_nn_note_call(nn, dk_comm_gather(g->comm, dst, src, outer, g->bytes, g->root, &err),
                        &err);
    }
}

static void gather(dk_nn *nn, const gathering *g, const dk_tensor *whole, const dk_tensor *mine)
{
    if (!dk_nn_calls(nn)) {
        return;
    }
    if (!goes_through_host(nn, g->comm)) {
        follow(nn, g->comm);
        make_gather(nn, g, whole->data, mine->data);
        return;
    }
    bool receives = g->root == EVERY_RANK || g->root == dk_comm_rank(g->comm);
    size_t own = dk_tensor_bytes(mine), all = receives ? dk_tensor_bytes(whole) : 0;
    char *host = dk_alloc(own + all);
    dk_device_read(nn->device, host, mine->data, own);
    make_gather(nn, g, host + own, host);
    dk_device_write(nn->device, whole->data, host + own, all);
    dk_free(host);
}

/* The parts of `rows`, each of so many bytes. */
static void share_out(gathering *g, int64_t rows, size_t row)
{
    int ranks = dk_comm_ranks(g->comm);
    for (int i = 0; i < ranks; i++) {
        g->bytes[i] = (size_t)dk_part_size(rows, ranks, i) * row;
    }
}

void dk_nn_gather_sequence(dk_nn *nn, const dk_tensor *whole, const dk_tensor *mine)
{
    const dk_groups *g = groups_of(nn);
    int64_t tokens = whole->shape[0];
    if (g == NULL || g->sp == NULL) {
        dk_device_map(nn->device, whole->data, whole->dtype, mine->data, mine->dtype,
                      DK_ACT_NONE, dk_tensor_count(mine));
        return;
    }
    gathering call = {.comm = g->sp, .outer = 1, .root = EVERY_RANK};
    share_out(&call, tokens, dk_tensor_bytes(whole) / (size_t)(tokens > 0 ? tokens : 1));
    gather(nn, &call, whole, mine);
}

static void gather_rows(dk_nn *nn, const dk_tensor *whole, const dk_tensor *mine,
                        const dk_nn_pictures *pictures, int root)
{
    gathering call = {.comm = groups_of(nn)->replica, .outer = pictures->count, .root = root};
    share_out(&call, pictures->rows,
              (size_t)(pictures->width * mine->shape[1]) * dk_dtype_bytes(mine->dtype));
    gather(nn, &call, whole, mine);
}

void dk_nn_gather_rows(dk_nn *nn, const dk_tensor *whole, const dk_tensor *mine,
                       const dk_nn_pictures *pictures)
{
    gather_rows(nn, whole, mine, pictures, EVERY_RANK);
}

void dk_nn_gather_rows_to_leader(dk_nn *nn, const dk_tensor *whole, const dk_tensor *mine,
                                 const dk_nn_pictures *pictures)
{
    gather_rows(nn, whole, mine, pictures, 0);
}

void dk_nn_sum(dk_nn *nn, dk_comm *comm, const dk_tensor *x)
{
    dk_error err;
    size_t bytes = dk_tensor_bytes(x);
    if (comm == NULL || !dk_nn_calls(nn)) {
        return;
    }
    void *data = borrow(nn, comm, x->data, bytes, true);
    dk_nn_note_call(nn,
                    dk_comm_all_reduce(comm, data, x->dtype, (size_t)dk_tensor_count(x),
                                       DK_REDUCE_SUM, &err),
                    &err);
    give_back(nn, x->data, data, bytes);
}

bool dk_nn_leads(const dk_nn *nn)
{
    return nn->parallel == NULL || dk_comm_rank(nn->parallel->control) == 0;
}

/* What a rank says that is cut off, whatever else has failed since. */
static dk_status tell_cut_off(dk_nn *nn, dk_error *err)
{
    dk_status since = dk_device_sync(nn->device, err);
    (void)since;
    return dk_fail(err, nn->lost.status, "%s", nn->lost.message);
}

dk_status dk_nn_call_roll(dk_nn *nn, uint64_t *word, dk_error *err)
{
    dk_error why;
    if (nn->parallel != NULL && dk_nn_calls(nn)) {
        dk_nn_note_call(
            nn, dk_comm_broadcast(nn->parallel->orders, word, sizeof *word, 0, &why), &why);
    }
    return nn->cut_off ? tell_cut_off(nn, err) : DK_OK;
}

void dk_nn_share(dk_nn *nn, void *data, size_t bytes)
{
    dk_error err;
    if (nn->parallel != NULL && dk_nn_calls(nn)) {
        dk_nn_note_call(nn, dk_comm_broadcast(nn->parallel->control, data, bytes, 0, &err),
                        &err);
    }
}

/* Of a device's tensor: root's on all ranks. */
static void broadcast(dk_nn *nn, dk_comm *comm, const dk_tensor *x, int root)
{
    dk_error err;
    size_t bytes = dk_tensor_bytes(x);
    if (comm == NULL || !dk_nn_calls(nn)) {
        return;
    }
    void *data = borrow(nn, comm, x->data, bytes, dk_comm_rank(comm) == root);
    dk_nn_note_call(nn, dk_comm_broadcast(comm, data, bytes, root, &err), &err);
    give_back(nn, x->data, data, bytes);
}

void dk_nn_share_tensor(dk_nn *nn, const dk_tensor *x)
{
    broadcast(nn, nn->parallel != NULL ? nn->parallel->control : NULL, x, 0);
}

int dk_nn_branches(const dk_nn *nn)
{
    const dk_groups *g = groups_of(nn);
    return g != NULL ? g->layout.cfg : 1;
}

int dk_nn_branch(const dk_nn *nn)
{
    const dk_groups *g = groups_of(nn);
    return g != NULL ? g->place.cfg : 0;
}

void dk_nn_share_branch(dk_nn *nn, const dk_tensor *x, int branch)
{
    const dk_groups *g = groups_of(nn);
    broadcast(nn, g != NULL ? g->cfg : NULL, x, branch);
}

uint64_t dk_nn_agree(dk_nn *nn, uint64_t mine)
{
    uint64_t word = mine;
    dk_nn_share(nn, &word, sizeof word);
    return nn->cut_off ? mine : word;
}

/* What a rank said, and what all did, once the call that tells them has ended. */
struct dk_nn_word {
    uint64_t mine, of[DK_COMM_MOST_RANKS];
    dk_comm_ticket ticket; /* 0: nothing is under way */
};

enum { WORD_BYTES = sizeof(uint64_t) };

static const size_t *word_sizes(size_t bytes[DK_COMM_MOST_RANKS])
{
    for (int i = 0; i < DK_COMM_MOST_RANKS; i++) {
        bytes[i] = WORD_BYTES;
    }
    return bytes;
}

/* `otherwise`: after a failure. */
static uint64_t largest(const dk_nn *nn, const uint64_t *words, uint64_t otherwise)
{
    uint64_t most = otherwise;
    for (int i = 0; i < dk_comm_ranks(nn->parallel->control) && !nn->cut_off; i++) {
        most = words[i] > most ? words[i] : most;
    }
    return most;
}

uint64_t dk_nn_agree_most(dk_nn *nn, uint64_t mine)
{
    uint64_t words[DK_COMM_MOST_RANKS];
    size_t bytes[DK_COMM_MOST_RANKS];
    dk_error err;
    if (nn->parallel == NULL || !dk_nn_calls(nn)) {
        return mine;
    }
    dk_nn_note_call(
        nn, dk_comm_all_gather(nn->parallel->control, words, &mine, 1, word_sizes(bytes), &err),
        &err);
    return largest(nn, words, mine);
}

void dk_nn_say(dk_nn *nn, uint64_t mine)
{
    size_t bytes[DK_COMM_MOST_RANKS];
    if (nn->parallel == NULL || !dk_nn_calls(nn)) {
        return;
    }
    if (nn->word == NULL) {
        nn->word = dk_alloc(sizeof *nn->word);
    }
    dk_nn_word *word = nn->word;
    word->mine = mine;
    word->ticket = dk_comm_start_all_gather(nn->parallel->control, word->of, &word->mine, 1,
                                            word_sizes(bytes));
}

/* A word is waited for by a rank that is cut off, too: its buffers are in use until then. */
uint64_t dk_nn_hear(dk_nn *nn)
{
    dk_error err;
    dk_nn_word *word = nn->word;
    if (word == NULL || word->ticket == 0) {
        return 0;
    }
    dk_nn_note_call(nn, dk_comm_wait(nn->parallel->control, word->ticket, &err), &err);
    word->ticket = 0;
    return largest(nn, word->of, 0);
}

dk_status dk_nn_fail_elsewhere(dk_error *err, dk_status status)
{
    return status == DK_CANCELLED ? dk_fail(err, status, "stopped on request")
                                  : dk_fail(err, status, DK_NN_ANOTHER_RANK);
}

dk_status dk_nn_agree_status(dk_nn *nn, dk_status mine, dk_error *err)
{
    dk_status most = (dk_status)dk_nn_agree_most(nn, (uint64_t)mine);
    nn->agreed = most != DK_OK && !nn->cut_off;
    if (mine == DK_OK && nn->parallel != NULL && nn->cut_off) {
        return tell_cut_off(nn, err);
    }
    if (mine == DK_OK && most != DK_OK) {
        return dk_nn_fail_elsewhere(err, most);
    }
    return mine;
}

void dk_nn_abandon(dk_nn *nn, const char *why)
{
    dk_error error;
    (void)dk_fail(&error, DK_DEVICE, "%s", why);
    cut_off(nn, &error);
    dk_comm_abandon(nn->parallel->groups->world, why);
    if (nn->parallel->groups->fsdp != NULL) {
        dk_comm_abandon(nn->parallel->groups->fsdp, why);
    }
    dk_comm_abandon(nn->parallel->control, why);
}

static size_t sum(const size_t *sizes, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += sizes[i];
    }
    return total;
}

/* Buffers of a call, which comes after what the device was given; *src and *dst are replaced
   where they go through the host. */
static dk_nn_transfer prepare(dk_nn *nn, dk_comm *comm, void **dst, size_t dst_bytes,
                              const void **src, size_t src_bytes)
{
    dk_nn_transfer t = {.comm = comm, .dst = *dst, .dst_bytes = dst_bytes};
    if (!goes_through_host(nn, comm)) {
        follow(nn, comm);
        return t;
    }
    t.host = dk_alloc(src_bytes + dst_bytes);
    t.arrived = (char *)t.host + src_bytes;
    dk_device_read(nn->device, t.host, *src, src_bytes);
    *src = t.host;
    *dst = t.arrived;
    return t;
}

dk_nn_transfer dk_nn_start_all_to_all(dk_nn *nn, dk_comm *comm, void *dst,
                                      const size_t *dst_bytes, const void *src,
                                      const size_t *src_bytes)
{
    if (!dk_nn_calls(nn)) {
        return (dk_nn_transfer){0};
    }
    int ranks = dk_comm_ranks(comm);
    dk_nn_transfer t =
        prepare(nn, comm, &dst, sum(dst_bytes, ranks), &src, sum(src_bytes, ranks));
    t.ticket = dk_comm_start_all_to_all(comm, dst, dst_bytes, src, src_bytes);
    return t;
}

dk_nn_transfer dk_nn_start_shift(dk_nn *nn, dk_comm *comm, void *dst, size_t dst_bytes,
                                 const void *src, size_t src_bytes)
{
    if (!dk_nn_calls(nn)) {
        return (dk_nn_transfer){0};
    }
    dk_nn_transfer t = prepare(nn, comm, &dst, dst_bytes, &src, src_bytes);
    t.ticket = dk_comm_start_shift(comm, dst, dst_bytes, src, src_bytes);
    return t;
}

void dk_nn_finish(dk_nn *nn, dk_nn_transfer *t)
{
    dk_error err;
    if (t->ticket != 0) {
        dk_nn_note_call(nn, dk_comm_wait(t->comm, t->ticket, &err), &err);
    }
    if (t->host != NULL) {
        dk_device_write(nn->device, t->dst, t->arrived, t->dst_bytes);
        dk_free(t->host);
    }
    *t = (dk_nn_transfer){0};
}
