/* Rows are exchanged for heads and, behind attention, back.

   A rank's own rows do not travel: its own queries attend to its own keys while the others'
   rows arrive, and to the others' keys while the others' results return. Neither exchange is
   waited for as long as no rank is behind the others by more than that. In between, the others'
   queries attend group by group of heads, and each group's results leave under the next. */
#include <assert.h>

#include "nn/key_parts.h"
#include "nn/sequence.h"

enum { HEAD_GROUPS = 3, MOST_COUNT = 16 };

/* Of all sequences, by DK_NN_Q, DK_NN_K, DK_NN_V. */
typedef struct exchange {
    int64_t others;              /* rows of a sequence's block that are the other ranks' */
    int64_t column;              /* of rows of all heads: where this rank's begin */
    dk_tensor mine[3];           /* [count][rows][cols] */
    void *theirs[3][MOST_COUNT]; /* [others][width], rank by rank */
    void *blocks[3][MOST_COUNT]; /* where a ring follows: this rank's rows before theirs */
    dk_nn_transfer arrivals[3][MOST_COUNT];
} exchange;

/* Heads of Ulysses rank u that are of a group. */
static dk_nn_part heads_of_group(const dk_nn_sequence *l, int u, int group, int groups)
{
    return (dk_nn_part){dk_part_begin(l->heads_of[u], groups, group),
                        dk_part_size(l->heads_of[u], groups, group)};
}

static dk_nn_columns columns(const dk_nn *nn, void *base, int64_t first, int64_t stride)
{
    return (dk_nn_columns){dk_nn_at(nn, base, first), stride, nn->type};
}

/* Where arrives what; keys and values of a ring's block lie one behind the other, so that they
   travel together. */
static void make_room(dk_nn *nn, const dk_nn_sequence *l, exchange *e)
{
    int count = l->a->count;
    int64_t part = (l->ring != NULL ? l->block : e->others) * l->width;
    int64_t skip = l->ring != NULL ? l->rows * l->width : 0;
    dk_tensor q = dk_nn_temp(nn, nn->type, count, part);
    dk_tensor kv = dk_nn_temp(nn, nn->type, 2 * count, part);
    for (int i = 0; i < count; i++) {
        e->blocks[DK_NN_Q][i] = dk_nn_at(nn, q.data, i * part);
        e->blocks[DK_NN_K][i] = dk_nn_at(nn, kv.data, 2 * i * part);
        e->blocks[DK_NN_V][i] = dk_nn_at(nn, kv.data, (2 * i + 1) * part);
        for (int which = 0; which < 3; which++) {
            e->theirs[which][i] = dk_nn_at(nn, e->blocks[which][i], skip);
        }
    }
}

/* This rank's rows of a sequence, [rows][cols]: to every other rank its heads of them. packed:
   room for those, in the order of ranks. */
static dk_nn_transfer send_heads(dk_nn *nn, const dk_nn_sequence *l, void *rows, void *packed,
                                 void *theirs)
{
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    int64_t used = 0, column = 0;
    for (int u = 0; u < l->us; u++) {
        int64_t width = (int64_t)l->heads_of[u] * l->a->head_dim;
        if (u != l->u) {
            dk_nn_copy_columns(nn, columns(nn, packed, used, width),
                               columns(nn, rows, column, l->cols), l->rows, width);
            out[u] = dk_nn_bytes(nn, l->rows * width);
            in[u] = dk_nn_bytes(nn, l->rows_of[u] * l->width);
            used += l->rows * width;
        }
        column += width;
    }
    return dk_nn_start_all_to_all(nn, l->ulysses, theirs, in, packed, out);
}

/* Values first: they need neither norm nor rotation. All are under way at the end, their packed
   rows in the caller's scope. */
static void begin_exchange(dk_nn *nn, const dk_nn_sequence *l, exchange *e, const dk_tensor *h)
{
    static const int order[] = {DK_NN_V, DK_NN_K, DK_NN_Q};
    int64_t count = l->a->count, away = l->rows * (l->cols - l->width);
    assert(count <= MOST_COUNT);
    *e = (exchange){.others = l->block - l->rows};
    for (int u = 0; u < l->u; u++) {
        e->column += (int64_t)l->heads_of[u] * l->a->head_dim;
    }
    make_room(nn, l, e);
    for (int n = 0; n < 3; n++) {
        int which = order[n];
        dk_tensor x = dk_nn_temp(nn, nn->type, h->shape[0], l->cols);
        dk_tensor packed = dk_nn_temp(nn, nn->type, count, away);
        dk_nn_linear_forward(nn, dk_nn_projection(l->a, which), &x, h, NULL);
        for (int i = 0; i < count; i++) {
            void *rows = dk_nn_at(nn, x.data, i * l->rows * l->cols);
            dk_nn_prepare_rows(nn, l, which, rows);
            e->arrivals[which][i] = send_heads(nn, l, rows, dk_nn_at(nn, packed.data, i * away),
                                               e->theirs[which][i]);
        }
        e->mine[which] = x;
    }
}

static void finish_arrivals(dk_nn *nn, exchange *e, int i)
{
    dk_nn_finish(nn, &e->arrivals[DK_NN_V][i]);
    dk_nn_finish(nn, &e->arrivals[DK_NN_K][i]);
    dk_nn_finish(nn, &e->arrivals[DK_NN_Q][i]);
}

/* This rank's rows of sequence i, and of them its heads from one on. */
static void *own(const dk_nn *nn, const dk_nn_sequence *l, const exchange *e, int which, int i,
                 int64_t head)
{
    return dk_nn_at(nn, e->mine[which].data,
                    i * l->rows * l->cols + e->column + head * l->a->head_dim);
}

/* A group of this rank's heads of the others' rows, dense, goes back to where the rows are;
   returned: those heads of every other rank, rank by rank, of this rank's rows. */
static dk_nn_transfer send_back(dk_nn *nn, const dk_nn_sequence *l, int group, int groups,
                                const void *results, void *returned)
{
    size_t out[DK_COMM_MOST_RANKS] = {0}, in[DK_COMM_MOST_RANKS] = {0};
    int64_t mine = heads_of_group(l, l->u, group, groups).count;
    for (int u = 0; u < l->us; u++) {
        int64_t theirs = heads_of_group(l, u, group, groups).count;
        if (u != l->u) {
            out[u] = dk_nn_bytes(nn, l->rows_of[u] * mine * l->a->head_dim);
            in[u] = dk_nn_bytes(nn, l->rows * theirs * l->a->head_dim);
        }
    }
    return dk_nn_start_all_to_all(nn, l->ulysses, returned, in, results, out);
}

/* What returned of a group of heads, into its columns of dst's rows. */
static void spread(dk_nn *nn, const dk_nn_sequence *l, int group, int groups, void *dst,
                   void *returned)
{
    int64_t column = 0, taken = 0, dim = l->a->head_dim;
    for (int u = 0; u < l->us; u++) {
        dk_nn_part heads = heads_of_group(l, u, group, groups);
        if (u != l->u) {
            dk_nn_copy_columns(nn, columns(nn, dst, column + heads.begin * dim, l->cols),
                               columns(nn, returned, taken, heads.count * dim), l->rows,
                               heads.count * dim);
            taken += l->rows * heads.count * dim;
        }
        column += (int64_t)l->heads_of[u] * dim;
    }
}

/* A group of heads of the others' queries, to all keys of sequence i; results: [others][heads
   of the group]. */
static void attend_group(dk_nn *nn, const dk_nn_sequence *l, const exchange *e, int i,
                         dk_nn_part heads, void *results)
{
    size_t mark = dk_nn_mark(nn);
    int64_t first = heads.begin * l->a->head_dim;
    const dk_attention_args queries = {.heads = (int)heads.count,
                                       .head_dim = l->a->head_dim,
                                       .q_len = e->others,
                                       .q = dk_nn_at(nn, e->theirs[DK_NN_Q][i], first),
                                       .type = nn->type,
                                       .q_stride = l->width,
                                       .dst = results,
                                       .dst_stride = heads.count * l->a->head_dim,
                                       .scale = l->a->scale};
    int parts = (l->rows > 0) + (e->others > 0);
    dk_nn_key_parts theirs = dk_nn_key_parts_begin(nn, &queries, parts);
    dk_nn_key_parts_add(nn, &theirs, own(nn, l, e, DK_NN_K, i, heads.begin),
                        own(nn, l, e, DK_NN_V, i, heads.begin), l->cols, l->rows);
    dk_nn_key_parts_add(nn, &theirs, dk_nn_at(nn, e->theirs[DK_NN_K][i], first),
                        dk_nn_at(nn, e->theirs[DK_NN_V][i], first), l->width, e->others);
    dk_nn_unwind(nn, mark);
}

/* dst: this rank's rows of sequence i, all heads. */
static void attend(dk_nn *nn, const dk_nn_sequence *l, exchange *e, int i, void *dst)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor results = dk_nn_temp(nn, nn->type, e->others, l->width);
    dk_tensor returned = dk_nn_temp(nn, nn->type, l->rows, l->cols - l->width);
    dk_nn_transfer returns[HEAD_GROUPS];
    void *places[HEAD_GROUPS];
    const dk_attention_args queries = {.heads = l->heads,
                                       .head_dim = l->a->head_dim,
                                       .q_len = l->rows,
                                       .q = own(nn, l, e, DK_NN_Q, i, 0),
                                       .type = nn->type,
                                       .q_stride = l->cols,
                                       .dst = dk_nn_at(nn, dst, e->column),
                                       .dst_stride = l->cols,
                                       .scale = l->a->scale};
    int parts = (l->rows > 0) + (e->others > 0);
    dk_nn_key_parts mine = dk_nn_key_parts_begin(nn, &queries, parts);
    dk_nn_key_parts_add(nn, &mine, own(nn, l, e, DK_NN_K, i, 0), own(nn, l, e, DK_NN_V, i, 0),
                        l->cols, l->rows);
    finish_arrivals(nn, e, i);
    int64_t made = 0, awaited = 0;
    for (int g = 0; g < HEAD_GROUPS; g++) {
        dk_nn_part heads = heads_of_group(l, l->u, g, HEAD_GROUPS);
        void *result = dk_nn_at(nn, results.data, made);
        places[g] = dk_nn_at(nn, returned.data, awaited);
        attend_group(nn, l, e, i, heads, result);
        returns[g] = send_back(nn, l, g, HEAD_GROUPS, result, places[g]);
        made += e->others * heads.count * l->a->head_dim;
        for (int u = 0; u < l->us; u++) {
            int64_t theirs = heads_of_group(l, u, g, HEAD_GROUPS).count;
            awaited += u != l->u ? l->rows * theirs * l->a->head_dim : 0;
        }
    }
    dk_nn_key_parts_add(nn, &mine, e->theirs[DK_NN_K][i], e->theirs[DK_NN_V][i], l->width,
                        e->others);
    for (int g = 0; g < HEAD_GROUPS; g++) {
        dk_nn_finish(nn, &returns[g]);
        spread(nn, l, g, HEAD_GROUPS, dst, places[g]);
    }
    dk_nn_unwind(nn, mark);
}

/* With a ring behind the exchange: its block has this rank's rows first, in keys and in
   results. */
static void attend_by_ring(dk_nn *nn, const dk_nn_sequence *l, exchange *e, int i, void *dst)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor results = dk_nn_temp(nn, nn->type, l->block, l->width);
    dk_tensor returned = dk_nn_temp(nn, nn->type, l->rows, l->cols - l->width);
    for (int which = 0; which < 3; which++) {
        dk_nn_copy_columns(nn, columns(nn, e->blocks[which][i], 0, l->width),
                           columns(nn, own(nn, l, e, which, i, 0), 0, l->cols), l->rows,
                           l->width);
    }
    finish_arrivals(nn, e, i);
    dk_nn_attend_ring(nn, l, results.data, e->blocks[DK_NN_Q][i], e->blocks[DK_NN_K][i]);
    void *theirs = dk_nn_at(nn, results.data, l->rows * l->width);
    dk_nn_transfer back = send_back(nn, l, 0, 1, theirs, returned.data);
    dk_nn_copy_columns(nn, columns(nn, dst, e->column, l->cols),
                       columns(nn, results.data, 0, l->width), l->rows, l->width);
    dk_nn_finish(nn, &back);
    spread(nn, l, 0, 1, dst, returned.data);
    dk_nn_unwind(nn, mark);
}

void dk_nn_ulysses_forward(dk_nn *nn, const dk_nn_sequence *l, const dk_tensor *dst,
                           const dk_tensor *h)
{
    exchange e;
    begin_exchange(nn, l, &e, h);
    for (int i = 0; i < l->a->count; i++) {
        void *rows = dk_nn_at(nn, dst->data, i * l->rows * l->cols);
        if (l->ring != NULL) {
            attend_by_ring(nn, l, &e, i, rows);
        } else {
            attend(nn, l, &e, i, rows);
        }
    }
}
