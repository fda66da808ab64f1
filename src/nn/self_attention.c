/* Projection, exchange of rows for heads, attention over blocks that travel, and back. */
#include "nn/self_attention.h"

#include <assert.h>
#include <string.h>

#include "nn/parallel.h"

enum { Q, K, V, HEAD_GROUPS = 3, MOST_COUNT = 16 };

/* How one sequence lies: rows of this rank, of each Ulysses rank and of each ring block; heads
   of each Ulysses rank. */
typedef struct layout {
    const dk_nn_self_attention *a;
    dk_comm *ulysses, *ring; /* NULL: one rank */
    int u, us, r, rs;
    int64_t rows, cols;                   /* of this rank, all heads */
    int64_t block;                        /* rows of this rank's ring block */
    int64_t rows_of[DK_COMM_MOST_RANKS];  /* by Ulysses rank */
    int64_t block_of[DK_COMM_MOST_RANKS]; /* by ring rank */
    int heads_of[DK_COMM_MOST_RANKS];     /* by Ulysses rank */
    int heads;                            /* after the exchange */
    int64_t width;                        /* heads * head_dim */
} layout;

static layout layout_of(const dk_nn *nn, const dk_nn_self_attention *a)
{
    const dk_groups *g = nn->parallel->groups;
    layout l = {.a = a,
                .ulysses = g->ulysses,
                .ring = g->ring,
                .u = g->place.ulysses,
                .us = g->layout.ulysses,
                .r = g->place.ring,
                .rs = g->layout.ring,
                .cols = (int64_t)a->heads * a->head_dim};
    int parts = l.us * l.rs;
    for (int r = 0; r < l.rs; r++) {
        for (int u = 0; u < l.us; u++) {
            int64_t rows = dk_part_size(a->tokens, parts, u + l.us * r);
            l.block_of[r] += rows;
            l.rows_of[u] = r == l.r ? rows : l.rows_of[u];
        }
    }
    for (int u = 0; u < l.us; u++) {
        l.heads_of[u] = (int)dk_part_size(a->heads, l.us, u);
    }
    l.rows = l.rows_of[l.u];
    l.block = l.block_of[l.r];
    l.heads = l.heads_of[l.u];
    l.width = (int64_t)l.heads * a->head_dim;
    return l;
}

static size_t bytes_of(const dk_nn *nn, int64_t elements)
{
    return (size_t)elements * dk_dtype_bytes(nn->type);
}

static void *at(const dk_nn *nn, const dk_tensor *x, int64_t elements)
{
    return (char *)x->data + bytes_of(nn, elements);
}

/* Columns of a matrix to or from a dense one. */
static void copy_columns(dk_nn *nn, void *dst, int64_t dst_stride, const void *src,
                         int64_t src_stride, int64_t rows, int64_t cols)
{
    const dk_permute_args args = {.rank = 2,
                                  .shape = {rows, cols},
                                  .src_stride = {src_stride, 1},
                                  .dst_stride = {dst_stride, 1},
                                  .src = src,
                                  .src_type = nn->type,
                                  .dst = dst,
                                  .dst_type = nn->type};
    if (rows > 0 && cols > 0) {
        dk_device_permute(nn->device, &args);
    }
}

/* Heads of Ulysses rank u that are of a group; a rank's heads travel in groups, one behind the
   other. */
static dk_nn_part heads_of_group(const layout *l, int u, int group, int groups)
{
    return (dk_nn_part){dk_part_begin(l->heads_of[u], groups, group),
                        dk_part_size(l->heads_of[u], groups, group)};
}

/* The rows of sequence i of this rank's: to every Ulysses rank a group of its heads of them.
   packed: room for those of all, in the order of ranks; arrived: [block][this rank's heads of
   the group]. *used: elements of packed. */
static dk_nn_transfer send_heads(dk_nn *nn, const layout *l, const dk_tensor *x, int i,
                                 int group, int groups, void *packed, int64_t *used,
                                 void *arrived)
{
    size_t out[DK_COMM_MOST_RANKS], in[DK_COMM_MOST_RANKS];
    int64_t packed_at = 0, column = 0, dim = l->a->head_dim;
    int64_t mine = heads_of_group(l, l->u, group, groups).count * dim;
    for (int u = 0; u < l->us; u++) {
        dk_nn_part heads = heads_of_group(l, u, group, groups);
        int64_t width = heads.count * dim;
        copy_columns(nn, (char *)packed + bytes_of(nn, packed_at), width,
                     at(nn, x, i * l->rows * l->cols + column + heads.begin * dim), l->cols,
                     l->rows, width);
        out[u] = bytes_of(nn, l->rows * width);
        in[u] = bytes_of(nn, l->rows_of[u] * mine);
        packed_at += l->rows * width;
        column += l->heads_of[u] * dim;
    }
    *used = packed_at;
    return dk_nn_start_all_to_all(nn, l->ulysses, arrived, in, packed, out);
}

/* Norms and rotates all sequences' queries or keys. */
static void norm_rope(dk_nn *nn, const layout *l, int which, const dk_tensor *x)
{
    const dk_nn_self_attention *a = l->a;
    for (int i = 0; i < a->count && which != V; i++) {
        dk_tensor rows =
            DK_TENSOR(at(nn, x, i * l->rows * l->cols), nn->type, l->rows, l->cols);
        dk_nn_norm_rope(nn, &rows, a->heads, which == Q ? a->norm_q : a->norm_k, a->rope);
    }
}

static const dk_nn_linear *projection(const layout *l, int which)
{
    return which == Q ? l->a->to_q : which == K ? l->a->to_k : l->a->to_v;
}

/* What is attended to: this rank's ring block of all sequences, its heads. Keys and values of a
   sequence lie one behind the other, so that they travel together. */
typedef struct blocks {
    dk_tensor q;  /* [count], each by groups of heads: [groups][block][heads of the group] */
    dk_tensor kv; /* [count][2][block][width] */
    int groups;   /* in which queries arrive and results go back */
    dk_nn_transfer queries[MOST_COUNT][HEAD_GROUPS]; /* under way */
} blocks;

static void *kv_at(const dk_nn *nn, const layout *l, const blocks *b, int i, int which)
{
    return at(nn, &b->kv, (2 * i + (which == V)) * l->block * l->width);
}

static void *q_at(const dk_nn *nn, const layout *l, const blocks *b, int i, int group)
{
    int64_t first = dk_part_begin(l->heads, b->groups, group) * l->a->head_dim;
    return at(nn, &b->q, i * l->block * l->width + l->block * first);
}

static void send_queries(dk_nn *nn, const layout *l, blocks *b, const dk_tensor *x, int i,
                         char *packed)
{
    for (int g = 0; g < b->groups; g++) {
        int64_t used;
        b->queries[i][g] =
            send_heads(nn, l, x, i, g, b->groups, packed, &used, q_at(nn, l, b, i, g));
        packed += bytes_of(nn, used);
    }
}

/* Values first: they need neither norm nor rotation. Queries are under way at the end, their
   packed rows in the caller's scope. */
static void exchange(dk_nn *nn, const layout *l, blocks *b, const dk_tensor *h)
{
    static const int order[] = {V, K, Q};
    dk_nn_transfer transfers[2 * MOST_COUNT];
    int count = 0;
    assert(l->a->count <= MOST_COUNT);
    dk_tensor x = dk_nn_temp(nn, nn->type, h->shape[0], l->cols);
    for (int n = 0; n < 3; n++) {
        int which = order[n];
        dk_tensor packed = dk_nn_temp(nn, nn->type, h->shape[0], l->cols);
        dk_nn_linear_forward(nn, projection(l, which), &x, h, NULL);
        norm_rope(nn, l, which, &x);
        for (int i = 0; i < l->a->count; i++) {
            char *rows = at(nn, &packed, i * l->rows * l->cols);
            int64_t used;
            if (which == Q) {
                send_queries(nn, l, b, &x, i, rows);
            } else {
                transfers[count++] =
                    send_heads(nn, l, &x, i, 0, 1, rows, &used, kv_at(nn, l, b, i, which));
            }
        }
    }
    for (int i = 0; i < count; i++) {
        dk_nn_finish(nn, &transfers[i]);
    }
}

/* Without Ulysses ranks what is projected is a block already; what is done to a sequence's rows
   is done once. */
static void project_blocks(dk_nn *nn, const layout *l, const blocks *b, const dk_tensor *h)
{
    const dk_nn_self_attention *a = l->a;
    int64_t in = h->shape[1];
    size_t part = (size_t)(l->rows * in) * dk_dtype_bytes(h->dtype);
    for (int i = 0; i < a->count; i++) {
        void *places[] = {q_at(nn, l, b, i, 0), kv_at(nn, l, b, i, K), kv_at(nn, l, b, i, V)};
        dk_tensor rows = DK_TENSOR((char *)h->data + (size_t)i * part, h->dtype, l->rows, in);
        dk_tensor out[3];
        dk_nn_linear_call calls[3];
        for (int which = 0; which < 3; which++) {
            out[which] = DK_TENSOR(places[which], nn->type, l->rows, l->cols);
            calls[which] = (dk_nn_linear_call){projection(l, which), &out[which], NULL};
        }
        dk_nn_linear_group(nn, &rows, calls, 3);
        dk_nn_norm_rope(nn, &out[Q], a->heads, a->norm_q, a->rope);
        dk_nn_norm_rope(nn, &out[K], a->heads, a->norm_k, a->rope);
    }
}

/* Heads [first, first + heads) of this rank over one block of keys; q: dense, of those heads
   alone, and so is dst. */
static dk_attention_args attention_of(const dk_nn *nn, const layout *l, void *dst,
                                      const void *q, const void *k, const void *v, int64_t keys,
                                      int first, int heads)
{
    size_t skip = bytes_of(nn, (int64_t)first * l->a->head_dim);
    return (dk_attention_args){.heads = heads,
                               .head_dim = l->a->head_dim,
                               .q_len = l->block,
                               .kv_len = keys,
                               .q = q,
                               .k = (const char *)k + skip,
                               .v = (const char *)v + skip,
                               .type = nn->type,
                               .q_stride = (int64_t)heads * l->a->head_dim,
                               .k_stride = l->width,
                               .v_stride = l->width,
                               .dst_stride = (int64_t)heads * l->a->head_dim,
                               .scale = l->a->scale,
                               .dst = dst};
}

/* What blocks of keys that come one after the other are added up in. */
typedef struct ring_sum {
    void *dst;      /* [block][width]: the result, after the last one */
    dk_tensor sum;  /* [block][width], F32 */
    dk_tensor lse;  /* [2 * heads][block], F32: of the sum, of one block */
    dk_tensor part; /* [block][width]: of one block, where the device does not add by itself */
    int left;       /* blocks with keys that are to come */
    bool first;
} ring_sum;

static ring_sum begin_sum(dk_nn *nn, const layout *l, void *dst)
{
    ring_sum s = {.dst = dst,
                  .sum = dk_nn_temp(nn, DK_F32, l->block, l->width),
                  .lse = dk_nn_temp(nn, DK_F32, 2 * l->heads, l->block),
                  .first = true};
    if (!nn->device->adds_parts) {
        s.part = dk_nn_temp(nn, nn->type, l->block, l->width);
    }
    for (int r = 0; r < l->rs; r++) {
        s.left += l->block_of[r] > 0;
    }
    return s;
}

/* The attention to one more block. */
static void add_block(dk_nn *nn, const layout *l, ring_sum *s, dk_attention_args *attention)
{
    s->left--;
    attention->lse = s->lse.data;
    if (nn->device->adds_parts) {
        attention->sum = s->sum.data;
        attention->first = s->first;
        attention->last = s->left == 0;
        dk_device_attention(nn->device, attention);
    } else {
        float *part_lse = attention->lse + (int64_t)l->heads * l->block;
        const dk_attention_merge_args merge = {.heads = l->heads,
                                               .head_dim = l->a->head_dim,
                                               .rows = l->block,
                                               .sum = s->sum.data,
                                               .sum_lse = attention->lse,
                                               .part = s->part.data,
                                               .part_lse = part_lse,
                                               .type = nn->type,
                                               .first = s->first};
        attention->dst = s->part.data;
        attention->lse = part_lse;
        dk_device_attention(nn->device, attention);
        dk_device_merge(nn->device, &merge);
        if (s->left == 0) {
            dk_device_map(nn->device, s->dst, nn->type, s->sum.data, DK_F32, DK_ACT_NONE,
                          l->block * l->width);
        }
    }
    s->first = false;
}

/* Every block of keys and values comes by; dst: [block][width]. */
static void attend_ring(dk_nn *nn, const layout *l, void *dst, const blocks *b, int i)
{
    size_t mark = dk_nn_mark(nn);
    int64_t largest = 0;
    for (int r = 0; r < l->rs; r++) {
        largest = l->block_of[r] > largest ? l->block_of[r] : largest;
    }
    ring_sum sum = begin_sum(nn, l, dst);
    dk_tensor travel[2] = {dk_nn_temp(nn, nn->type, 2 * largest, l->width),
                           dk_nn_temp(nn, nn->type, 2 * largest, l->width)};
    const char *here = kv_at(nn, l, b, i, K);
    for (int step = 0; step < l->rs; step++) {
        int from = (l->r - step + l->rs) % l->rs, next = (from - 1 + l->rs) % l->rs;
        size_t bytes = bytes_of(nn, l->block_of[from] * l->width);
        size_t coming = bytes_of(nn, l->block_of[next] * l->width);
        void *into = travel[step % 2].data;
        dk_nn_transfer transfer = {0};
        if (step + 1 < l->rs) {
            transfer = dk_nn_start_shift(nn, l->ring, into, 2 * coming, here, 2 * bytes);
        }
        if (l->block_of[from] > 0 && l->block > 0 && l->heads > 0) {
            dk_attention_args attention =
                attention_of(nn, l, dst, q_at(nn, l, b, i, 0), here, here + bytes,
                             l->block_of[from], 0, l->heads);
            add_block(nn, l, &sum, &attention);
        }
        dk_nn_finish(nn, &transfer);
        here = into;
    }
    dk_nn_unwind(nn, mark);
}

/* Heads [first, first + mine) of results, [block][mine * head_dim], go back to where their rows
   are; arrived: those heads of every Ulysses rank, rank by rank, of this rank's rows. */
static dk_nn_transfer send_back(dk_nn *nn, const layout *l, int group, int groups,
                                const void *results, int mine, void *arrived)
{
    size_t out[DK_COMM_MOST_RANKS], in[DK_COMM_MOST_RANKS];
    for (int u = 0; u < l->us; u++) {
        int64_t theirs = dk_part_size(l->heads_of[u], groups, group) * l->a->head_dim;
        out[u] = bytes_of(nn, l->rows_of[u] * mine * l->a->head_dim);
        in[u] = bytes_of(nn, l->rows * theirs);
    }
    return dk_nn_start_all_to_all(nn, l->ulysses, arrived, in, results, out);
}

/* What arrived of a group of heads, into its columns of dst's rows. */
static void spread(dk_nn *nn, const layout *l, int group, int groups, char *dst,
                   const char *arrived)
{
    int64_t column = 0, taken = 0;
    for (int u = 0; u < l->us; u++) {
        int64_t heads = dk_part_size(l->heads_of[u], groups, group);
        int64_t width = heads * l->a->head_dim;
        int64_t first = dk_part_begin(l->heads_of[u], groups, group) * l->a->head_dim;
        copy_columns(nn, dst + bytes_of(nn, column + first), l->cols,
                     arrived + bytes_of(nn, taken), width, l->rows, width);
        column += (int64_t)l->heads_of[u] * l->a->head_dim;
        taken += l->rows * width;
    }
}

/* One sequence's attention with rows exchanged for heads: queries arrive, and results return,
   by groups of heads. */
static void attend_ulysses(dk_nn *nn, const layout *l, char *dst, blocks *b, int i)
{
    size_t mark = dk_nn_mark(nn);
    int groups = b->groups;
    dk_tensor results = dk_nn_temp(nn, nn->type, l->block, l->width);
    dk_tensor arrived = dk_nn_temp(nn, nn->type, l->rows, l->cols);
    dk_nn_transfer transfers[HEAD_GROUPS];
    char *result = results.data, *place = arrived.data;
    char *places[HEAD_GROUPS];
    for (int g = 0; g < groups; g++) {
        dk_nn_part heads = heads_of_group(l, l->u, g, groups);
        int64_t all = 0;
        for (int u = 0; u < l->us; u++) {
            all += heads_of_group(l, u, g, groups).count * l->a->head_dim;
        }
        dk_nn_finish(nn, &b->queries[i][g]);
        if (l->ring == NULL) {
            const dk_attention_args attention = attention_of(
                nn, l, result, q_at(nn, l, b, i, g), kv_at(nn, l, b, i, K),
                kv_at(nn, l, b, i, V), l->block, (int)heads.begin, (int)heads.count);
            if (l->block > 0 && heads.count > 0) {
                dk_device_attention(nn->device, &attention);
            }
        } else {
            attend_ring(nn, l, result, b, i);
        }
        transfers[g] = send_back(nn, l, g, groups, result, (int)heads.count, place);
        places[g] = place;
        result += bytes_of(nn, l->block * heads.count * l->a->head_dim);
        place += bytes_of(nn, l->rows * all);
    }
    for (int g = 0; g < groups; g++) {
        dk_nn_finish(nn, &transfers[g]);
        spread(nn, l, g, groups, dst, places[g]);
    }
    dk_nn_unwind(nn, mark);
}

static void forward_split(dk_nn *nn, const dk_nn_self_attention *a, const dk_tensor *dst,
                          const dk_tensor *h)
{
    const layout l = layout_of(nn, a);
    blocks b = {
        .q = dk_nn_temp(nn, nn->type, a->count * l.block, l.width),
        .kv = dk_nn_temp(nn, nn->type, 2 * a->count * l.block, l.width),
        .groups = l.ulysses != NULL && l.ring == NULL ? HEAD_GROUPS : 1,
    };
    if (l.ulysses != NULL) {
        exchange(nn, &l, &b, h);
    } else {
        project_blocks(nn, &l, &b, h);
    }
    for (int i = 0; i < a->count; i++) {
        char *rows = at(nn, dst, i * l.rows * l.cols);
        if (l.ulysses != NULL) {
            attend_ulysses(nn, &l, rows, &b, i);
        } else {
            attend_ring(nn, &l, rows, &b, i);
        }
    }
}

/* All on this rank: what is done to h is done once for the three projections. */
static void forward_whole(dk_nn *nn, const dk_nn_self_attention *a, const dk_tensor *dst,
                          const dk_tensor *h)
{
    int64_t rows = h->shape[0], cols = (int64_t)a->heads * a->head_dim;
    dk_tensor q = dk_nn_temp(nn, nn->type, rows, cols);
    dk_tensor k = dk_nn_temp(nn, nn->type, rows, cols);
    dk_tensor v = dk_nn_temp(nn, nn->type, rows, cols);
    const dk_nn_linear_call qkv[] = {
        {a->to_q, &q, NULL}, {a->to_k, &k, NULL}, {a->to_v, &v, NULL}};
    dk_nn_linear_group(nn, h, qkv, 3);
    for (int i = 0; i < a->count; i++) {
        int64_t first = i * a->tokens * cols;
        dk_tensor qi = DK_TENSOR(at(nn, &q, first), nn->type, a->tokens, cols);
        dk_tensor ki = DK_TENSOR(at(nn, &k, first), nn->type, a->tokens, cols);
        dk_tensor vi = DK_TENSOR(at(nn, &v, first), nn->type, a->tokens, cols);
        dk_tensor out = DK_TENSOR(at(nn, dst, first), nn->type, a->tokens, cols);
        dk_nn_norm_rope(nn, &qi, a->heads, a->norm_q, a->rope);
        dk_nn_norm_rope(nn, &ki, a->heads, a->norm_k, a->rope);
        dk_nn_attention(nn, &out, &qi, &ki, &vi, a->heads, a->scale, NULL);
    }
}

void dk_nn_self_attention_forward(dk_nn *nn, const dk_nn_self_attention *a,
                                  const dk_tensor *dst, const dk_tensor *h)
{
    size_t mark = dk_nn_mark(nn);
    if (nn->parallel != NULL && dk_layout_sp(&nn->parallel->groups->layout) > 1) {
        forward_split(nn, a, dst, h);
    } else {
        forward_whole(nn, a, dst, h);
    }
    dk_nn_unwind(nn, mark);
}
