/* Bytes of a step by dk_traffic against what the communicators count while a small transformer
   of random weights makes a pass on real ranks. */
#include "../comm/comm_fixture.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "device/cpu/cpu_device.h"
#include "models/wan/dit.h"
#include "nn/parallel.h"
#include "scaling/traffic.h"

/* Five heads and 3 x 5 x 3 tokens: nothing that three ranks could share evenly but rows. */
enum { FRAMES = 3, HEIGHT = 10, WIDTH = 6, HEADS = 5, HEAD_DIM = 16, LAYERS = 2, TEXT = 7 };

static const dk_wan_dit_config config = {.patch = {1, 2, 2},
                                         .heads = HEADS,
                                         .head_dim = HEAD_DIM,
                                         .in_channels = 4,
                                         .out_channels = 4,
                                         .text_dim = 24,
                                         .freq_dim = 16,
                                         .ffn_dim = 96,
                                         .layers = LAYERS,
                                         .rope_positions = 64,
                                         .cross_attn_norm = true,
                                         .eps = 1e-6f};

static const dk_model_shape shape = {.name = "small",
                                     .family = DK_FAMILY_WAN,
                                     .layers = LAYERS,
                                     .heads = HEADS,
                                     .head_dim = HEAD_DIM,
                                     .ffn_dim = 96,
                                     .text_rows = TEXT,
                                     .token_side = 16,
                                     .token_frames = 4,
                                     .token_values = 16,
                                     .experts = 1,
                                     .passes = 1};

typedef struct rank_model {
    dk_comm *world;
    dk_groups groups;
    dk_nn_parallel parallel;
    dk_device *device;
    dk_nn nn;
    dk_weights *weights;
    dk_wan_dit *dit;
    dk_wan_dit_grid grid;
    dk_wan_dit_text text;
    dk_tensor in, out;
} rank_model;

static dk_status prepare(rank_model *m, dk_error *err)
{
    dk_nn *nn = &m->nn;
    int64_t pixels = (int64_t)FRAMES * HEIGHT * WIDTH;
    m->in = dk_nn_keep(nn, DK_F32, config.in_channels, pixels);
    m->out = dk_nn_keep(nn, DK_F32, config.out_channels, pixels);
    dk_device_zero(nn->device, m->in.data, dk_tensor_bytes(&m->in));
    DK_TRY(dk_wan_dit_grid_init(nn, m->dit, &m->grid, FRAMES, HEIGHT, WIDTH, err));
    size_t mark = dk_nn_mark(nn);
    dk_tensor embeds = dk_nn_temp(nn, DK_F32, TEXT, config.text_dim);
    dk_device_zero(nn->device, embeds.data, dk_tensor_bytes(&embeds));
    dk_wan_dit_text_release(&m->text);
    dk_status status = dk_wan_dit_text_init(nn, m->dit, &m->text, &embeds, 0, err);
    dk_nn_unwind(nn, mark);
    return status;
}

static dk_status forward(rank_model *m, dk_error *err)
{
    DK_TRY(dk_wan_dit_forward(&m->nn, m->dit, &m->grid, &m->text, &m->out, &m->in, 500, err));
    return dk_device_sync(m->device, err);
}

/* One pass; what it cost all groups of this rank. */
static dk_status count_pass(rank_model *m, dk_comm_work cost[DK_COMM_OP_COUNT], dk_error *err)
{
    dk_comm_work before[DK_COMM_OP_COUNT];
    dk_nn_dry_begin(&m->nn);
    dk_status status = prepare(m, err);
    status = status == DK_OK ? forward(m, err) : status;
    dk_status ended = dk_nn_dry_end(&m->nn, status == DK_OK ? err : NULL);
    DK_TRY(status != DK_OK ? status : ended);
    DK_TRY(prepare(m, err));
    dk_comm_get_work(m->world, before);
    DK_TRY(forward(m, err));
    dk_comm_get_work(m->world, cost);
    for (int i = 0; i < DK_COMM_OP_COUNT; i++) {
        cost[i].calls -= before[i].calls;
        cost[i].bytes -= before[i].bytes;
    }
    return DK_OK;
}

/* Between blocks, and at both ends, ranks tell each other a word: whether to stop. */
static void leave_out_words(dk_comm_work *gathers, int ranks)
{
    enum { WORDS = LAYERS + 2, WORD_BYTES = 8 };
    gathers->calls -= WORDS;
    gathers->bytes -= (double)WORDS * WORD_BYTES * (ranks - 1);
}

static dk_status compare(const dk_layout *layout, const dk_place *place,
                         const dk_comm_work cost[DK_COMM_OP_COUNT], dk_error *err)
{
    static const struct {
        dk_comm_op op;
        dk_traffic_kind kind, further; /* what such calls are made for */
    } of[] = {{DK_COMM_ALL_TO_ALL, DK_TRAFFIC_ULYSSES, DK_TRAFFIC_KINDS},
              {DK_COMM_SHIFT, DK_TRAFFIC_RING, DK_TRAFFIC_KINDS},
              {DK_COMM_ALL_REDUCE, DK_TRAFFIC_TP, DK_TRAFFIC_NORM},
              {DK_COMM_ALL_GATHER, DK_TRAFFIC_GATHER, DK_TRAFFIC_KINDS}};
    const dk_traffic_options options = {
        .activation_bytes = 4, .weight_bytes = 4, .head_groups = 3};
    dk_geometry g;
    dk_traffic t;
    DK_TRY(dk_geometry_init(&g, &shape, 16 * WIDTH / 2, 16 * HEIGHT / 2, 4 * (FRAMES - 1) + 1,
                            1, err));
    dk_traffic_of_step(&t, &g, layout, place, &options);
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        double bytes = t.bytes[of[i].kind], calls = t.calls[of[i].kind];
        if (of[i].further < DK_TRAFFIC_KINDS) {
            bytes += t.bytes[of[i].further];
            calls += t.calls[of[i].further];
        }
        const dk_comm_work *c = &cost[of[i].op];
        if (fabs(c->bytes - bytes) > 1e-6 * bytes || (double)c->calls != calls) {
            return dk_fail(err, DK_MISMATCH,
                           "%s: %.0f bytes in %.0f calls, by dk_traffic %.0f "
                           "in %.0f",
                           dk_traffic_names[of[i].kind], c->bytes, (double)c->calls, bytes,
                           calls);
        }
    }
    return DK_OK;
}

/* argument: "tp ulysses ring". */
static dk_status counts(const dk_transport_options *at, const char *argument, dk_error *err)
{
    rank_model m = {0};
    dk_layout layout = {.cfg = 1, .dp = 1};
    dk_comm_work cost[DK_COMM_OP_COUNT];
    const dk_comm_options comm = {.backend = "shm",
                                  .rank = at->rank,
                                  .ranks = at->ranks,
                                  .address = at->address,
                                  .key = at->key};
    const dk_device_options device = {.threads = 1, .exact = true};
    if (sscanf(argument, "%d %d %d", &layout.tp, &layout.ulysses, &layout.ring) != 3) {
        return dk_fail(err, DK_INVALID, "no layout: %s", argument);
    }
    dk_status status = dk_comm_open(&m.world, &comm, err);
    if (status == DK_OK) {
        status = dk_groups_create(&m.groups, m.world, &layout, err);
    }
    if (status == DK_OK) {
        status = dk_comm_split(&m.parallel.control, m.world, 0, at->rank, "control", err);
    }
    if (status == DK_OK) {
        status = dk_cpu_device_open(&m.device, &device, err);
    }
    if (status == DK_OK) {
        m.parallel.groups = &m.groups;
        m.weights = dk_weights_create_random(DK_F32, 1);
        dk_weights_split(m.weights, m.groups.tp);
        dk_nn_init(&m.nn, m.device, DK_F32, NULL);
        m.nn.parallel = &m.parallel;
        status = dk_wan_dit_create(&m.dit, &config, m.weights, "small", err);
    }
    if (status == DK_OK) {
        status = count_pass(&m, cost, err);
    }
    if (status == DK_OK) {
        leave_out_words(&cost[DK_COMM_ALL_GATHER], at->ranks);
        status = compare(&layout, &m.groups.place, cost, err);
    }
    dk_wan_dit_text_release(&m.text);
    dk_wan_dit_destroy(&m.dit);
    dk_weights_unref(m.weights);
    if (m.device != NULL) {
        dk_nn_release(&m.nn);
        dk_device_close(&m.device);
    }
    dk_comm_close(&m.parallel.control);
    dk_groups_release(&m.groups);
    dk_comm_close(&m.world);
    return status;
}

static void test_counted(void **state)
{
    (void)state;
    run_ranks("counts", 2, "1 2 1");
    run_ranks("counts", 3, "1 3 1");
    run_ranks("counts", 2, "1 1 2");
    run_ranks("counts", 3, "1 1 3");
    run_ranks("counts", 4, "1 2 2");
    run_ranks("counts", 2, "2 1 1");
    run_ranks("counts", 4, "2 2 1");
    run_ranks("counts", 4, "2 1 2");
}

int main(int argc, char **argv)
{
    static const rank_case cases[] = {{"counts", counts}};
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counted)};
    int code = 0;
    if (ran_as_rank(argc, argv, cases, 1, &code)) {
        return code;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
