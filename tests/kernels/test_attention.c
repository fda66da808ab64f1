/* Attention against plain loops in double, at every level of the CPU: head sizes and lengths
   off every block's size, strided biases, causal masks with rows that see nothing, strided
   rows, log-sum-exp; and the softmax step alone. */
#include "test.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/attention.h"
#include "kernels/cpu_flags.h"
#include "kernels/grouped_gemm.h"
#include "tensor/convert.h"

enum { ROW_PADDING = 5 };

typedef enum bias_kind {
    NO_BIAS,
    FULL_BIAS,     /* [heads][q][k] */
    KEY_BIAS,      /* [k], the same for all heads and queries, some of it -inf */
    RELATIVE_BIAS, /* [heads][distance], distance k - q */
    BACKWARD_BIAS, /* [q][k] with the keys stored last to first */
} bias_kind;

typedef struct attention_case {
    int heads, head_dim, q_len, kv_len;
    bool causal;
    bias_kind bias;
    float scale; /* 0: 1 / sqrt(head_dim) */
} attention_case;

static const attention_case cases[] = {
    {1, 1, 1, 1, false, NO_BIAS, 0},
    {2, 5, 7, 3, false, NO_BIAS, 0},
    {3, 16, 100, 513, false, FULL_BIAS, 0},
    {2, 40, 97, 257, false, KEY_BIAS, 0},
    {2, 64, 193, 513, true, NO_BIAS, 0},
    {2, 64, 33, 33, true, RELATIVE_BIAS, 1.0f},
    {1, 128, 96, 256, false, NO_BIAS, 0},
    {2, 128, 5, 300, true, BACKWARD_BIAS, 0},
    {1, 512, 13, 77, false, NO_BIAS, 0},
    {2, 40, 50, 20, true, NO_BIAS, 0},  /* the first 30 queries see nothing */
    {1, 16, 300, 3, true, KEY_BIAS, 0}, /* whole blocks of queries see nothing */
    {1, 5, 1, 1000, false, NO_BIAS, 4.0f},
};

static float random_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* count random values of the type; the same numbers in f32. */
static void *random_buffer(float **plain, dk_dtype type, size_t count, uint32_t *state)
{
    void *memory = dk_alloc(count * dk_dtype_bytes(type));
    *plain = dk_alloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        (*plain)[i] = random_value(state) * 2.0f;
    }
    dk_convert_from_f32(memory, type, *plain, (int64_t)count);
    dk_convert_to_f32(*plain, memory, type, (int64_t)count);
    return memory;
}

/* One prepared case: the kernel's operands and the same values in f32. */
typedef struct attention_data {
    dk_attention_args args;
    float *q, *k, *v;
    float *bias_table;
    size_t dst_count;
} attention_data;

static void prepare_bias(attention_data *data, const attention_case *c, uint32_t *state)
{
    dk_attention_args *a = &data->args;
    int64_t q = c->q_len, k = c->kv_len;
    size_t count = (size_t)(c->heads * (q + 1) * (k + 1)) + (size_t)(q + k);
    void *memory = random_buffer(&data->bias_table, DK_F32, count, state);
    dk_free(memory);
    a->bias = data->bias_table;
    a->bias_k = 1;
    switch (c->bias) {
    case FULL_BIAS:
        a->bias_head = q * k;
        a->bias_q = k;
        break;
    case KEY_BIAS:
        for (int64_t i = 1; i < k; i += 2) {
            data->bias_table[i] = -INFINITY;
        }
        break;
    case RELATIVE_BIAS:
        a->bias_head = q + k;
        a->bias_q = -1;
        a->bias += q - 1; /* distance 0 */
        break;
    case BACKWARD_BIAS:
        a->bias_q = k;
        a->bias_k = -1;
        a->bias += k - 1;
        break;
    default:
        a->bias = NULL;
        break;
    }
}

static void prepare(attention_data *data, const attention_case *c, dk_dtype type)
{
    uint32_t state = 3;
    int64_t width = (int64_t)c->heads * c->head_dim;
    *data = (attention_data){0};
    dk_attention_args *a = &data->args;
    *a = (dk_attention_args){.heads = c->heads,
                             .head_dim = c->head_dim,
                             .q_len = c->q_len,
                             .kv_len = c->kv_len,
                             .type = type,
                             .q_stride = width + 1,
                             .k_stride = width,
                             .v_stride = width + 3,
                             .dst_stride = width + ROW_PADDING,
                             .causal = c->causal};
    a->scale = c->scale > 0.0f ? c->scale : 1.0f / sqrtf((float)c->head_dim);
    a->q = random_buffer(&data->q, type, (size_t)(c->q_len * a->q_stride), &state);
    a->k = random_buffer(&data->k, type, (size_t)(c->kv_len * a->k_stride), &state);
    a->v = random_buffer(&data->v, type, (size_t)(c->kv_len * a->v_stride), &state);
    data->dst_count = (size_t)(c->q_len * a->dst_stride);
    a->dst = dk_alloc(data->dst_count * dk_dtype_bytes(type));
    for (size_t i = 0; i < data->dst_count; i++) {
        float canary = 77.0f;
        dk_convert_from_f32((char *)a->dst + i * dk_dtype_bytes(type), type, &canary, 1);
    }
    a->lse = dk_alloc((size_t)(c->heads * c->q_len + 1) * sizeof(float));
    a->lse[c->heads * c->q_len] = 77.0f;
    prepare_bias(data, c, &state);
}

static void release(attention_data *data)
{
    const void *memory[] = {data->args.q, data->args.k, data->args.v, data->args.dst};
    for (int i = 0; i < 4; i++) {
        dk_free((void *)(uintptr_t)memory[i]);
    }
    dk_free(data->q);
    dk_free(data->k);
    dk_free(data->v);
    dk_free(data->bias_table);
    dk_free(data->args.lse);
}

/* One row: out[head_dim] in double; returns its log-sum-exp. scores: [kv_len] to work in. */
static double expected_row(const attention_data *data, int h, int64_t q, double *scores,
                           double *out)
{
    const dk_attention_args *a = &data->args;
    double max = -INFINITY, sum = 0.0;
    for (int64_t k = 0; k < a->kv_len; k++) {
        double dot = 0.0;
        for (int i = 0; i < a->head_dim; i++) {
            dot += (double)data->q[q * a->q_stride + h * a->head_dim + i] *
                   (double)data->k[k * a->k_stride + h * a->head_dim + i];
        }
        dot *= (double)a->scale;
        if (a->bias != NULL) {
            dot += (double)a->bias[h * a->bias_head + q * a->bias_q + k * a->bias_k];
        }
        scores[k] = a->causal && k > q + a->kv_len - a->q_len ? (double)-INFINITY : dot;
        max = fmax(max, scores[k]);
    }
    for (int i = 0; i < a->head_dim; i++) {
        out[i] = 0.0;
    }
    if (max == (double)-INFINITY) {
        return max;
    }
    for (int64_t k = 0; k < a->kv_len; k++) {
        double weight = exp(scores[k] - max);
        sum += weight;
        for (int i = 0; i < a->head_dim; i++) {
            out[i] += weight * (double)data->v[k * a->v_stride + h * a->head_dim + i];
        }
    }
    for (int i = 0; i < a->head_dim; i++) {
        out[i] /= sum;
    }
    return max + log(sum);
}

static void assert_close(double got, double want, double tolerance, const char *where)
{
    bool close = got == want || fabs(got - want) <= tolerance * fmax(1.0, fabs(want));
    if (!close) {
        fail_msg("%s: got %.9g, expected %.9g", where, got, want);
    }
}

static void compare(const attention_data *data, double tolerance, const char *where)
{
    const dk_attention_args *a = &data->args;
    float *got = dk_alloc(data->dst_count * sizeof *got);
    double *scores = dk_alloc((size_t)a->kv_len * sizeof *scores);
    double *row = dk_alloc((size_t)a->head_dim * sizeof *row);
    dk_convert_to_f32(got, a->dst, a->type, (int64_t)data->dst_count);
    for (int64_t q = 0; q < a->q_len; q++) {
        for (int h = 0; h < a->heads; h++) {
            double lse = expected_row(data, h, q, scores, row);
            assert_close((double)a->lse[h * a->q_len + q], lse, tolerance, where);
            for (int i = 0; i < a->head_dim; i++) {
                assert_close((double)got[q * a->dst_stride + h * a->head_dim + i], row[i],
                             tolerance, where);
            }
        }
        for (int i = 0; i < ROW_PADDING; i++) {
            assert_true(got[(q + 1) * a->dst_stride - 1 - i] == 77.0f);
        }
    }
    assert_true(a->lse[a->heads * a->q_len] == 77.0f);
    dk_free(row);
    dk_free(scores);
    dk_free(got);
}

/* Memory that reads as NaN wherever something is used unwritten, with a canary behind it. */
static char *poisoned(size_t bytes)
{
    void *memory;
    dk_error err;
    assert_ok(dk_try_alloc(&memory, bytes + DK_ALIGNMENT, "scratch", &err), err);
    memset(memory, 0xff, bytes + DK_ALIGNMENT);
    return memory;
}

static void free_poisoned(char *memory, size_t bytes)
{
    for (size_t i = 0; i < DK_ALIGNMENT; i++) {
        assert_int_equal((unsigned char)memory[bytes + i], 0xff);
    }
    dk_free(memory);
}

static void run_case(const dk_attention_kernels *kernels, int number, dk_dtype type, bool exact,
                     const char *level)
{
    attention_data data;
    dk_attention_plan plan;
    char where[64];
    assert_true(snprintf(where, sizeof where, "%s, case %d, %s", level, number,
                         dk_dtype_name(type)) > 0);
    prepare(&data, &cases[number], type);
    dk_attention_plan_init(&plan, kernels, &data.args, exact);
    assert_true(plan.scratch_bytes < 1u << 20);
    char *packed = poisoned(plan.packed_bytes), *scratch = poisoned(plan.scratch_bytes);
    for (int task = 0; task < data.args.heads * plan.pack_blocks; task++) {
        dk_attention_pack(&plan, &data.args, task, packed);
    }
    for (int task = 0; task < data.args.heads * plan.q_blocks; task++) {
        dk_attention_block(kernels, &plan, &data.args, task, packed, scratch);
    }
    free_poisoned(packed, plan.packed_bytes);
    free_poisoned(scratch, plan.scratch_bytes);
    compare(&data, type == DK_F32 ? 1e-5 : 1e-2, where);
    release(&data);
}

/* Calls what is to be checked at every level that this machine has. */
static void at_every_level(void (*check)(const dk_attention_kernels *, const char *))
{
    unsigned flags = dk_cpu_flags_detect();
    for (int i = 0; i < DK_CPU_LEVELS; i++) {
        unsigned wanted = dk_cpu_levels[i].flags;
        if ((flags & wanted) == wanted) {
            dk_attention_kernels kernels;
            dk_attention_kernels_init(&kernels, wanted);
            check(&kernels, dk_cpu_levels[i].name);
        }
    }
}

static void check_cases(const dk_attention_kernels *kernels, const char *level)
{
    for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
        run_case(kernels, i, DK_F32, true, level);
        run_case(kernels, i, DK_BF16, true, level);
        run_case(kernels, i, DK_BF16, false, level);
    }
}

static void attention_matches(void **state)
{
    (void)state;
    at_every_level(check_cases);
}

static void any_kernel_shape_will_do(void **state)
{
    (void)state;
    dk_attention_kernels kernels;
    dk_attention_kernels_init(&kernels, 0);
    kernels.gemm.bf16 = grouped_gemm();
    for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
        run_case(&kernels, i, DK_BF16, false, "grouped");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_matches),
        cmocka_unit_test(any_kernel_shape_will_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
