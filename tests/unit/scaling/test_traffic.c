/* Bytes of a step against hand arithmetic, and, where parts are uneven, against counting what
   changes its place value by value. */
#include "test.h"

#include <math.h>

#include "scaling/traffic.h"

static const dk_traffic_options bf16 = {
    .activation_bytes = 2, .weight_bytes = 2, .head_groups = 1};

static dk_geometry geometry_of(const char *model)
{
    dk_error err;
    dk_geometry g;
    assert_ok(dk_geometry_init(&g, dk_model_preset_find(model), 0, 0, 0, 0, &err), err);
    return g;
}

static dk_traffic block_of(const dk_geometry *g, dk_layout layout, dk_place place,
                           const dk_traffic_options *options)
{
    dk_traffic t;
    dk_traffic_of_block(&t, g, 0, &layout, &place, options);
    return t;
}

/* Wan 1.3B: a tensor of 32,760 x 1536 bf16 is 100,638,720 bytes. */
enum { TENSOR = 32760 * 1536 * 2 };

static void test_ulysses(void **state)
{
    (void)state;
    const dk_geometry wan = geometry_of("wan2.1-1.3b");
    const dk_place first = {0};
    /* Two ranks: half of one's half, of four tensors: one tensor. */
    dk_traffic t = block_of(&wan, (dk_layout){1, 2, 1, 1, 1}, first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == TENSOR);
    assert_true(t.calls[DK_TRAFFIC_ULYSSES] == 4);
    assert_true(dk_traffic_bytes(&t) == TENSOR);
    t = block_of(&wan, (dk_layout){1, 4, 1, 1, 1}, first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == 4.0 * TENSOR / 4 * 3 / 4);
    /* A step with guidance: 2 passes of 30 layers; cfg leaves one of them, and one latent. */
    dk_traffic_of_step(&t, &wan, &(const dk_layout){1, 2, 1, 1, 1}, &first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == 60.0 * TENSOR);
    assert_true(t.bytes[DK_TRAFFIC_GATHER] == 2 * 8386560.0 / 2);
    dk_traffic_of_step(&t, &wan, &(const dk_layout){1, 2, 1, 2, 1}, &first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == 30.0 * TENSOR);
    assert_true(t.bytes[DK_TRAFFIC_CFG] == 8386560);
    assert_true(t.calls[DK_TRAFFIC_CFG] == 2);
    /* f32 is twice that. */
    const dk_traffic_options f32 = {.activation_bytes = 4, .weight_bytes = 4};
    t = block_of(&wan, (dk_layout){1, 2, 1, 1, 1}, first, &f32);
    assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == 2.0 * TENSOR);
    /* FLUX.1: 4608 rows, 28.3 MB, 57 layers. */
    const dk_geometry flux = geometry_of("flux1-dev");
    dk_traffic_of_step(&t, &flux, &(const dk_layout){1, 2, 1, 1, 1}, &first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == 57.0 * 4608 * 3072 * 2);
}

static void test_ring(void **state)
{
    (void)state;
    const dk_geometry wan = geometry_of("wan2.1-1.3b");
    const dk_place first = {0};
    dk_traffic t = block_of(&wan, (dk_layout){1, 1, 2, 1, 1}, first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_RING] == TENSOR); /* half of keys and of values */
    t = block_of(&wan, (dk_layout){1, 1, 4, 1, 1}, first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_RING] == 3 * 2 * TENSOR / 4.0);
    assert_true(t.calls[DK_TRAFFIC_RING] == 3); /* keys and values travel together */
    /* Inside of a ring rank two Ulysses ranks share heads: each passes on half of them. */
    t = block_of(&wan, (dk_layout){1, 2, 2, 1, 1}, first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_RING] == TENSOR / 2.0);
    assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == TENSOR / 2.0);
}

static void test_tp_and_shards(void **state)
{
    (void)state;
    const dk_geometry wan = geometry_of("wan2.1-1.3b");
    const dk_place first = {0};
    dk_traffic t = block_of(&wan, (dk_layout){2, 1, 1, 1, 1}, first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_TP] == 3.0 * TENSOR); /* 2 (P - 1) / P = 1 */
    assert_true(t.bytes[DK_TRAFFIC_NORM] == 32760.0 * 3 * 4);
    assert_true(t.calls[DK_TRAFFIC_TP] == 3 && t.calls[DK_TRAFFIC_NORM] == 3);
    t = block_of(&wan, (dk_layout){4, 1, 1, 1, 1}, first, &bf16);
    assert_true(t.bytes[DK_TRAFFIC_TP] == 1.5 * 3 * TENSOR);
    const dk_traffic_options sharded = {
        .activation_bytes = 2, .weight_bytes = 2, .sharded = true};
    double weights = (8.0 * 1536 * 1536 + 2.0 * 1536 * 8960) * 2;
    t = block_of(&wan, (dk_layout){1, 2, 1, 2, 1}, first, &sharded);
    assert_true(t.bytes[DK_TRAFFIC_SHARD] == weights / 4 * 3);
    t = block_of(&wan, (dk_layout){2, 1, 1, 2, 1}, first, &sharded);
    assert_true(t.bytes[DK_TRAFFIC_SHARD] == weights / 2 / 2);
    t = block_of(&wan, (dk_layout){2, 1, 1, 1, 1}, first, &sharded);
    assert_true(t.bytes[DK_TRAFFIC_SHARD] == 0);
}

static int owner(int64_t index, int64_t total, int parts)
{
    int part = 0;
    while (index >= dk_part_begin(total, parts, part + 1)) {
        part++;
    }
    return part;
}

/* Values that a Ulysses rank of the only ring rank sends: row r of head h leaves when the rank
   owns the row and another the head, three times; and comes back. */
static double counted(int64_t rows, int64_t heads, int ranks, int rank)
{
    double sent = 0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t h = 0; h < heads; h++) {
            int by_row = owner(r, rows, ranks), by_head = owner(h, heads, ranks);
            sent += by_row == rank && by_head != rank ? 3 : 0;
            sent += by_head == rank && by_row != rank ? 1 : 0;
        }
    }
    return sent;
}

static void test_uneven(void **state)
{
    (void)state;
    static const struct {
        int rows, heads, ranks;
    } of[] = {{33, 30, 4}, {7, 3, 3}, {10, 4, 3}, {5, 5, 4}, {64, 12, 5}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        dk_geometry g = {.shape = {.heads = of[i].heads, .head_dim = 8},
                         .dim = of[i].heads * 8,
                         .groups = {{.count = 1, .rows = of[i].rows}},
                         .group_count = 1,
                         .passes = 1};
        for (int rank = 0; rank < of[i].ranks; rank++) {
            const dk_place place = {.ulysses = rank};
            dk_traffic t = block_of(&g, (dk_layout){1, of[i].ranks, 1, 1, 1}, place, &bf16);
            double values = counted(of[i].rows, of[i].heads, of[i].ranks, rank);
            assert_true(t.bytes[DK_TRAFFIC_ULYSSES] == values * 8 * 2);
        }
    }
}

/* Uneven ring parts: over all ranks every part is sent ring - 1 times. */
static void test_uneven_ring(void **state)
{
    (void)state;
    dk_geometry g = {.shape = {.heads = 4, .head_dim = 8},
                     .dim = 32,
                     .groups = {{.count = 1, .rows = 35}},
                     .group_count = 1,
                     .passes = 1};
    double sum = 0;
    for (int rank = 0; rank < 6; rank++) {
        const dk_place place = {.ulysses = rank % 2, .ring = rank / 2};
        dk_traffic t = block_of(&g, (dk_layout){1, 2, 3, 1, 1}, place, &bf16);
        sum += t.bytes[DK_TRAFFIC_RING];
    }
    assert_true(sum == 2.0 * 2 * 35 * 32 * 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ulysses),       cmocka_unit_test(test_ring),
        cmocka_unit_test(test_tp_and_shards), cmocka_unit_test(test_uneven),
        cmocka_unit_test(test_uneven_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
