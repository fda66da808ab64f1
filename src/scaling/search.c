/* Every way to write the number of ranks as tp x ulysses x ring x cfg x dp. */
#include "scaling/search.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"

dk_status dk_layout_check(const dk_layout *l, const dk_geometry *geometry, dk_error *err)
{
    const char *name = geometry->shape.name;
    long long heads = geometry->shape.heads;
    if (l->tp < 1 || l->ulysses < 1 || l->ring < 1 || l->cfg < 1 || l->dp < 1) {
        return dk_fail(err, DK_INVALID, "degrees are at least 1");
    }
    if (dk_layout_replica_ranks(l) > DK_COMM_MOST_RANKS) {
        return dk_fail(err, DK_INVALID, "%d ranks in a replica, accepted are up to %d",
                       dk_layout_replica_ranks(l), (int)DK_COMM_MOST_RANKS);
    }
    if ((long long)l->tp * l->ulysses > heads) {
        return dk_fail(err, DK_INVALID,
                       "tp %d x ulysses %d, but %s has %lld heads to share out", l->tp,
                       l->ulysses, name, heads);
    }
    if (l->cfg > geometry->passes || l->cfg > 2) {
        return dk_fail(err, DK_INVALID, "cfg %d, but a step of %s has %d pass%s", l->cfg, name,
                       geometry->passes, geometry->passes == 1 ? "" : "es");
    }
    for (int i = 0; i < geometry->group_count; i++) {
        if (geometry->groups[i].rows < dk_layout_sp(l)) {
            return dk_fail(err, DK_INVALID, "sp %d, but the %s of %s have %lld rows",
                           dk_layout_sp(l), geometry->groups[i].name, name,
                           (long long)geometry->groups[i].rows);
        }
    }
    return DK_OK;
}

typedef struct found {
    dk_candidate *list; /* [count], room for `room` */
    int count, room;
} found;

static void add(found *f, const dk_candidate *candidate)
{
    if (f->count == f->room) {
        f->room = f->room > 0 ? 2 * f->room : 64;
        f->list = dk_realloc(f->list, (size_t)f->room * sizeof *f->list);
    }
    f->list[f->count++] = *candidate;
}

static int order_of(double a, double b)
{
    return (a > b) - (a < b);
}

/* What differs by less than the model can tell counts as equal: then it is the bytes that a
   rank sends. */
static double step_class(double seconds)
{
    static const double TELLS_APART = 0.02;
    return floor(log(seconds) / TELLS_APART);
}

static int order_of_steps(const dk_candidate *x, const dk_candidate *y)
{
    int order = order_of(step_class(x->cost.step_s), step_class(y->cost.step_s));
    if (order == 0) {
        order =
            order_of(dk_traffic_bytes(&x->cost.traffic), dk_traffic_bytes(&y->cost.traffic));
    }
    return order != 0 ? order : order_of(x->cost.step_s, y->cost.step_s);
}

static int by_seconds(const void *a, const void *b)
{
    const dk_candidate *x = a, *y = b;
    if (x->cost.fits != y->cost.fits) {
        return x->cost.fits ? -1 : 1;
    }
    int order = order_of_steps(x, y);
    return order != 0 ? order : order_of(y->throughput, x->throughput);
}

static int by_throughput(const void *a, const void *b)
{
    const dk_candidate *x = a, *y = b;
    if (x->cost.fits != y->cost.fits) {
        return x->cost.fits ? -1 : 1;
    }
    int order = order_of(step_class(y->throughput), step_class(x->throughput));
    return order != 0 ? order : order_of_steps(x, y);
}

/* What a layout costs, and what it costs with sharded weights when it does not fit: where ranks
   have the same ones, as sp and cfg ranks do. */
typedef struct trial {
    const dk_search *search;
    const dk_geometry *geometry;
    const dk_machine *machine;
    const dk_cost_options *options;
    double one_s; /* a step of one rank */
    found found;
} trial;

static void try_layout(trial *t, const dk_layout *layout)
{
    dk_cost_options options = *t->options;
    bool alike = dk_layout_sp(layout) * layout->cfg > 1;
    bool must_shard = options.traffic.sharded && dk_layout_replica_ranks(layout) > 1;
    if (dk_layout_check(layout, t->geometry, NULL) != DK_OK || (must_shard && !alike)) {
        return;
    }
    for (int sharded = must_shard; sharded < 2; sharded++) {
        options.traffic.sharded = sharded != 0;
        dk_candidate c = {.layout = *layout, .sharded = options.traffic.sharded};
        dk_cost_of(&c.cost, t->geometry, t->machine, layout, &options);
        c.throughput = layout->dp / c.cost.step_s;
        c.speedup = c.throughput * t->one_s;
        add(&t->found, &c);
        if (c.cost.fits || !t->search->may_shard || !alike) {
            return;
        }
    }
}

static dk_status nothing_found(const dk_search *search, const dk_geometry *geometry,
                               bool sharded, dk_error *err)
{
    if (search->dp > 0 && search->ranks % search->dp != 0) {
        return dk_fail(
            err, DK_INVALID,
            "dp_size is %d, which does not divide num_gpus, %d, accepted are divisors",
            search->dp, search->ranks);
    }
    int64_t rows = geometry->groups[0].rows;
    for (int i = 1; i < geometry->group_count; i++) {
        rows = geometry->groups[i].rows < rows ? geometry->groups[i].rows : rows;
    }
    return dk_fail(
        err, DK_INVALID,
        "no layout of %d ranks can work for %s: a replica has up to %d ranks, "
        "tp x ulysses is up to %lld (heads), ulysses x ring up to %lld (rows of a "
        "sequence), cfg up to %d (passes)%s; more ranks take more replicas (dp_size)",
        search->ranks, geometry->shape.name, (int)DK_COMM_MOST_RANKS,
        (long long)geometry->shape.heads, (long long)rows, geometry->passes,
        sharded ? ", and use_fsdp_inference takes sp or cfg from 2" : "");
}

dk_status dk_search_layouts(dk_candidate **out, int *count, const dk_search *search,
                            const dk_geometry *geometry, const dk_machine *machine,
                            const dk_cost_options *options, dk_error *err)
{
    trial t = {search, geometry, machine, options, 0, {0}};
    dk_cost one;
    dk_cost_options alone = *options;
    alone.traffic.sharded = false;
    dk_cost_of(&one, geometry, machine, &(const dk_layout){1, 1, 1, 1, 1}, &alone);
    t.one_s = one.step_s;
    for (int tp = 1; tp <= search->ranks; tp++) {
        for (int u = 1; tp * u <= search->ranks; u++) {
            for (int ring = 1; tp * u * ring <= search->ranks; ring++) {
                for (int cfg = 1; cfg <= geometry->passes && cfg <= 2; cfg++) {
                    int replica = tp * u * ring * cfg;
                    const dk_layout layout = {tp, u, ring, cfg, search->ranks / replica};
                    if (search->ranks % replica == 0 &&
                        (search->dp == 0 || layout.dp == search->dp)) {
                        try_layout(&t, &layout);
                    }
                }
            }
        }
    }
    if (t.found.count == 0) {
        return nothing_found(search, geometry, options->traffic.sharded, err);
    }
    qsort(t.found.list, (size_t)t.found.count, sizeof *t.found.list,
          search->by_throughput ? by_throughput : by_seconds);
    *out = t.found.list;
    *count = t.found.count;
    return DK_OK;
}
