/* Where the seconds of a step go. Computing: operations over what the device sustains, and the
   traffic between them over the memory's bandwidth, for the rank with the most rows and heads.
   Calls: bytes over bandwidth, and a fixed cost each; of that, what cannot hide is exposed. */
#include "scaling/cost.h"

#include <math.h>

const char *const dk_cost_limit_names[DK_LIMIT_COUNT] = {"compute", "ulysses", "ring",
                                                         "tp",      "step",    "weights"};

/* Queries come and outputs return by groups of heads, while others attend
   (nn/ulysses_attention.c). */
enum { HEAD_GROUPS = 3 };

dk_cost_options dk_cost_options_usual(void)
{
    return (dk_cost_options){
        .traffic = {.activation_bytes = 2, .weight_bytes = 2, .head_groups = HEAD_GROUPS},
        .pipelined = true,
        .vae_split = true,
    };
}

/* What the formulas share. */
typedef struct costing {
    const dk_geometry *geometry;
    const dk_machine *machine;
    const dk_layout *layout;
    const dk_cost_options *options;
    int ranks_per_host;
    dk_cost *cost;
} costing;

/* Seconds of one block on the first rank. */
typedef struct block_times {
    double projection; /* of one of q, k, v */
    double attention;  /* self-attention */
    double compute;    /* everything */
} block_times;

static block_times times_of(const costing *c, const dk_block_group *g, const dk_share *s)
{
    const dk_geometry *geometry = c->geometry;
    double dim = (double)geometry->dim, rows = (double)s->rows;
    double head_dim = (double)geometry->shape.head_dim;
    double share = (double)s->tp_heads / (double)geometry->shape.heads;
    double linear = c->machine->linear_tflops * 1e12;
    double attention = c->machine->attention_tflops * 1e12;
    double self = 4 * (double)s->ring_rows * (double)g->rows * head_dim * (double)s->heads;
    double cross = 4 * rows * (double)g->cross_rows * head_dim * (double)s->tp_heads;
    block_times t = {.projection = 2 * rows * dim * dim * share / linear,
                     .attention = self / attention};
    /* Norms and residuals are not split by tp. */
    t.compute = 2 * rows * g->row_weights * share / linear + t.attention + cross / attention +
                rows * g->row_bytes / (c->machine->memory_gbps * 1e9);
    return t;
}

/* Values and keys leave while the next is projected, queries by groups of heads behind them.
   Meanwhile a rank's own rows, a share of all, attend to their own keys; then the rest attends
   group by group, as queries arrive, and outputs leave under the next group; last, the own rows
   to the others' keys. What computing waits for is exposed. whole: a tensor in one call;
   parted: in one per group. */
static double ulysses_exposed(const block_times *t, double share, double whole, double parted,
                              int groups)
{
    double projected = 3 * t->projection;
    double link = fmax(t->projection + whole, 2 * t->projection) + whole; /* values, keys */
    double queries = fmax(link, projected);
    double computing = projected + share * share * t->attention;
    link = queries + parted;
    for (int i = 1; i <= groups; i++) {
        computing = fmax(computing, queries + i * parted / groups);
        computing += (1 - share) * t->attention / groups;
        link = fmax(link, computing) + parted / groups;
    }
    computing += share * (1 - share) * t->attention;
    return fmax(link, computing) - projected - t->attention;
}

/* Whether own rows stay where they are (nn/ulysses_attention.c), which they do not in f32. */
static bool own_rows_stay(const costing *c)
{
    return c->machine->adds_parts && c->options->pipelined && c->layout->ring == 1 &&
           c->options->traffic.activation_bytes < 4;
}

/* Each of the four tensors is sorted by rank beside, once read and once written; where own rows
   stay, only what leaves or returns, and own keys and values. */
static void add_ulysses(const costing *c, const dk_share *s, const block_times *t,
                        const dk_traffic *block, double blocks)
{
    const dk_layout *l = c->layout;
    int groups = (int)block->calls[DK_TRAFFIC_ULYSSES] / 2 - 1;
    bool stays = own_rows_stay(c);
    double call = dk_cost_all_to_all_s(c->machine, 0, l->ulysses, l->tp, c->ranks_per_host);
    double bytes = block->bytes[DK_TRAFFIC_ULYSSES] / 4;
    double tensor =
        dk_cost_all_to_all_s(c->machine, bytes, l->ulysses, l->tp, c->ranks_per_host);
    double parted = tensor + (groups - 1) * call;
    double all = 2 * (tensor + parted);
    int64_t heads = stays ? 4 * (s->tp_heads - s->heads) + 2 * s->heads : 4 * s->tp_heads;
    double values = (double)(s->rows * heads * c->geometry->shape.head_dim);
    double sorted =
        2 * values * c->options->traffic.activation_bytes / (c->machine->memory_gbps * 1e9);
    double share = stays ? (double)s->rows / (double)s->ring_rows : 0;
    double exposed =
        c->options->pipelined ? ulysses_exposed(t, share, tensor, parted, groups) : all;
    c->cost->communication_s += blocks * all;
    c->cost->exposed[DK_LIMIT_ULYSSES] += blocks * (exposed + sorted);
}

/* A shift travels under the attention to the block that is there; where calls block their
   caller, only the bytes do. Partial results are merged in f32, read twice and written once,
   but where attention adds parts up. */
static void add_ring(const costing *c, const dk_share *s, const block_times *t,
                     const dk_traffic *block, double blocks)
{
    const dk_layout *l = c->layout;
    int shifts = l->ring - 1, stride = l->tp * l->ulysses;
    double call = dk_cost_ring_s(c->machine, 0, l->ring, stride, c->ranks_per_host);
    double bytes = block->bytes[DK_TRAFFIC_RING] / shifts;
    double wire = dk_cost_ring_s(c->machine, bytes, l->ring, stride, c->ranks_per_host) - call;
    double calls = block->calls[DK_TRAFFIC_RING] / shifts * call;
    double under = t->attention / l->ring;
    double values =
        (double)s->ring_rows * (double)s->heads * (double)c->geometry->shape.head_dim;
    double merge = 3 * values * (double)sizeof(float) / (c->machine->memory_gbps * 1e9);
    merge = c->machine->adds_parts ? 0 : merge;
    double left =
        c->options->pipelined ? fmax(0, wire + calls - under) : fmax(0, wire - under) + calls;
    c->cost->communication_s += blocks * shifts * (wire + calls);
    c->cost->exposed[DK_LIMIT_RING] += blocks * (shifts * left + l->ring * merge);
}

static void add_tp(const costing *c, const dk_traffic *block, double blocks)
{
    const dk_layout *l = c->layout;
    double call = dk_cost_ring_s(c->machine, 0, l->tp, 1, c->ranks_per_host);
    double bytes = block->bytes[DK_TRAFFIC_TP] + block->bytes[DK_TRAFFIC_NORM];
    double calls = block->calls[DK_TRAFFIC_TP] + block->calls[DK_TRAFFIC_NORM];
    double seconds =
        dk_cost_ring_s(c->machine, bytes, l->tp, 1, c->ranks_per_host) + (calls - 1) * call;
    c->cost->communication_s += blocks * seconds;
    c->cost->exposed[DK_LIMIT_TP] += blocks * seconds;
}

/* The next block's weights arrive while this one computes. */
static void add_weights(const costing *c, const dk_block_group *g, const block_times *t,
                        const dk_traffic *block, double blocks)
{
    const dk_layout *l = c->layout;
    double seconds = 0;
    if (block->calls[DK_TRAFFIC_SHARD] > 0) {
        int ranks = dk_layout_replica_ranks(l) / l->tp;
        seconds = dk_cost_all_to_all_s(c->machine, block->bytes[DK_TRAFFIC_SHARD], ranks, l->tp,
                                       c->ranks_per_host);
        c->cost->communication_s += blocks * seconds;
    }
    if (c->options->streamed) {
        double bytes = g->weights * c->options->traffic.weight_bytes / l->tp;
        seconds += bytes / (c->machine->upload_gbps * 1e9);
    }
    c->cost->exposed[DK_LIMIT_WEIGHTS] += blocks * fmax(0, seconds - t->compute);
}

static void add_group(const costing *c, int group, const dk_place *place, int passes)
{
    const dk_block_group *g = &c->geometry->groups[group];
    const dk_share share = dk_share_of(g, c->geometry, c->layout, place);
    const block_times t = times_of(c, g, &share);
    double blocks = passes * (double)g->count;
    dk_traffic block;
    dk_traffic_of_block(&block, c->geometry, group, c->layout, place, &c->options->traffic);
    c->cost->compute_s += blocks * t.compute;
    if (c->layout->ulysses > 1) {
        add_ulysses(c, &share, &t, &block, blocks);
    }
    if (c->layout->ring > 1) {
        add_ring(c, &share, &t, &block, blocks);
    }
    if (c->layout->tp > 1) {
        add_tp(c, &block, blocks);
    }
    add_weights(c, g, &t, &block, blocks);
}

/* Latents are put together, then both branches are exchanged; nothing hides that. */
static void add_step_end(const costing *c)
{
    const dk_layout *l = c->layout;
    const dk_traffic *t = &c->cost->traffic;
    int sp = dk_layout_sp(l);
    double seconds = 0;
    if (sp > 1) {
        double calls = t->calls[DK_TRAFFIC_GATHER];
        seconds += calls * dk_cost_all_to_all_s(c->machine, t->bytes[DK_TRAFFIC_GATHER] / calls,
                                                sp, l->tp, c->ranks_per_host);
    }
    if (l->cfg > 1) {
        seconds += dk_cost_all_to_all_s(c->machine, t->bytes[DK_TRAFFIC_CFG], l->cfg,
                                        l->tp * sp, c->ranks_per_host);
    }
    c->cost->communication_s += seconds;
    c->cost->exposed[DK_LIMIT_STEP] = seconds;
}

/* Bytes of a rank. Activations live together in a block: the residual stream (f32), its norm,
   q, k, v and the attention's output, and the feed-forward's width; Ulysses adds what leaves
   and what arrives, and f32 sums or a ring's block; ring two blocks of keys and values, a part
   and an f32 sum. */
static void add_memory(const costing *c, const dk_place *place)
{
    const dk_geometry *g = c->geometry;
    const dk_layout *l = c->layout;
    const dk_cost_options *o = c->options;
    double element = o->traffic.activation_bytes, dim = (double)g->dim, most = 0, largest = 0;
    for (int i = 0; i < g->group_count; i++) {
        const dk_share s = dk_share_of(&g->groups[i], g, l, place);
        double rows = (double)s.rows, heads = (double)s.tp_heads / (double)g->shape.heads;
        double values = rows * dim * (4 + element) + rows * dim * heads * 4 * element +
                        2 * rows * (double)g->shape.ffn_dim * heads * element;
        double own = (double)s.heads / (double)s.tp_heads,
               tensor = rows * dim * heads * element;
        if (l->ulysses > 1 && own_rows_stay(c)) {
            values += tensor * 6 * (1 - own) + rows * dim * heads * 4 * own;
        } else if (l->ulysses > 1) {
            values += tensor * (4 + 4 * (1 - own));
        }
        values += l->ring > 1 ? rows * dim * heads * (5 * element + 4) : 0;
        most = fmax(most, values);
        largest = fmax(largest, g->groups[i].weights);
    }
    int held = o->traffic.sharded ? dk_layout_replica_ranks(l) : l->tp;
    double weights = g->weights * g->shape.experts * o->traffic.weight_bytes;
    dk_cost_memory *m = &c->cost->memory;
    m->weights = weights / held;
    if (o->traffic.sharded) {
        m->weights += 2 * largest * o->traffic.weight_bytes / l->tp;
    }
    if (o->streamed) {
        m->weights = 2 * largest * o->traffic.weight_bytes / l->tp;
    }
    m->activations = most;
    int split = o->vae_split ? dk_layout_replica_ranks(l) : 1;
    m->vae = g->shape.vae_weights * o->traffic.weight_bytes + g->vae_bytes / split;
    m->text = o->text_elsewhere ? 0 : g->shape.text_weights * o->traffic.weight_bytes;
}

void dk_cost_of(dk_cost *out, const dk_geometry *geometry, const dk_machine *machine,
                const dk_layout *layout, const dk_cost_options *options)
{
    const dk_place first = {0};
    int passes = (geometry->passes + layout->cfg - 1) / layout->cfg;
    int replica = dk_layout_replica_ranks(layout);
    int per_host =
        options->ranks_per_host > 0 ? options->ranks_per_host : machine->ranks_per_host;
    int ranks = replica * layout->dp;
    const costing c = {geometry, machine, layout, options, ranks < per_host ? ranks : per_host,
                       out};
    *out = (dk_cost){0};
    dk_traffic_of_step(&out->traffic, geometry, layout, &first, &options->traffic);
    for (int i = 0; i < geometry->group_count; i++) {
        add_group(&c, i, &first, passes);
    }
    add_step_end(&c);
    out->exposed[DK_LIMIT_COMPUTE] = out->compute_s;
    for (int i = 0; i < DK_LIMIT_COUNT; i++) {
        out->step_s += out->exposed[i];
        if (out->exposed[i] > out->exposed[out->limit]) {
            out->limit = (dk_cost_limit)i;
        }
    }
    double text = geometry->shape.text_flops * geometry->passes;
    out->around_s = text / (machine->linear_tflops * 1e12) +
                    geometry->vae_flops / (options->vae_split ? replica : 1) /
                        (machine->conv_tflops * 1e12);
    add_memory(&c, &first);
    out->fits = dk_cost_memory_bytes(&out->memory) <= machine->memory_gb * 1e9;
}

double dk_cost_memory_bytes(const dk_cost_memory *memory)
{
    return memory->weights + memory->activations + memory->vae + memory->text;
}

double dk_cost_generation_s(const dk_cost *cost, int steps)
{
    return steps * cost->step_s + cost->around_s;
}
