/* Bytes, kind by kind. P: ranks of a group; an all_to_all sends what is not one's own, an
   all_gather one's part to P - 1 others, an all_reduce 2 (P - 1) / P of its data, as the best
   algorithms do (Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms", 2009). */
#include "scaling/traffic.h"

const char *const dk_traffic_names[DK_TRAFFIC_KINDS] = {"ulysses", "ring", "tp",   "norm",
                                                        "gather",  "cfg",  "shard"};

static int64_t rows_of(const dk_block_group *group, const dk_layout *layout, int ulysses,
                       int ring)
{
    return dk_part_size(group->rows, dk_layout_sp(layout), ulysses + layout->ulysses * ring);
}

static int64_t ring_rows_of(const dk_block_group *group, const dk_layout *layout, int ring)
{
    int64_t sum = 0;
    for (int u = 0; u < layout->ulysses; u++) {
        sum += rows_of(group, layout, u, ring);
    }
    return sum;
}

dk_share dk_share_of(const dk_block_group *group, const dk_geometry *geometry,
                     const dk_layout *layout, const dk_place *place)
{
    int64_t tp_heads = dk_part_size(geometry->shape.heads, layout->tp, place->tp);
    return (dk_share){.rows = rows_of(group, layout, place->ulysses, place->ring),
                      .ring_rows = ring_rows_of(group, layout, place->ring),
                      .heads = dk_part_size(tp_heads, layout->ulysses, place->ulysses),
                      .tp_heads = tp_heads};
}

/* Before attention a rank sends its rows of the others' heads, three tensors; behind it the
   others' rows of its heads. With equal parts: 4 S / P (1 - 1 / P) of a tensor of S bytes. */
static void add_ulysses(dk_traffic *t, const dk_share *s, double row_bytes, int head_groups)
{
    double others_heads = (double)(s->tp_heads - s->heads);
    double others_rows = (double)(s->ring_rows - s->rows);
    t->bytes[DK_TRAFFIC_ULYSSES] =
        row_bytes * (3 * (double)s->rows * others_heads + others_rows * (double)s->heads);
    t->calls[DK_TRAFFIC_ULYSSES] = 2 + 2 * head_groups;
}

/* In step i a rank passes on the keys and values that it got i steps ago. */
static void add_ring(dk_traffic *t, const dk_block_group *group, const dk_layout *layout,
                     const dk_place *place, const dk_share *s, double row_bytes, int calls)
{
    double rows = 0;
    for (int i = 0; i < layout->ring - 1; i++) {
        int from = (place->ring - i + layout->ring) % layout->ring;
        rows += (double)ring_rows_of(group, layout, from);
    }
    t->bytes[DK_TRAFFIC_RING] = 2 * rows * (double)s->heads * row_bytes;
    t->calls[DK_TRAFFIC_RING] = calls * (layout->ring - 1);
}

static double reduced(double bytes, int ranks)
{
    return 2 * bytes * (ranks - 1) / ranks;
}

void dk_traffic_of_block(dk_traffic *out, const dk_geometry *geometry, int group,
                         const dk_layout *layout, const dk_place *place,
                         const dk_traffic_options *options)
{
    const dk_block_group *g = &geometry->groups[group];
    const dk_share share = dk_share_of(g, geometry, layout, place);
    double head_bytes = (double)geometry->shape.head_dim * options->activation_bytes;
    int replica = dk_layout_replica_ranks(layout);
    *out = (dk_traffic){0};
    if (layout->ulysses > 1) {
        int returns = options->head_groups > 0 && layout->ring == 1 ? options->head_groups : 1;
        add_ulysses(out, &share, head_bytes, returns);
    }
    if (layout->ring > 1) {
        add_ring(out, g, layout, place, &share, head_bytes,
                 options->ring_calls > 0 ? options->ring_calls : 1);
    }
    if (layout->tp > 1) {
        double rows = (double)share.rows;
        double bytes = rows * (double)geometry->dim * options->activation_bytes * g->reductions;
        out->bytes[DK_TRAFFIC_TP] = reduced(bytes, layout->tp);
        out->calls[DK_TRAFFIC_TP] = g->reductions;
        out->bytes[DK_TRAFFIC_NORM] =
            reduced(rows * g->norm_values * (double)sizeof(float), layout->tp);
        out->calls[DK_TRAFFIC_NORM] = g->norm_calls;
    }
    if (options->sharded && replica > layout->tp) {
        /* A tp rank's slice of the block is spread over the ranks that hold the same slice. */
        int ranks = replica / layout->tp;
        double slice = g->weights * options->weight_bytes / layout->tp;
        out->bytes[DK_TRAFFIC_SHARD] = slice / ranks * (ranks - 1);
        out->calls[DK_TRAFFIC_SHARD] = 1;
    }
}

void dk_traffic_of_step(dk_traffic *out, const dk_geometry *geometry, const dk_layout *layout,
                        const dk_place *place, const dk_traffic_options *options)
{
    int passes = (geometry->passes + layout->cfg - 1) / layout->cfg;
    int sp = dk_layout_sp(layout);
    *out = (dk_traffic){0};
    for (int i = 0; i < geometry->group_count; i++) {
        dk_traffic block;
        dk_traffic_of_block(&block, geometry, i, layout, place, options);
        for (int k = 0; k < DK_TRAFFIC_KINDS; k++) {
            out->bytes[k] += passes * (double)geometry->groups[i].count * block.bytes[k];
            out->calls[k] += passes * (double)geometry->groups[i].count * block.calls[k];
        }
    }
    double latent = geometry->latent_values * (double)sizeof(float);
    if (sp > 1) {
        int index = place->ulysses + layout->ulysses * place->ring;
        double own = (double)dk_part_size(geometry->tokens, sp, index) *
                     (double)geometry->shape.token_values * (double)sizeof(float);
        out->bytes[DK_TRAFFIC_GATHER] = passes * (sp - 1) * own;
        out->calls[DK_TRAFFIC_GATHER] = passes;
    }
    if (layout->cfg > 1) {
        out->bytes[DK_TRAFFIC_CFG] = latent * (layout->cfg - 1);
        out->calls[DK_TRAFFIC_CFG] = layout->cfg;
    }
}

double dk_traffic_bytes(const dk_traffic *traffic)
{
    double sum = 0;
    for (int k = 0; k < DK_TRAFFIC_KINDS; k++) {
        sum += traffic->bytes[k];
    }
    return sum;
}
