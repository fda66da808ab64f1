/* Seconds, memory and the search for layouts. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "scaling/search.h"

static dk_geometry geometry_of(const char *model)
{
    dk_error err;
    dk_geometry g;
    assert_ok(dk_geometry_init(&g, dk_model_preset_find(model), 0, 0, 0, 0, &err), err);
    return g;
}

static dk_cost cost_of(const dk_geometry *g, const char *machine, dk_layout layout,
                       const dk_cost_options *options)
{
    dk_cost cost;
    dk_cost_of(&cost, g, dk_machine_preset_find(machine), &layout, options);
    return cost;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

/* One rank: operations over throughput and row traffic over bandwidth, nothing else. */
static void test_one_rank(void **state)
{
    (void)state;
    const dk_geometry g = geometry_of("wan2.1-1.3b");
    const dk_machine *m = dk_machine_preset_find("b60");
    const dk_cost_options options = dk_cost_options_usual();
    dk_cost c = cost_of(&g, "b60", (dk_layout){1, 1, 1, 1, 1}, &options);
    double expected =
        2 * (dk_geometry_linear_flops(&g) / 60e12 + dk_geometry_attention_flops(&g) / 40e12 +
             dk_geometry_row_bytes(&g) / 456e9);
    assert_true(near(c.step_s, expected));
    assert_true(c.communication_s == 0 && dk_traffic_bytes(&c.traffic) == 0);
    assert_int_equal(c.limit, DK_LIMIT_COMPUTE);
    assert_true(c.memory.weights == g.weights * 2);
    dk_machine calibrated = *m;
    dk_error err;
    assert_ok(dk_machine_calibrate(&calibrated, &g, 12.5, &err), err);
    dk_cost_of(&c, &g, &calibrated, &(const dk_layout){1, 1, 1, 1, 1}, &options);
    assert_true(near(c.step_s, 12.5));
    assert_int_equal(dk_machine_calibrate(&calibrated, &g, 1e-6, &err), DK_INVALID);
}

/* Ulysses 2 on cards that reach 22 GB/s: a quarter of a tensor of 100.6 MB per call. */
static void test_ulysses_overlap(void **state)
{
    (void)state;
    const dk_geometry g = geometry_of("wan2.1-1.3b");
    dk_cost_options options = dk_cost_options_usual();
    options.pipelined = false;
    options.traffic.head_groups = 1;
    dk_cost blocking = cost_of(&g, "b60", (dk_layout){1, 2, 1, 1, 1}, &options);
    double call = 100638720.0 / 4 / 22e9 + 50e-6;
    double sorted = 16380.0 * 1536 * 4 * 2 * 2 / 456e9;
    assert_true(near(blocking.exposed[DK_LIMIT_ULYSSES], 60 * (4 * call + sorted)));
    options = dk_cost_options_usual();
    dk_cost ours = cost_of(&g, "b60", (dk_layout){1, 2, 1, 1, 1}, &options);
    /* Projections of 1.3 ms hide calls of 1.2 ms: a group of queries and one of outputs remain.
     */
    double group = (call + 2 * 50e-6) / 3;
    assert_true(near(ours.exposed[DK_LIMIT_ULYSSES], 60 * (2 * group + sorted)));
    assert_true(ours.compute_s == blocking.compute_s);
}

/* Where attention adds parts up, a rank's own rows attend meanwhile: half of all rows to half
   of all keys before, and after. */
static void test_own_rows_stay(void **state)
{
    (void)state;
    const dk_geometry g = geometry_of("wan2.1-1.3b");
    const dk_cost_options options = dk_cost_options_usual();
    const dk_layout ulysses = {1, 2, 1, 1, 1};
    dk_machine m = *dk_machine_preset_find("b60");
    dk_cost hidden, waits;
    m.adds_parts = true;
    dk_cost_of(&hidden, &g, &m, &ulysses, &options);
    /* The other's half of the heads, of four tensors, and the own half of keys and values. */
    double sorted = 16380.0 * 768 * (4 + 2) * 2 * 2 / 456e9;
    assert_true(near(hidden.exposed[DK_LIMIT_ULYSSES], 60 * sorted));
    /* Calls of 50 ms: behind the first projection the link is never idle, and what computes is
       done before it, 84 ms after keys and values. */
    m.link_gbps = 0.5;
    dk_cost_of(&waits, &g, &m, &ulysses, &options);
    double projection = 2 * 16380.0 * 1536 * 1536 / 60e12;
    double attention = 4 * 32760.0 * 32760 * 768 / 40e12;
    double call = 100638720.0 / 4 / 0.5e9 + 50e-6, parted = call + 2 * 50e-6;
    double ended = projection + 2 * call + 2 * parted;
    assert_true(near(waits.exposed[DK_LIMIT_ULYSSES],
                     60 * (ended - 3 * projection - attention + sorted)));
    /* At 1 GB/s it is computing that ends last: own rows behind the others', whose first third
       waits for its queries. */
    m.link_gbps = 1;
    dk_cost_of(&waits, &g, &m, &ulysses, &options);
    call = 100638720.0 / 4 / 1e9 + 50e-6;
    parted = call + 2 * 50e-6;
    ended = projection + 2 * call + parted / 3 + attention / 2 + attention / 4;
    assert_true(near(waits.exposed[DK_LIMIT_ULYSSES],
                     60 * (ended - 3 * projection - attention + sorted)));
}

/* A ring hides what its attention is longer than; on a slow link it does not. */
static void test_ring_overlap(void **state)
{
    (void)state;
    const dk_geometry g = geometry_of("wan2.1-1.3b");
    const dk_cost_options options = dk_cost_options_usual();
    dk_machine m = *dk_machine_preset_find("b60");
    const dk_layout ring = {1, 1, 2, 1, 1};
    dk_cost fast, slow;
    dk_cost_of(&fast, &g, &m, &ring, &options);
    m.link_gbps = 0.5;
    dk_cost_of(&slow, &g, &m, &ring, &options);
    double merge = 3 * 16380.0 * 1536 * 4 / 456e9;
    assert_true(near(fast.exposed[DK_LIMIT_RING], 60 * 2 * merge));
    double attention = 4 * 16380.0 * 32760 * 1536 / 40e12 / 2;
    double wire = 100638720.0 / 0.5e9 + 50e-6;
    assert_true(near(slow.exposed[DK_LIMIT_RING], 60 * (wire - attention + 2 * merge)));
}

/* Two ranks on each of two hosts. */
static void test_hosts(void **state)
{
    (void)state;
    dk_machine m = {.link_gbps = 10, .call_us = 0, .net_gbps = 1, .net_call_us = 0};
    assert_true(near(dk_cost_all_to_all_s(&m, 1e9, 2, 1, 2), 0.1));
    /* Two of three parts leave, from both ranks. */
    assert_true(near(dk_cost_all_to_all_s(&m, 1e9, 4, 1, 2), 2.0 / 3 * 2));
    assert_true(near(dk_cost_all_to_all_s(&m, 1e9, 2, 2, 2), 2));
    assert_true(near(dk_cost_ring_s(&m, 1e9, 4, 1, 2), 1)); /* one of two crosses */
    assert_true(near(dk_cost_ring_s(&m, 1e9, 2, 2, 2), 2)); /* both do */
    assert_true(near(dk_cost_ring_s(&m, 1e9, 2, 1, 2), 0.1));
}

static void test_memory(void **state)
{
    (void)state;
    const dk_geometry g = geometry_of("wan2.1-14b");
    dk_cost_options options = dk_cost_options_usual();
    dk_cost one = cost_of(&g, "b60", (dk_layout){1, 1, 1, 1, 1}, &options);
    assert_false(one.fits);
    dk_cost tp = cost_of(&g, "b60", (dk_layout){4, 1, 1, 1, 1}, &options);
    assert_true(near(tp.memory.weights, g.weights * 2 / 4));
    options.traffic.sharded = true;
    dk_cost sharded = cost_of(&g, "b60", (dk_layout){1, 4, 1, 1, 1}, &options);
    assert_true(sharded.fits);
    assert_true(near(sharded.memory.weights, g.weights * 2 / 4 + 2 * g.groups[0].weights * 2));
    options.text_elsewhere = true;
    dk_cost less = cost_of(&g, "b60", (dk_layout){1, 4, 1, 1, 1}, &options);
    assert_true(near(dk_cost_memory_bytes(&sharded.memory) - dk_cost_memory_bytes(&less.memory),
                     5.681e9 * 2));
}

static void test_illegal(void **state)
{
    (void)state;
    static const struct {
        dk_layout layout;
        const char *says;
    } of[] = {{{1, 16, 1, 1, 1}, "12 heads"},
              {{2, 8, 1, 1, 1}, "12 heads"},
              {{1, 1, 80, 1, 1}, "up to 64"},
              {{1, 1, 1, 3, 1}, "2 passes"},
              {{0, 1, 1, 1, 1}, "at least 1"}};
    const dk_geometry g = geometry_of("wan2.1-1.3b");
    dk_error err;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        assert_int_equal(dk_layout_check(&of[i].layout, &g, &err), DK_INVALID);
        assert_non_null(strstr(err.message, of[i].says));
    }
    const dk_geometry flux = geometry_of("flux1-dev"), z = geometry_of("z-image");
    assert_int_equal(dk_layout_check(&(const dk_layout){1, 1, 1, 2, 1}, &flux, &err),
                     DK_INVALID);
    assert_ok(dk_layout_check(&(const dk_layout){1, 4, 1, 1, 1}, &z, &err), err);
}

static void test_search(void **state)
{
    (void)state;
    const dk_geometry g = geometry_of("wan2.1-1.3b");
    dk_machine m = *dk_machine_preset_find("b60");
    const dk_cost_options options = dk_cost_options_usual();
    dk_search search = {.ranks = 4, .dp = 1, .may_shard = true};
    dk_candidate *list = NULL;
    int count = 0;
    dk_error err;
    assert_ok(dk_search_layouts(&list, &count, &search, &g, &m, &options, &err), err);
    /* 4 = tp x ulysses x ring: 6 ways; 2 = ...: 3 ways beside cfg. */
    assert_int_equal(count, 9);
    assert_int_equal(list[0].layout.cfg, 2); /* one latent instead of sequences */
    for (int i = 0; i < count; i++) {
        assert_true(list[i].speedup > 1 && list[i].speedup <= 4.0001);
        assert_int_equal(dk_layout_replica_ranks(&list[i].layout), 4);
    }
    dk_free(list);
    search.dp = 0;
    search.by_throughput = true;
    m.link_gbps = 0.1;
    assert_ok(dk_search_layouts(&list, &count, &search, &g, &m, &options, &err), err);
    assert_int_equal(list[0].layout.dp, 4); /* nothing beats not talking */
    assert_true(near(list[0].speedup, 4));
    dk_free(list);
    search = (dk_search){.ranks = 67, .dp = 1};
    assert_int_equal(dk_search_layouts(&list, &count, &search, &g, &m, &options, &err),
                     DK_INVALID);
    assert_non_null(strstr(err.message, "67"));
}

static dk_status measured(dk_machine *m, const char *text, dk_error *err)
{
    json_t *report = NULL;
    assert_ok(dk_json_parse(&report, text, strlen(text), "report", err), *err);
    dk_status status = dk_machine_measured(m, report, "links.json", err);
    json_decref(report);
    return status;
}

static void test_measured(void **state)
{
    (void)state;
    dk_error err;
    dk_machine m = *dk_machine_preset_find("b60");
    const char *report =
        "{\"backend\": \"shm\", \"results\": ["
        "{\"call\": \"all_to_all\", \"bytes\": 8, \"us\": 20, \"correct\": true},"
        "{\"call\": \"all_to_all\", \"bytes\": 1000000, \"ms\": 0.12},"
        "{\"call\": \"all_to_all\", \"bytes\": 100000000, \"seconds\": 0.00802},"
        "{\"call\": \"all_to_all\", \"bytes\": 100000000, \"us\": 60, \"correct\": false},"
        "{\"call\": \"shift\", \"bytes\": 100000000, \"us\": 1000}]}";
    assert_ok(measured(&m, report, &err), err);
    assert_true(near(m.call_us, 20) && near(m.link_gbps, 12.5));
    assert_true(m.memory_gb == 24);
    /* As comm-test says it: 1 MB on four ranks, of which each sends three quarters of its own.
     */
    const char *bus =
        "{\"calls\": [{\"call\": \"all_to_all\", \"bytes\": 1024, \"latency_us\": 10, "
        "\"bus_gbs\": 0.08}, {\"call\": \"all_to_all\", \"bytes\": 1000000, "
        "\"latency_us\": 85, \"algorithm_gbs\": 11.76, \"bus_gbs\": 8.82353}]}";
    assert_ok(measured(&m, bus, &err), err);
    assert_true(fabs(m.call_us - 10) < 1e-6 && fabs(m.link_gbps - 10) < 1e-3);
    assert_int_equal(measured(&m, "{\"results\": []}", &err), DK_FORMAT);
    assert_int_equal(measured(&m, "[{\"call\": \"shift\", \"bytes\": 8, \"us\": 1}]", &err),
                     DK_FORMAT);
    assert_non_null(strstr(err.message, "links.json"));
}

static void test_presets(void **state)
{
    (void)state;
    for (int i = 0; i < dk_machine_preset_count; i++) {
        const dk_machine *m = &dk_machine_presets[i];
        assert_ptr_equal(dk_machine_preset_find(m->name), m);
        assert_true(m->linear_tflops > 0 && m->attention_tflops > 0 && m->conv_tflops > 0);
        assert_true(m->memory_gb > 0 && m->memory_gbps > 0 && m->upload_gbps > 0);
        assert_true(m->link_gbps > 0 && m->call_us > 0 && m->net_gbps > 0);
        assert_true(m->net_call_us > 0 && m->ranks_per_host > 0);
    }
    assert_null(dk_machine_preset_find("b61"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_rank),      cmocka_unit_test(test_ulysses_overlap),
        cmocka_unit_test(test_own_rows_stay), cmocka_unit_test(test_ring_overlap),
        cmocka_unit_test(test_hosts),         cmocka_unit_test(test_memory),
        cmocka_unit_test(test_illegal),       cmocka_unit_test(test_search),
        cmocka_unit_test(test_measured),      cmocka_unit_test(test_presets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
