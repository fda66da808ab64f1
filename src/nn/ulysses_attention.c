/* Rows are exchanged for heads and, behind attention, back. Queries arrive, and results return,
   by groups of heads, while those of other groups are attended to.

   Where the device adds up parts of the keys, a rank's own rows stay where they are: its own
   queries attend to its own keys while the others' rows arrive, and to the others' keys while
   the others' results return, so that neither exchange is waited for as long as no rank is
   behind the others by more than that. Elsewhere, and where a ring follows, they lie before the
   others' rows in one block, which is attended to at once. */
#include <assert.h>

#include "nn/key_parts.h"
#include "nn/sequence.h"

enum { HEAD_GROUPS = 3, MOST_COUNT = 16 };

/* Of all sequences, by DK_NN_Q, DK_NN_K, DK_NN_V. */
typedef struct exchange {
    bool stays;                  /* the rank's own rows do */
    int groups;                  /* of heads */
    int64_t others;              /* rows that arrive */
    int64_t before;              /* rows of a block before them */
    int64_t column;              /* of rows of all heads: where this rank's begin */
    dk_tensor mine[3];           /* [count][rows][cols] */
    void *blocks[3][MOST_COUNT]; /* [before + others][width]; queries: by groups of heads,
                                    [groups][before + others][heads of the group] */
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

static int64_t block_rows(const exchange *e)
{
    return e->before + e->others;
}

/* Keys and values of a block lie one behind the other, so that they travel a ring together. */
static void make_room(dk_nn *nn, const dk_nn_sequence *s, exchange *e)
{
    int count = s->a->count;
    int64_t part = block_rows(e) * s->width;
    dk_tensor q = dk_nn_temp(nn, nn->type, count, part);
    dk_tensor kv = dk_nn_temp(nn, nn->type, 2 * count, part);
    for (int i = 0; i < count; i++) {
        e->blocks[DK_NN_Q][i] = dk_nn_at(nn, q.data, i * part);
        e->blocks[DK_NN_K][i] = dk_nn_at(nn, kv.data, 2 * i * part);
        e->blocks[DK_NN_V][i] = dk_nn_at(nn, kv.data, (2 * i + 1) * part);
    }
}

/* A group of heads of this rank's rows of a sequence, [rows][cols]: to every other rank its
   heads of them. packed: room for those, in the order of ranks; *used: elements of it. */
static dk_nn_transfer send_heads(dk_nn *nn, const dk_nn_sequence *s, void *rows, int group,
                                 int groups, void *packed, int64_t *used, void *arrived)
{
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    int64_t column = 0, dim = s->a->head_dim;
    int64_t mine = heads_of_group(s, s->u, group, groups).count * dim;
    *used = 0;
    for (int u = 0; u < s->us; u++) {
        dk_nn_part heads = heads_of_group(s, u, group, groups);
        int64_t width = heads.count * dim;
        if (u != s->u) {
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

/* Projected rows of sequence i leave. */
static void send_rows(dk_nn *nn, const dk_nn_sequence *s, exchange *e, int which, int i,
                      void *rows, void *packed)
{
    int groups = which == DK_NN_Q ? e->groups : 1;
    int64_t at = 0, used;
    for (int g = 0; g < groups; g++) {
        dk_nn_part heads = heads_of_group(s, s->u, g, groups);
        int64_t before = block_rows(e) * heads.begin + e->before * heads.count;
        void *arrived = dk_nn_at(nn, e->blocks[which][i], before * s->a->head_dim);
        e->arrivals[which][i][g] =
            send_heads(nn, s, rows, g, groups, dk_nn_at(nn, packed, at), &used, arrived);
        at += used;
    }
}

/* Values first: they need neither norm nor rotation. All are under way at the end, their packed
   rows in the caller's scope. */
static void begin_exchange(dk_nn *nn, const dk_nn_sequence *s, exchange *e, const dk_tensor *h)
{
    static const int order[] = {DK_NN_V, DK_NN_K, DK_NN_Q};
    int64_t count = s->a->count, away = s->rows * (s->cols - s->width);
    assert(count <= MOST_COUNT);
    *e = (exchange){.stays = s->ring == NULL && nn->device->adds_parts,
                    .groups = s->ring == NULL ? HEAD_GROUPS : 1,
                    .others = s->block - s->rows};
    e->before = e->stays ? 0 : s->rows;
    for (int u = 0; u < s->u; u++) {
        e->column += (int64_t)s->heads_of[u] * s->a->head_dim;
    }
    make_room(nn, s, e);
    for (int n = 0; n < 3; n++) {
        int which = order[n];
        dk_tensor x = dk_nn_temp(nn, nn->type, h->shape[0], s->cols);
        dk_tensor packed = dk_nn_temp(nn, nn->type, count, away);
        dk_nn_linear_forward(nn, dk_nn_projection(s->a, which), &x, h, NULL);
        for (int i = 0; i < count; i++) {
            void *rows = dk_nn_at(nn, x.data, i * s->rows * s->cols);
            dk_nn_prepare_rows(nn, s, which, rows);
            send_rows(nn, s, e, which, i, rows, dk_nn_at(nn, packed.data, i * away));
        }
        e->mine[which] = x;
    }
}

/* This rank's rows of sequence i, [rows], and of them its heads from one on. */
static void *own(const dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int which, int i,
                 int64_t head)
{
    return dk_nn_at(nn, e->mine[which].data,
                    i * s->rows * s->cols + e->column + head * s->a->head_dim);
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
    queries.q = own(nn, s, e, DK_NN_Q, i, 0);
    queries.dst = dk_nn_at(nn, dst, e->column);
    queries.q_stride = queries.dst_stride = s->cols;
    return dk_nn_key_parts_begin(nn, &queries, (s->rows > 0) + (e->others > 0));
}

/* The own rows of a block that is attended to at once. */
static void copy_own(dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int i)
{
    for (int which = 0; which < 3; which++) {
        int groups = which == DK_NN_Q ? e->groups : 1;
        for (int g = 0; g < groups; g++) {
            dk_nn_part heads = heads_of_group(s, s->u, g, groups);
            int64_t width = heads.count * s->a->head_dim;
            int64_t before = block_rows(e) * heads.begin * s->a->head_dim;
            dk_nn_copy_columns(nn, columns(nn, e->blocks[which][i], before, width),
                               columns(nn, own(nn, s, e, which, i, heads.begin), 0, s->cols),
                               s->rows, width);
        }
    }
}

/* A group of heads of a block's queries, to all keys of sequence i; results: [before +
   others][heads of the group]. */
static void attend_group(dk_nn *nn, const dk_nn_sequence *s, const exchange *e, int i,
                         dk_nn_part heads, void *results)
{
    size_t mark = dk_nn_mark(nn);
    int64_t first = heads.begin * s->a->head_dim;
    dk_attention_args queries = attention_of(nn, s, heads.count, block_rows(e));
    queries.q = dk_nn_at(nn, e->blocks[DK_NN_Q][i], block_rows(e) * first);
    queries.dst = results;
    dk_nn_key_parts parts =
        dk_nn_key_parts_begin(nn, &queries, (e->stays && s->rows > 0) + (block_rows(e) > 0));
    if (e->stays) {
        dk_nn_key_parts_add(nn, &parts, own(nn, s, e, DK_NN_K, i, heads.begin),
                            own(nn, s, e, DK_NN_V, i, heads.begin), s->cols, s->rows);
    }
    dk_nn_key_parts_add(nn, &parts, dk_nn_at(nn, e->blocks[DK_NN_K][i], first),
                        dk_nn_at(nn, e->blocks[DK_NN_V][i], first), s->width, block_rows(e));
    dk_nn_unwind(nn, mark);
}

/* A group of this rank's heads of the others' rows, dense, goes back to where the rows are;
   returned: those heads of every other rank, rank by rank, of this rank's rows. */
static dk_nn_transfer send_back(dk_nn *nn, const dk_nn_sequence *s, int group, int groups,
                                const void *results, void *returned)
{
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    int64_t mine = heads_of_group(s, s->u, group, groups).count;
    for (int u = 0; u < s->us; u++) {
        int64_t theirs = heads_of_group(s, u, group, groups).count;
        if (u != s->u) {
            out[u] = dk_nn_bytes(nn, s->rows_of[u] * mine * s->a->head_dim);
            in[u] = dk_nn_bytes(nn, s->rows * theirs * s->a->head_dim);
        }
    }
    return dk_nn_start_all_to_all(nn, s->ulysses, returned, in, results, out);
}

/* Elements of what returns so. */
static int64_t returning(const dk_nn_sequence *s, int group, int groups)
{
    int64_t heads = 0;
    for (int u = 0; u < s->us; u++) {
        heads += u != s->u ? heads_of_group(s, u, group, groups).count : 0;
    }
    return s->rows * heads * s->a->head_dim;
}

/* What returned of a group of heads, into its columns of dst's rows. */
static void spread(dk_nn *nn, const dk_nn_sequence *s, int group, int groups, void *dst,
                   void *returned)
{
    int64_t column = 0, taken = 0, dim = s->a->head_dim;
    for (int u = 0; u < s->us; u++) {
        dk_nn_part heads = heads_of_group(s, u, group, groups);
        if (u != s->u) {
            dk_nn_copy_columns(nn, columns(nn, dst, column + heads.begin * dim, s->cols),
                               columns(nn, returned, taken, heads.count * dim), s->rows,
                               heads.count * dim);
            taken += s->rows * heads.count * dim;
        }
        column += (int64_t)s->heads_of[u] * dim;
    }
}

/* A group of heads, of which the own rows of a block go to dst and the others' back. */
static dk_nn_transfer attend_and_send(dk_nn *nn, const dk_nn_sequence *s, exchange *e, int i,
                                      int group, void *results, void *returned, void *dst)
{
    dk_nn_part heads = heads_of_group(s, s->u, group, e->groups);
    int64_t width = heads.count * s->a->head_dim, first = heads.begin * s->a->head_dim;
    dk_nn_finish(nn, &e->arrivals[DK_NN_Q][i][group]);
    if (s->ring != NULL) {
        dk_nn_attend_ring(nn, s, results, e->blocks[DK_NN_Q][i], e->blocks[DK_NN_K][i]);
    } else {
        attend_group(nn, s, e, i, heads, results);
    }
    dk_nn_transfer back =
        send_back(nn, s, group, e->groups, dk_nn_at(nn, results, e->before * width), returned);
    dk_nn_copy_columns(nn, columns(nn, dst, e->column + first, s->cols),
                       columns(nn, results, 0, width), e->before, width);
    return back;
}

/* dst: this rank's rows of sequence i, all heads. */
static void attend(dk_nn *nn, const dk_nn_sequence *s, exchange *e, int i, void *dst)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor results = dk_nn_temp(nn, nn->type, block_rows(e), s->width);
    dk_tensor returned = dk_nn_temp(nn, nn->type, s->rows, s->cols - s->width);
    dk_nn_key_parts mine = {0};
    dk_nn_transfer returns[HEAD_GROUPS];
    void *places[HEAD_GROUPS];
    if (e->stays) {
        mine = begin_own(nn, s, e, i, dst);
        dk_nn_key_parts_add(nn, &mine, own(nn, s, e, DK_NN_K, i, 0),
                            own(nn, s, e, DK_NN_V, i, 0), s->cols, s->rows);
    } else {
        copy_own(nn, s, e, i);
    }
    dk_nn_finish(nn, &e->arrivals[DK_NN_V][i][0]);
    dk_nn_finish(nn, &e->arrivals[DK_NN_K][i][0]);
    int64_t awaited = 0;
    for (int g = 0; g < e->groups; g++) {
        int64_t first = heads_of_group(s, s->u, g, e->groups).begin * s->a->head_dim;
        places[g] = dk_nn_at(nn, returned.data, awaited);
        awaited += returning(s, g, e->groups);
        returns[g] = attend_and_send(
            nn, s, e, i, g, dk_nn_at(nn, results.data, block_rows(e) * first), places[g], dst);
    }
    if (e->stays) {
        dk_nn_key_parts_add(nn, &mine, e->blocks[DK_NN_K][i], e->blocks[DK_NN_V][i], s->width,
                            e->others);
    }
    for (int g = 0; g < e->groups; g++) {
        dk_nn_finish(nn, &returns[g]);
        spread(nn, s, g, e->groups, dst, places[g]);
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
