/* Layouts: from flags, refused with those that would do, places, and their drawing. */
#include <string.h>

#include "comm/groups.h"
#include "test.h"

static dk_layout resolve(dk_layout_request request)
{
    dk_layout layout;
    dk_error err;
    assert_int_equal(dk_layout_resolve(&layout, &request, &err), DK_OK);
    return layout;
}

static void expect(const dk_layout *l, int dp, int cfg, int ulysses, int ring, int tp)
{
    assert_int_equal(l->dp, dp);
    assert_int_equal(l->cfg, cfg);
    assert_int_equal(l->ulysses, ulysses);
    assert_int_equal(l->ring, ring);
    assert_int_equal(l->tp, tp);
}

static void test_defaults(void **state)
{
    (void)state;
    dk_layout l = resolve((dk_layout_request){.num_gpus = 1});
    expect(&l, 1, 1, 1, 1, 1);
    l = resolve((dk_layout_request){.num_gpus = 4});
    expect(&l, 1, 1, 4, 1, 1);
    l = resolve((dk_layout_request){.num_gpus = 4, .ring_degree = 2});
    expect(&l, 1, 1, 2, 2, 1);
    l = resolve((dk_layout_request){.num_gpus = 4, .ulysses_degree = 1});
    expect(&l, 1, 1, 1, 4, 1);
    l = resolve((dk_layout_request){.num_gpus = 8, .tp_size = 2, .cfg_parallel = true});
    expect(&l, 1, 2, 2, 1, 2);
    l = resolve((dk_layout_request){.num_gpus = 6, .dp_size = 2, .sp_degree = 3});
    expect(&l, 2, 1, 3, 1, 1);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        dk_layout_request request;
        const char *says[3];
    } cases[] = {
        {{.num_gpus = 4, .sp_degree = 3},
         {"sp_degree 3", "num_gpus is 4", "--dp-size 1 --ulysses-degree 4"}},
        {{.num_gpus = 2, .dp_size = 3}, {"dp_size 3", "is 3 ranks", "--dp-size 2"}},
        {{.num_gpus = 4, .sp_degree = 4, .ulysses_degree = 3},
         {"sp_degree is 4, but ulysses_degree x ring_degree is 3 x 1", "--ulysses-degree 4",
          "--ulysses-degree 2 --ring-degree 2"}},
        {{.num_gpus = 4, .sp_degree = 2, .ulysses_degree = 2, .ring_degree = 2},
         {"sp_degree is 2, but ulysses_degree x ring_degree is 2 x 2",
          "--ulysses-degree 2 --ring-degree 2 --tp-size 1",
          "--ulysses-degree 2 --ring-degree 1 --tp-size 2"}},
        {{.num_gpus = 4, .ulysses_degree = 3}, {"sp_degree 3 (ulysses 3", "is 3 ranks", ""}},
        {{.num_gpus = 4, .tp_size = 3, .one_replica = true},
         {"tp_size 3", "accepted are: --ulysses-degree 1 --ring-degree 4 --tp-size 1; ", ""}},
        {{.num_gpus = 4, .tp_size = 4, .cfg_parallel = true},
         {"tp_size 4", "accepted are: --dp-size 2 --enable-cfg-parallel --ulysses-degree 1",
          "; --dp-size 1 --enable-cfg-parallel --ulysses-degree 1 --ring-degree 1 --tp-size "
          "2"}},
        {{.num_gpus = 3, .cfg_parallel = true},
         {"cfg 2", "num_gpus is 3", "an even number of ranks in each replica"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_layout layout;
        dk_error err;
        assert_int_equal(dk_layout_resolve(&layout, &cases[i].request, &err), DK_INVALID);
        for (int k = 0; k < 3; k++) {
            if (strstr(err.message, cases[i].says[k]) == NULL) {
                fail_msg("case %zu: '%s' is not in: %s", i, cases[i].says[k], err.message);
            }
        }
    }
}

/* rank = tp + TP (ulysses + ULYSSES (ring + RING (cfg + CFG dp))) */
static void test_places(void **state)
{
    (void)state;
    const dk_layout l = {.tp = 2, .ulysses = 3, .ring = 2, .cfg = 2, .dp = 2};
    for (int rank = 0; rank < 48; rank++) {
        dk_place p = dk_layout_place(&l, rank);
        assert_int_equal(p.tp + 2 * (p.ulysses + 3 * (p.ring + 2 * (p.cfg + 2 * p.dp))), rank);
    }
}

static void test_drawing(void **state)
{
    (void)state;
    const dk_layout l = {.tp = 1, .ulysses = 2, .ring = 2, .cfg = 1, .dp = 2};
    dk_string text = DK_STRING_EMPTY;
    dk_layout_draw(&text, &l, 0);
    assert_non_null(strstr(text.data, "8 ranks"));
    assert_non_null(strstr(text.data, "dp       [0 4] [1 5] [2 6] [3 7]\n"));
    assert_non_null(strstr(text.data, "ulysses  [0 1] [2 3] [4 5] [6 7]\n"));
    assert_non_null(strstr(text.data, "ring     [0 2] [1 3] [4 6] [5 7]\n"));
    assert_non_null(strstr(text.data, "sp       [0 1 2 3] [4 5 6 7]\n"));
    assert_null(strstr(text.data, "tp       "));
    assert_null(strstr(text.data, "fsdp"));
    dk_string_clear(&text);
    const dk_layout parted = {.tp = 2, .ulysses = 2, .ring = 1, .cfg = 2, .dp = 1};
    dk_layout_draw(&text, &parted, 2);
    assert_non_null(strstr(text.data, "fsdp     [0 2] [1 3] [4 6] [5 7]\n"));
    dk_string_release(&text);
}

static void test_parts(void **state)
{
    (void)state;
    for (int64_t total = 0; total < 40; total++) {
        for (int parts = 1; parts < 9; parts++) {
            int64_t at = 0;
            for (int i = 0; i < parts; i++) {
                assert_int_equal(dk_part_begin(total, parts, i), at);
                int64_t size = dk_part_size(total, parts, i);
                assert_true(size == total / parts || size == total / parts + 1);
                at += size;
            }
            assert_int_equal(at, total);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_places),   cmocka_unit_test(test_drawing),
        cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
