/* Rows are exchanged for heads and, behind attention, back. Queries arrive, and results return,
   by groups of heads, while those of other groups are attended to.

   Where the device adds up parts of the keys, a rank's own rows stay: its own queries attend to
   its own keys while the others' rows arrive, and to the others' keys while the others' results
   return, so that neither exchange is waited for as long as no rank is behind the others by
   more than that. Its own keys and values lie behind the others', so that the others' queries
   attend to all of them at once. Elsewhere, and where a ring follows, own rows take part in the
   exchange, and the block of all rows is attended to at once. So it is on exact devices, too:
   no sum changes its order, and every rank has the bits of one rank alone. */
#include <assert.h>

#include "nn/key_parts.h"
#include "nn/sequence.h"

enum { HEAD_GROUPS = 3, MOST_COUNT = 16 };

/* Of all sequences, by DK_NN_Q, DK_NN_K, DK_NN_V. */
typedef struct exchange {
    bool stays;                  /* the rank's own rows do */
    int groups;                  /* of heads */
    int64_t block;               /* rows that arrive: all, or the others' */
    int64_t away;                /* elements of this rank's rows that leave, and return */
    int64_t column;              /* of rows of all heads: where this rank's begin */
    void *queries;               /* this rank's own, [count][rows][cols] */
    void *blocks[3][MOST_COUNT]; /* keys and values: [all rows][width], rank by rank, or the
                                    others' rank by rank and then this rank's; queries: by
                                    groups of heads, [groups][block][heads of the group] */
    dk_nn_transfer arrivals[3][MOST_COUNT][HEAD_GROUPS]; /* keys and values in the first */
} exchange;

/* Heads of Ulysses rank u that are of a group. */
static dk_nn_part heads_of_group(const dk_nn_sequence *s, int u, int group, int groups)
{
    return (dk_nn_part){dk_part_begin(s->heads_of[u], groups, group),
                        dk_part_size(s->heads_of[u], groups, group)};
}

static dk_nn_columns columns(const dk_nn *nn, void *base, int64_t first, int64_t stride)
{
    return (dk_nn_columns){dk_nn_at(nn, base, first), stride, nn->type};
}

/* Whether rank u takes part in what this rank sends and gets. */
static bool takes_part(const dk_nn_sequence *s, const exchange *e, int u)
{
    return u != s->u || !e->stays;
}

/* Keys and values of a block lie one behind the other, so that they travel a ring together. */
static void make_room(dk_nn *nn, const dk_nn_sequence *s, exchange *e)
{
    int count = s->a->count;
    int64_t arriving = e->block * s->width, part = s->block * s->width;
    dk_tensor q = dk_nn_temp(nn, nn->type, count, arriving);
    dk_tensor kv = dk_nn_temp(nn, nn->type, 2 * count, part);
    for (int i = 0; i < count; i++) {
        e->blocks[DK_NN_Q][i] = dk_nn_at(nn, q.data, i * arriving);
        e->blocks[DK_NN_K][i] = dk_nn_at(nn, kv.data, 2 * i * part);
        e->blocks[DK_NN_V][i] = dk_nn_at(nn, kv.data, (2 * i + 1) * part);
    }
}

/* A group of heads of this rank's rows of a sequence, [rows][cols]: to every rank its heads of
   them. packed: room for those, in the order of ranks; *used: elements of it. */
static dk_nn_transfer send_heads(dk_nn *nn, const dk_nn_sequence *s, const exchange *e,
                                 void *rows, int group, int groups, void *packed, int64_t *used,
                                 void *arrived)
{
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    int64_t column = 0, dim = s->a->head_dim;
    int64_t mine = heads_of_group(s, s->u, group, groups).count * dim;
    *used = 0;
    for (int u = 0; u < s->us; u++) {
        dk_nn_part heads = heads_of_group(s, u, group, groups);
        int64_t width = heads.count * dim;
        if (takes_part(s, e, u)) {
            dk_nn_copy_columns(nn, columns(nn, packed, *used, width),
                               columns(nn, rows, column + heads.begin * dim, s->cols), s->rows,
                               width);
            out[u] = dk_nn_bytes(nn, s->rows * width);
            in[u] = dk_nn_bytes(nn, s->rows_of[u] * mine);
            *used += s->rows * width;
        }
        column += (int64_t)s->heads_of[u] * dim;
    }
    return dk_nn_start_all_to_all(nn, s->ulysses, arrived, in, packed, out);
}

/* Where the keys or values of this rank's own rows lie that stayed. */
static void *own_keys(const dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int which,
                      int i)
{
    return dk_nn_at(nn, e->blocks[which][i], e->block * s->width);
}

static void keep_keys(dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int which, int i,
                      void *rows)
{
    dk_nn_copy_columns(nn, columns(nn, own_keys(nn, s, e, which, i), 0, s->width),
                       columns(nn, rows, e->column, s->cols), s->rows, s->width);
}

/* Projected rows of sequence i leave. */
static void send_rows(dk_nn *nn, const dk_nn_sequence *s, exchange *e, int which, int i,
                      void *rows, void *packed)
{
    int groups = which == DK_NN_Q ? e->groups : 1;
    int64_t at = 0, used;
    for (int g = 0; g < groups; g++) {
        dk_nn_part heads = heads_of_group(s, s->u, g, groups);
        void *arrived =
            dk_nn_at(nn, e->blocks[which][i], e->block * heads.begin * s->a->head_dim);
        e->arrivals[which][i][g] =
            send_heads(nn, s, e, rows, g, groups, dk_nn_at(nn, packed, at), &used, arrived);
        at += used;
    }
}

/* Values first: they need neither norm nor rotation. All are under way at the end, their packed
   rows in the caller's scope. */
static void begin_exchange(dk_nn *nn, const dk_nn_sequence *s, exchange *e, const dk_tensor *h)
{
    static const int order[] = {DK_NN_V, DK_NN_K, DK_NN_Q};
    int64_t count = s->a->count;
    assert(count <= MOST_COUNT);
    *e = (exchange){.stays = s->ring == NULL && nn->device->adds_parts && !nn->device->exact,
                    .groups = s->ring == NULL ? HEAD_GROUPS : 1};
    e->block = e->stays ? s->block - s->rows : s->block;
    e->away = s->rows * (e->stays ? s->cols - s->width : s->cols);
    for (int u = 0; u < s->u; u++) {
        e->column += (int64_t)s->heads_of[u] * s->a->head_dim;
    }
    make_room(nn, s, e);
    dk_tensor x = dk_nn_temp(nn, nn->type, h->shape[0], s->cols);
    e->queries = x.data; /* which come last */
    for (int n = 0; n < 3; n++) {
        int which = order[n];
        dk_tensor packed = dk_nn_temp(nn, nn->type, count, e->away);
        dk_nn_linear_forward(nn, dk_nn_projection(s->a, which), &x, h, NULL);
        for (int i = 0; i < count; i++) {
            void *rows = dk_nn_at(nn, x.data, i * s->rows * s->cols);
            dk_nn_prepare_rows(nn, s, which, rows);
            send_rows(nn, s, e, which, i, rows, dk_nn_at(nn, packed.data, i * e->away));
            if (e->stays && which != DK_NN_Q) {
                keep_keys(nn, s, e, which, i, rows);
            }
        }
    }
}

/* Some of this rank's heads, of so many queries. */
static dk_attention_args attention_of(const dk_nn *nn, const dk_nn_sequence *s, int64_t heads,
                                      int64_t queries)
{
    return (dk_attention_args){.heads = (int)heads,
                               .head_dim = s->a->head_dim,
                               .q_len = queries,
                               .type = nn->type,
                               .q_stride = heads * s->a->head_dim,
                               .dst_stride = heads * s->a->head_dim,
                               .scale = s->a->scale};
}

/* The own queries, whose results go straight to dst's rows. */
static dk_nn_key_parts begin_own(dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int i,
                                 void *dst)
{
    dk_attention_args queries = attention_of(nn, s, s->heads, s->rows);
    queries.q = dk_nn_at(nn, e->queries, i * s->rows * s->cols + e->column);
    queries.dst = dk_nn_at(nn, dst, e->column);
    queries.q_stride = queries.dst_stride = s->cols;
    return dk_nn_key_parts_begin(nn, &queries, (s->rows > 0) + (e->block > 0));
}

/* A group of heads of a block's queries, to all keys of sequence i; results: [block][heads
   of the group]. */
static void attend_group(dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int i,
                         dk_nn_part heads, void *results)
{
    int64_t first = heads.begin * s->a->head_dim;
    dk_attention_args queries = attention_of(nn, s, heads.count, e->block);
    queries.q = dk_nn_at(nn, e->blocks[DK_NN_Q][i], e->block * first);
    queries.dst = results;
    dk_nn_key_parts all = dk_nn_key_parts_begin(nn, &queries, 1);
    dk_nn_key_parts_add(nn, &all, dk_nn_at(nn, e->blocks[DK_NN_K][i], first),
                        dk_nn_at(nn, e->blocks[DK_NN_V][i], first), s->width, s->block);
}

/* A group of this rank's heads of a block, dense, goes back to where the rows are; returned:
   the group of every rank, rank by rank, of this rank's rows. */
static dk_nn_transfer send_back(dk_nn *nn, const dk_nn_sequence *s, const exchange *e,
                                int group, const void *results, void *returned)
{
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    int64_t mine = heads_of_group(s, s->u, group, e->groups).count;
    for (int u = 0; u < s->us; u++) {
        int64_t theirs = heads_of_group(s, u, group, e->groups).count;
        if (takes_part(s, e, u)) {
            out[u] = dk_nn_bytes(nn, s->rows_of[u] * mine * s->a->head_dim);
            in[u] = dk_nn_bytes(nn, s->rows * theirs * s->a->head_dim);
        }
    }
    return dk_nn_start_all_to_all(nn, s->ulysses, returned, in, results, out);
}

/* Elements of what returns so. */
static int64_t returning(const dk_nn_sequence *s, const exchange *e, int group)
{
    int64_t heads = 0;
    for (int u = 0; u < s->us; u++) {
        heads += takes_part(s, e, u) ? heads_of_group(s, u, group, e->groups).count : 0;
    }
    return s->rows * heads * s->a->head_dim;
}

/* What returned of a group of heads, into its columns of dst's rows. */
static void spread(dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int group, void *dst,
                   void *returned)
{
    int64_t column = 0, taken = 0, dim = s->a->head_dim;
    for (int u = 0; u < s->us; u++) {
        dk_nn_part heads = heads_of_group(s, u, group, e->groups);
        if (takes_part(s, e, u)) {
            dk_nn_copy_columns(nn, columns(nn, dst, column + heads.begin * dim, s->cols),
                               columns(nn, returned, taken, heads.count * dim), s->rows,
                               heads.count * dim);
            taken += s->rows * heads.count * dim;
        }
        column += (int64_t)s->heads_of[u] * dim;
    }
}

/* A group of heads of the block: what its queries attend to goes back. */
static dk_nn_transfer attend_and_send(dk_nn *nn, const dk_nn_sequence *s, exchange *e, int i,
                                      int group, void *results, void *returned)
{
    dk_nn_finish(nn, &e->arrivals[DK_NN_Q][i][group]);
    if (s->ring != NULL) {
        dk_nn_attend_ring(nn, s, results, e->blocks[DK_NN_Q][i], e->blocks[DK_NN_K][i]);
    } else {
        attend_group(nn, s, e, i, heads_of_group(s, s->u, group, e->groups), results);
    }
    return send_back(nn, s, e, group, results, returned);
}

/* dst: this rank's rows of sequence i, all heads. */
static void attend(dk_nn *nn, const dk_nn_sequence *s, exchange *e, int i, void *dst)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor results = dk_nn_temp(nn, nn->type, e->block, s->width);
    dk_tensor returned = dk_nn_temp(nn, nn->type, 1, e->away);
    dk_nn_key_parts mine = {0};
    dk_nn_transfer returns[HEAD_GROUPS];
    void *places[HEAD_GROUPS];
    if (e->stays) {
        mine = begin_own(nn, s, e, i, dst);
        dk_nn_key_parts_add(nn, &mine, own_keys(nn, s, e, DK_NN_K, i),
                            own_keys(nn, s, e, DK_NN_V, i), s->width, s->rows);
    }
    dk_nn_finish(nn, &e->arrivals[DK_NN_V][i][0]);
    dk_nn_finish(nn, &e->arrivals[DK_NN_K][i][0]);
    int64_t awaited = 0;
    for (int g = 0; g < e->groups; g++) {
        int64_t first = heads_of_group(s, s->u, g, e->groups).begin * s->a->head_dim;
        places[g] = dk_nn_at(nn, returned.data, awaited);
        awaited += returning(s, e, g);
        void *result = dk_nn_at(nn, results.data, e->block * first);
        returns[g] = attend_and_send(nn, s, e, i, g, result, places[g]);
    }
    if (e->stays) {
        dk_nn_key_parts_add(nn, &mine, e->blocks[DK_NN_K][i], e->blocks[DK_NN_V][i], s->width,
                            e->block);
    }
    for (int g = 0; g < e->groups; g++) {
        dk_nn_finish(nn, &returns[g]);
        spread(nn, s, e, g, dst, places[g]);
    }
    dk_nn_unwind(nn, mark);
}

void dk_nn_ulysses_forward(dk_nn *nn, const dk_nn_sequence *s, const dk_tensor *dst,
                           const dk_tensor *h)
{
    exchange e;
    begin_exchange(nn, s, &e, h);
    for (int i = 0; i < s->a->count; i++) {
        attend(nn, s, &e, i, dk_nn_at(nn, dst->data, i * s->rows * s->cols));
    }
}
