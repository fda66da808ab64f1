/* Layouts: from the user's flags, and drawn. */
#include "comm/groups.h"

enum { MOST_LISTED = 12 };

static int given(int value, int otherwise)
{
    return value > 0 ? value : otherwise;
}

/* How many of the user's flags a layout does not keep; cfg is not counted. */
static int flags_broken(const dk_layout *l, const dk_layout_request *r)
{
    return (r->dp_size != 0 && r->dp_size != l->dp) +
           (r->sp_degree != 0 && r->sp_degree != dk_layout_sp(l)) +
           (r->ulysses_degree != 0 && r->ulysses_degree != l->ulysses) +
           (r->ring_degree != 0 && r->ring_degree != l->ring) +
           (r->tp_size != 0 && r->tp_size != l->tp);
}

static void list_layout(dk_string *out, const dk_layout *l, bool one_replica)
{
    dk_string_puts(out, out->length > 0 ? "; " : "");
    if (!one_replica) {
        dk_string_printf(out, "--dp-size %d ", l->dp);
    }
    dk_string_puts(out, l->cfg == 2 ? "--enable-cfg-parallel " : "");
    dk_string_printf(out, "--ulysses-degree %d --ring-degree %d --tp-size %d", l->ulysses,
                     l->ring, l->tp);
}

/* Every layout of num_gpus ranks that breaks so many of the user's flags at most. */
static void list_breaking(dk_string *out, const dk_layout_request *asked, int cfg, int broken)
{
    int n = asked->num_gpus, listed = 0;
    for (int tp = 1; tp <= n; tp++) {
        for (int u = 1; tp * u <= n; u++) {
            for (int ring = 1; tp * u * ring * cfg <= n; ring++) {
                int replica = tp * u * ring * cfg;
                const dk_layout l = {tp, u, ring, cfg, n / replica};
                if (replica * l.dp == n && (l.dp == 1 || !asked->one_replica) &&
                    flags_broken(&l, asked) <= broken && listed < MOST_LISTED) {
                    list_layout(out, &l, asked->one_replica);
                    listed++;
                }
            }
        }
    }
}

/* As near to the user's flags as can be. Branches of guidance are kept apart where that was
   asked for, and else are not, unless nothing near does without. */
static void list_legal(dk_string *out, const dk_layout_request *asked)
{
    enum { FLAGS = 5, NEAR = 1 };
    for (int broken = 0; broken <= FLAGS && out->length == 0; broken++) {
        list_breaking(out, asked, asked->cfg_parallel ? 2 : 1, broken);
        if (out->length == 0 && broken <= NEAR && !asked->cfg_parallel) {
            list_breaking(out, asked, 2, broken);
        }
    }
    if (out->length == 0) {
        dk_string_puts(out, asked->cfg_parallel ? "an even number of ranks in each replica, "
                                                  "or no enable_cfg_parallel"
                                                : "other numbers of ranks");
    }
}

static dk_status refuse(const dk_layout *l, const dk_layout_request *asked, int sp,
                        dk_error *err)
{
    dk_string legal = DK_STRING_EMPTY;
    dk_status status;
    list_legal(&legal, asked);
    if (l->ulysses * l->ring != sp) {
        status = dk_fail(err, DK_INVALID,
                         "sp_degree is %d, but ulysses_degree x ring_degree is %d x %d; "
                         "accepted are: %s",
                         sp, l->ulysses, l->ring, legal.data);
    } else {
        status = dk_fail(err, DK_INVALID,
                         "dp_size %d x cfg %d x sp_degree %d (ulysses %d x ring %d) x tp_size "
                         "%d is %d ranks, num_gpus is %d; accepted are: %s",
                         l->dp, l->cfg, sp, l->ulysses, l->ring, l->tp,
                         dk_layout_replica_ranks(l) * l->dp, asked->num_gpus, legal.data);
    }
    dk_string_release(&legal);
    return status;
}

dk_status dk_layout_resolve(dk_layout *out, const dk_layout_request *r, dk_error *err)
{
    int n = given(r->num_gpus, 1), cfg = r->cfg_parallel ? 2 : 1;
    int tp = given(r->tp_size, 1), dp = given(r->dp_size, 1);
    int rest = n / (tp * dp * cfg) > 0 ? n / (tp * dp * cfg) : 1;
    int ring = given(r->ring_degree, 1);
    int sp =
        given(r->sp_degree,
              r->ulysses_degree > 0 && r->ring_degree > 0 ? r->ulysses_degree * ring : rest);
    int ulysses = given(r->ulysses_degree, sp / ring > 0 ? sp / ring : 1);
    if (r->ring_degree == 0 && r->ulysses_degree > 0) {
        ring = sp / ulysses > 0 ? sp / ulysses : 1;
    }
    sp = given(r->sp_degree, ulysses * ring);
    *out = (dk_layout){.tp = tp, .ulysses = ulysses, .ring = ring, .cfg = cfg, .dp = dp};
    if (n <= DK_COMM_MOST_RANKS * dp && ulysses * ring == sp && tp * sp * cfg * dp == n) {
        return DK_OK;
    }
    dk_layout_request asked = *r;
    asked.num_gpus = n;
    return refuse(out, &asked, sp, err);
}

dk_status dk_layout_shards(int *ranks, const dk_layout *l, int asked, dk_error *err)
{
    int alike = dk_layout_sp(l) * l->cfg;
    dk_string accepted = DK_STRING_EMPTY;
    *ranks = asked > 0 ? asked : alike;
    if (*ranks > 1 && alike % *ranks == 0) {
        return DK_OK;
    }
    for (int i = 2; i <= alike; i++) {
        if (alike % i == 0) {
            dk_string_printf(&accepted, "%s%d", accepted.length > 0 ? ", " : "", i);
        }
    }
    dk_status status =
        alike > 1 ? dk_fail(err, DK_INVALID,
                            "hsdp_shard_dim is %d, but %d ranks have the same weights (sp %d x "
                            "cfg %d; tp %d parts them already), accepted are %s",
                            asked, alike, dk_layout_sp(l), l->cfg, l->tp, accepted.data)
                  : dk_fail(err, DK_INVALID,
                            "use_fsdp_inference shares out weights among ranks that have the "
                            "same ones, but here every rank of a replica has its own (sp 1 x "
                            "cfg 1 x tp %d); accepted is an sp_degree from 2 or "
                            "enable_cfg_parallel",
                            l->tp);
    dk_string_release(&accepted);
    return status;
}

/* The groups of one direction: ranks that differ in it alone. */
static void draw(dk_string *out, const char *name, int ranks, int size, int stride)
{
    if (size <= 1) {
        return;
    }
    dk_string_printf(out, "%-8s", name);
    for (int first = 0; first < ranks; first++) {
        if (first / stride % size == 0) {
            dk_string_puts(out, " [");
            for (int i = 0; i < size; i++) {
                dk_string_printf(out, "%s%d", i > 0 ? " " : "", first + i * stride);
            }
            dk_string_putc(out, ']');
        }
    }
    dk_string_putc(out, '\n');
}

void dk_layout_draw(dk_string *out, const dk_layout *l, int shards)
{
    int replica = dk_layout_replica_ranks(l), ranks = replica * l->dp;
    int sp = dk_layout_sp(l);
    dk_string_printf(out, "%d ranks: rank = tp + %d (ulysses + %d (ring + %d (cfg + %d dp)))\n",
                     ranks, l->tp, l->ulysses, l->ring, l->cfg);
    draw(out, "dp", ranks, l->dp, replica);
    draw(out, "cfg", ranks, l->cfg, l->tp * sp);
    draw(out, "ulysses", ranks, l->ulysses, l->tp);
    draw(out, "ring", ranks, l->ring, l->tp * l->ulysses);
    draw(out, "sp", ranks, sp, l->tp);
    draw(out, "tp", ranks, l->tp, 1);
    draw(out, "fsdp", ranks, shards, l->tp);
}
