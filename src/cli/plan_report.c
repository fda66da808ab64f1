/* The report of darkroom plan. */
#include "cli/plan_report.h"

#include <stdio.h>

#include "base/string.h"

static const double GB = 1e9;

static void flags_of(dk_string *out, const dk_candidate *c)
{
    const dk_layout *l = &c->layout;
    dk_string_printf(out, "--num-gpus %d", dk_layout_replica_ranks(l) * l->dp);
    if (l->dp > 1) {
        dk_string_printf(out, " --dp-size %d", l->dp);
    }
    if (l->cfg > 1) {
        dk_string_puts(out, " --enable-cfg-parallel");
    }
    if (dk_layout_sp(l) > 1) {
        dk_string_printf(out, " --ulysses-degree %d --ring-degree %d", l->ulysses, l->ring);
    }
    if (l->tp > 1) {
        dk_string_printf(out, " --tp-size %d", l->tp);
    }
    if (c->sharded) {
        dk_string_puts(out, " --use-fsdp-inference");
    }
}

/* "cfg 2 x ulysses 4, sharded" */
static void name_of(dk_string *out, const dk_candidate *c)
{
    const dk_layout *l = &c->layout;
    const struct {
        const char *name;
        int degree;
    } parts[] = {{"dp", l->dp},
                 {"cfg", l->cfg},
                 {"ulysses", l->ulysses},
                 {"ring", l->ring},
                 {"tp", l->tp}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].degree > 1) {
            dk_string_printf(out, "%s%s %d", out->length > 0 ? " x " : "", parts[i].name,
                             parts[i].degree);
        }
    }
    dk_string_printf(out, "%s%s", out->length > 0 ? "" : "one rank",
                     c->sharded ? ", sharded" : "");
}

/* What takes most of the time that is not computing; COMPUTE: nothing to speak of. */
static dk_cost_limit limit_of(const dk_cost *cost)
{
    static const double WORTH_TELLING = 0.01;
    dk_cost_limit most = DK_LIMIT_COMPUTE;
    double seconds = WORTH_TELLING * cost->step_s;
    for (int i = DK_LIMIT_COMPUTE + 1; i < DK_LIMIT_COUNT; i++) {
        if (cost->exposed[i] > seconds) {
            most = (dk_cost_limit)i;
            seconds = cost->exposed[i];
        }
    }
    return most;
}

static const char *limit_name(const dk_cost *cost)
{
    return cost->fits ? dk_cost_limit_names[limit_of(cost)] : "memory";
}

static json_t *traffic_json(const dk_traffic *traffic)
{
    json_t *object = json_object();
    for (int k = 0; k < DK_TRAFFIC_KINDS; k++) {
        if (traffic->calls[k] > 0) {
            json_object_set_new(object, dk_traffic_names[k],
                                json_pack("{s:f, s:f}", "bytes", traffic->bytes[k], "calls",
                                          traffic->calls[k]));
        }
    }
    return object;
}

static json_t *exposed_json(const dk_cost *cost)
{
    json_t *object = json_object();
    for (int i = 0; i < DK_LIMIT_COUNT; i++) {
        if (cost->exposed[i] > 0) {
            json_object_set_new(object, dk_cost_limit_names[i], json_real(cost->exposed[i]));
        }
    }
    return object;
}

static json_t *candidate_json(const dk_layout_report *plan, const dk_candidate *c)
{
    const dk_layout *l = &c->layout;
    const dk_cost_memory *m = &c->cost.memory;
    dk_string flags = DK_STRING_EMPTY;
    flags_of(&flags, c);
    json_t *object =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:b, s:b}", "flags", flags.data, "dp_size",
                  l->dp, "cfg", l->cfg, "ulysses_degree", l->ulysses, "ring_degree", l->ring,
                  "tp_size", l->tp, "sharded", c->sharded, "fits", c->cost.fits);
    dk_string_release(&flags);
    json_object_update_new(
        object,
        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "step_seconds", c->cost.step_s,
                  "communication_seconds", c->cost.communication_s, "generation_seconds",
                  dk_cost_generation_s(&c->cost, plan->steps), "steps_per_second",
                  c->throughput, "speedup", c->speedup, "efficiency", c->speedup / plan->ranks,
                  "limit", limit_name(&c->cost)));
    json_object_set_new(object, "exposed_seconds", exposed_json(&c->cost));
    json_object_set_new(object, "sent_bytes_per_step",
                        json_real(dk_traffic_bytes(&c->cost.traffic)));
    json_object_set_new(object, "traffic", traffic_json(&c->cost.traffic));
    json_object_set_new(object, "memory_bytes",
                        json_pack("{s:f, s:f, s:f, s:f, s:f}", "weights", m->weights,
                                  "activations", m->activations, "vae", m->vae, "text_encoder",
                                  m->text, "total", dk_cost_memory_bytes(m)));
    return object;
}

json_t *dk_layout_report_json(const dk_layout_report *plan)
{
    const dk_geometry *g = plan->geometry;
    const dk_machine *m = plan->machine;
    json_t *object =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:f}", "model", g->shape.name,
                  "width", (json_int_t)g->width, "height", (json_int_t)g->height, "num_frames",
                  (json_int_t)g->frames, "tokens", (json_int_t)g->tokens, "heads",
                  (json_int_t)g->shape.heads, "passes_per_step", g->passes,
                  "num_inference_steps", plan->steps, "operations_per_step",
                  g->passes * (dk_geometry_linear_flops(g) + dk_geometry_attention_flops(g)));
    json_object_set_new(object, "device",
                        json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "name",
                                  m->name, "linear_tflops", m->linear_tflops,
                                  "attention_tflops", m->attention_tflops, "memory_gb",
                                  m->memory_gb, "memory_gbps", m->memory_gbps, "link_gbps",
                                  m->link_gbps, "link_latency_us", m->call_us, "net_gbps",
                                  m->net_gbps, "net_latency_us", m->net_call_us));
    json_object_set_new(object, "num_gpus", json_integer(plan->ranks));
    json_object_set_new(object, "nodes", json_integer(plan->hosts));
    json_t *layouts = json_array();
    for (int i = 0; i < plan->count && i < plan->most; i++) {
        json_array_append_new(layouts, candidate_json(plan, &plan->candidates[i]));
    }
    json_object_set_new(object, "layouts", layouts);
    json_object_set_new(object, "layouts_found", json_integer(plan->count));
    return object;
}

static void print_row(const dk_layout_report *plan, const dk_candidate *c)
{
    const dk_cost *cost = &c->cost;
    dk_string name = DK_STRING_EMPTY;
    name_of(&name, c);
    dk_cost_limit limit = limit_of(cost);
    printf("  %-37s %8.3f %8.2f x %5.0f %% %8.1f %10.0f  ", name.data, cost->step_s, c->speedup,
           100 * c->speedup / plan->ranks, dk_cost_memory_bytes(&cost->memory) / GB,
           dk_traffic_bytes(&cost->traffic) * 1e-6);
    if (!cost->fits) {
        printf("memory: does not fit\n");
    } else if (limit == DK_LIMIT_COMPUTE) {
        printf("compute\n");
    } else {
        printf("%s, %.0f %%\n", dk_cost_limit_names[limit],
               100 * cost->exposed[limit] / cost->step_s);
    }
    dk_string_release(&name);
}

void dk_layout_report_print(const dk_layout_report *plan)
{
    const dk_geometry *g = plan->geometry;
    const dk_machine *m = plan->machine;
    printf("%s, %lld x %lld x %lld: %lld tokens, %d pass%s per step, %.0f TFLOP a step\n",
           g->shape.name, (long long)g->width, (long long)g->height, (long long)g->frames,
           (long long)g->tokens, g->passes, g->passes == 1 ? "" : "es",
           g->passes * (dk_geometry_linear_flops(g) + dk_geometry_attention_flops(g)) * 1e-12);
    printf("%s: %.3g TFLOP/s in linear layers, %.3g in attention, %.3g GB; links %.3g GB/s, "
           "%.0f us a call\n",
           m->name, m->linear_tflops, m->attention_tflops, m->memory_gb, m->link_gbps,
           m->call_us);
    printf("%d rank%s on %d host%s", plan->ranks, plan->ranks == 1 ? "" : "s", plan->hosts,
           plan->hosts == 1 ? "" : "s");
    if (plan->hosts > 1) {
        printf(", %.3g GB/s between hosts", m->net_gbps);
    }
    printf("; a projection, not a measurement (docs/parallel.md)\n\n");
    printf("  %-37s %8s %10s %7s %8s %10s  %s\n", "layout", "s/step", "speed-up", "of ideal",
           "GB/rank", "MB sent", "what limits");
    for (int i = 0; i < plan->count && i < plan->most; i++) {
        print_row(plan, &plan->candidates[i]);
    }
    if (plan->count > 1) {
        printf(
            "\nOrdered in classes 2 %% wide, which the model cannot tell apart: in one, what "
            "sends less comes first.\n");
    }
    const dk_candidate *best = &plan->candidates[0];
    dk_string flags = DK_STRING_EMPTY;
    flags_of(&flags, best);
    printf("\n%s%s\n", best->cost.fits ? "" : "nothing fits; nearest: ", flags.data);
    int ranks = dk_layout_replica_ranks(&best->layout) * best->layout.dp;
    if (ranks > DK_COMM_MOST_RANKS) {
        printf("up to %d ranks are started together: several servers share these replicas\n",
               DK_COMM_MOST_RANKS);
    }
    printf("%d steps, text and decoding: %.3g s\n", plan->steps,
           dk_cost_generation_s(&best->cost, plan->steps));
    dk_string_release(&flags);
}
