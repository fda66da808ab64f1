/* Self-attention on ranks against one rank: each way to share a sequence out, uneven rows and
   heads, two sequences. */
#include "../comm/comm_fixture.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "device/cpu/cpu_device.h"
#include "nn/parallel.h"
#include "nn/self_attention.h"
#include "tensor/convert.h"

/* More keys than a block of the kernels holds (256), so that parts end within one. */
enum { TOKENS = 601, HEADS = 5, HEAD_DIM = 16, COLS = HEADS * HEAD_DIM, COUNT = 2 };

/* f32: sums of 601 terms in another order, a few units of 6e-8 of values up to 2. BF16:
   queries, keys, values, probabilities and results of 8 bits. */
#define F32_BOUND  2e-6f
#define BF16_BOUND 1e-2f

typedef struct model {
    dk_device *device;
    dk_nn nn;
    dk_nn_linear to_q, to_k, to_v;
    dk_nn_head_norm norm_q, norm_k;
    dk_nn_rope rope;
    dk_tensor h, whole, mine; /* of all rows, of this rank's */
    float *numbers;           /* all of the weights and tables */
} model;

static float *random_numbers(size_t count)
{
    uint32_t state = 5;
    float *values = dk_alloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)(known_number(&state) >> 8) / (float)(1 << 23) - 1.0f;
    }
    return values;
}

static dk_tensor tensor_of(dk_dtype type, int64_t rows, const float *values)
{
    dk_tensor t = DK_TENSOR(NULL, type, rows, COLS);
    t.data = dk_alloc(dk_tensor_bytes(&t));
    if (values != NULL) {
        dk_convert_from_f32(t.data, type, values, rows * COLS);
    }
    return t;
}

static void make_model(model *m, dk_dtype type, int64_t rows)
{
    enum { WEIGHT = COLS * COLS, TABLE = TOKENS * HEAD_DIM / 2 };
    m->numbers = random_numbers(3 * WEIGHT + 2 * COLS + 2 * TABLE + COUNT * TOKENS * COLS);
    float *next = m->numbers;
    dk_nn_linear *layers[] = {&m->to_q, &m->to_k, &m->to_v};
    for (int i = 0; i < 3; i++, next += WEIGHT) {
        layers[i]->weight = DK_TENSOR(next, DK_F32, COLS, COLS);
    }
    m->norm_q = (dk_nn_head_norm){.weight = next, .eps = 1e-6f, .whole_cols = COLS};
    m->norm_k = (dk_nn_head_norm){.weight = next + COLS, .eps = 1e-6f, .whole_cols = COLS};
    next += 2 * COLS;
    m->rope = (dk_nn_rope){next, next + TABLE};
    next += 2 * TABLE;
    m->h = tensor_of(type, COUNT * TOKENS, next);
    m->whole = tensor_of(type, COUNT * TOKENS, NULL);
    m->mine = tensor_of(type, COUNT * rows, NULL);
}

static void release_model(model *m)
{
    dk_nn_release(&m->nn);
    dk_device_close(&m->device);
    dk_free(m->numbers);
    dk_free(m->h.data);
    dk_free(m->whole.data);
    dk_free(m->mine.data);
}

static dk_status forward(model *m, const dk_nn_rope *rope, const dk_tensor *dst,
                         const dk_tensor *h, dk_error *err)
{
    const dk_nn_self_attention attention = {.to_q = &m->to_q,
                                            .to_k = &m->to_k,
                                            .to_v = &m->to_v,
                                            .norm_q = &m->norm_q,
                                            .norm_k = &m->norm_k,
                                            .rope = rope,
                                            .heads = HEADS,
                                            .head_dim = HEAD_DIM,
                                            .scale = 0.25f,
                                            .tokens = TOKENS,
                                            .count = COUNT};
    dk_nn_dry_begin(&m->nn);
    dk_nn_self_attention_forward(&m->nn, &attention, dst, h);
    DK_TRY(dk_nn_dry_end(&m->nn, err));
    dk_nn_self_attention_forward(&m->nn, &attention, dst, h);
    return dk_device_sync(m->device, err);
}

/* This rank's rows of every sequence. */
static dk_tensor cut(const dk_tensor *whole, dk_nn_part part)
{
    dk_tensor t = tensor_of(whole->dtype, COUNT * part.count, NULL);
    size_t row = COLS * dk_dtype_bytes(whole->dtype), bytes = (size_t)part.count * row;
    for (int i = 0; i < COUNT; i++) {
        memcpy((char *)t.data + (size_t)i * bytes,
               (char *)whole->data + (size_t)(i * TOKENS + part.begin) * row, bytes);
    }
    return t;
}

static float largest_difference(const dk_tensor *a, const dk_tensor *b)
{
    float largest = 0;
    size_t width = dk_dtype_bytes(a->dtype);
    for (size_t i = 0; i < dk_tensor_bytes(a) / width; i++) {
        float x, y;
        dk_convert_to_f32(&x, (char *)a->data + i * width, a->dtype, 1);
        dk_convert_to_f32(&y, (char *)b->data + i * width, b->dtype, 1);
        float difference = isfinite(x) && isfinite(y) ? fabsf(x - y) : INFINITY;
        largest = difference > largest ? difference : largest;
    }
    return largest;
}

static dk_status compare(model *m, const dk_nn_parallel *parallel, float bound, dk_error *err)
{
    DK_TRY(forward(m, &m->rope, &m->whole, &m->h, err));
    m->nn.parallel = parallel;
    dk_nn_part part = dk_nn_sequence_part(&m->nn, TOKENS);
    const int64_t skip = part.begin * HEAD_DIM / 2;
    const dk_nn_rope rope = {m->rope.cos + skip, m->rope.sin + skip};
    dk_tensor h = cut(&m->h, part), expected = cut(&m->whole, part);
    dk_status status = forward(m, &rope, &m->mine, &h, err);
    float difference = largest_difference(&expected, &m->mine);
    dk_free(h.data);
    dk_free(expected.data);
    if (status == DK_OK && difference > bound) {
        return dk_fail(err, DK_MISMATCH, "differs by %g, at most %g", (double)difference,
                       (double)bound);
    }
    return status;
}

/* Exact, where Ulysses changes no bit; f32 in which attention adds up parts; bf16. */
typedef struct kind {
    dk_device_options options;
    dk_dtype type;
    float ulysses, ring; /* bounds */
} kind;

static const kind kinds[] = {
    {{.threads = 1, .exact = true}, DK_F32, 0.0f, F32_BOUND},
    {{.threads = 1, .level = "c"}, DK_F32, F32_BOUND, F32_BOUND},
    {{.threads = 1}, DK_BF16, BF16_BOUND, BF16_BOUND},
};

/* argument: "ulysses ring kind". */
static dk_status attends(const dk_transport_options *at, const char *argument, dk_error *err)
{
    int which;
    dk_layout layout = {.tp = 1, .cfg = 1, .dp = 1};
    dk_comm *world = NULL;
    dk_groups groups = {0};
    dk_nn_parallel parallel = {.groups = &groups};
    model m = {0};
    const dk_comm_options comm = {.backend = "shm",
                                  .rank = at->rank,
                                  .ranks = at->ranks,
                                  .address = at->address,
                                  .key = at->key};
    if (sscanf(argument, "%d %d %d", &layout.ulysses, &layout.ring, &which) != 3) {
        return dk_fail(err, DK_INVALID, "no layout: %s", argument);
    }
    const kind *k = &kinds[which];
    DK_TRY(dk_comm_open(&world, &comm, err));
    DK_TRY(dk_groups_create(&groups, world, &layout, err));
    DK_TRY(dk_comm_split(&parallel.control, world, 0, at->rank, "control", err));
    DK_TRY(dk_cpu_device_open(&m.device, &k->options, err));
    dk_nn_init(&m.nn, m.device, k->type, NULL);
    make_model(&m, k->type, dk_part_size(TOKENS, at->ranks, at->rank));
    dk_status status = compare(&m, &parallel, layout.ring > 1 ? k->ring : k->ulysses, err);
    release_model(&m);
    dk_comm_close(&parallel.control);
    dk_groups_release(&groups);
    dk_comm_close(&world);
    return status;
}

static void test_self_attention(void **state)
{
    (void)state;
    static const struct {
        int ulysses, ring;
    } of[] = {{2, 1}, {3, 1}, {4, 1}, {1, 2}, {1, 3}, {2, 2}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            char argument[32];
            snprintf(argument, sizeof argument, "%d %d %zu", of[i].ulysses, of[i].ring, k);
            run_ranks("attends", of[i].ulysses * of[i].ring, argument);
        }
    }
}

int main(int argc, char **argv)
{
    static const rank_case cases[] = {{"attends", attends}};
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_self_attention)};
    int code = 0;
    if (ran_as_rank(argc, argv, cases, 1, &code)) {
        return code;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
