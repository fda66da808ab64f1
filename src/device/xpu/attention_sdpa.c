/* Attention as one partition of oneDNN Graph: softmax(scale q k' + bias) v. Partitions are kept
   by shape. */
#include <oneapi/dnnl/dnnl_graph.h>
#include <oneapi/dnnl/dnnl_graph_sycl.h>
#include <string.h>

#include "base/alloc.h"
#include "device/xpu/xpu.h"

enum { RANK = 4 };
/* Numbers of tensors in the graph; the first ones are its operands. */
enum { Q, K, SCALE, V, BIAS, DST, SCORES, SCALED, SHIFTED, WEIGHTS, TENSORS };
enum { OPERANDS = DST + 1, MOST_OPS = 5 };

struct dk_xpu_sdpa {
    dk_xpu_key key;
    dnnl_graph_compiled_partition_t compiled; /* NULL: oneDNN has none */
    dnnl_graph_logical_tensor_t tensors[TENSORS];
    int inputs[OPERANDS], input_count; /* numbers of operands, as the partition wants them */
    size_t scratch_bytes;
    void *scale; /* device memory, one f32 */
};

/* A graph while it is put together. */
typedef struct builder {
    dk_xpu_sdpa *sdpa;
    dnnl_graph_graph_t graph;
    dnnl_graph_op_t ops[MOST_OPS];
    int op_count;
    dnnl_status_t status; /* the first failure */
} builder;

static void check(builder *b, dnnl_status_t status)
{
    b->status = b->status == dnnl_success ? status : b->status;
}

static void tensor(builder *b, int id, dnnl_data_type_t type, const dnnl_dims_t dims,
                   const dnnl_dims_t strides)
{
    check(b, dnnl_graph_logical_tensor_init_with_strides(&b->sdpa->tensors[id], (size_t)id,
                                                         type, RANK, dims, strides,
                                                         dnnl_graph_tensor_property_variable));
}

/* What flows inside: its layout is oneDNN's affair. */
static void inner(builder *b, int id, dnnl_data_type_t type, const dnnl_dims_t dims)
{
    check(b, dnnl_graph_logical_tensor_init_with_dims(
                 &b->sdpa->tensors[id], (size_t)id, type, RANK, dims,
                 dnnl_graph_layout_type_strided, dnnl_graph_tensor_property_variable));
}

static void describe(builder *b, const dk_attention_args *a)
{
    const dnnl_data_type_t type = dk_xpu_dnnl_type(a->type);
    const int64_t heads = a->heads, d = a->head_dim;
    const dnnl_dims_t one = {1, 1, 1, 1};
    const dnnl_dims_t q = {1, heads, a->q_len, d}, k = {1, heads, a->kv_len, d};
    const dnnl_dims_t scores = {1, heads, a->q_len, a->kv_len};
    /* A bias has the length 1 where all share it. */
    const dnnl_dims_t bias = {1, a->bias_head != 0 ? heads : 1, a->bias_q != 0 ? a->q_len : 1,
                              a->kv_len};
    tensor(b, Q, type, q, (dnnl_dims_t){a->q_len * a->q_stride, d, a->q_stride, 1});
    tensor(b, K, type, k, (dnnl_dims_t){a->kv_len * a->k_stride, d, a->k_stride, 1});
    tensor(b, V, type, k, (dnnl_dims_t){a->kv_len * a->v_stride, d, a->v_stride, 1});
    tensor(b, DST, type, q, (dnnl_dims_t){a->q_len * a->dst_stride, d, a->dst_stride, 1});
    tensor(b, SCALE, dnnl_f32, one, one);
    inner(b, SCORES, dnnl_f32, scores);
    inner(b, SCALED, dnnl_f32, scores);
    inner(b, WEIGHTS, type, scores);
    if (a->bias != NULL) {
        int64_t row = a->bias_q != 0 ? a->bias_q : a->kv_len;
        int64_t head = a->bias_head != 0 ? a->bias_head : row * bias[2];
        tensor(b, BIAS, dnnl_f32, bias, (dnnl_dims_t){head * bias[1], head, row, a->bias_k});
        inner(b, SHIFTED, dnnl_f32, scores);
    }
}

/* Adds dst = kind(a, b); b < 0: of one operand. */
static dnnl_graph_op_t operation(builder *b, dnnl_graph_op_kind_t kind, const char *name,
                                 int dst, int left, int right)
{
    dnnl_graph_op_t op = NULL;
    check(b, dnnl_graph_op_create(&op, (size_t)b->op_count, kind, name));
    if (b->status != dnnl_success) {
        return NULL;
    }
    b->ops[b->op_count++] = op;
    check(b, dnnl_graph_op_add_input(op, &b->sdpa->tensors[left]));
    if (right >= 0) {
        check(b, dnnl_graph_op_add_input(op, &b->sdpa->tensors[right]));
    }
    check(b, dnnl_graph_op_add_output(op, &b->sdpa->tensors[dst]));
    return op;
}

static void connect(builder *b, bool bias)
{
    const uint8_t turned = 1;
    const int64_t last = RANK - 1;
    const char *mode = "inf_as_zero"; /* a row that sees nothing gives zeros */
    dnnl_graph_op_t score = operation(b, dnnl_graph_op_matmul, "score", SCORES, Q, K);
    if (score != NULL) {
        check(b,
              dnnl_graph_op_set_attr_bool(score, dnnl_graph_op_attr_transpose_b, &turned, 1));
    }
    operation(b, dnnl_graph_op_multiply, "scale", SCALED, SCORES, SCALE);
    if (bias) {
        operation(b, dnnl_graph_op_add, "bias", SHIFTED, SCALED, BIAS);
    }
    dnnl_graph_op_t softmax =
        operation(b, dnnl_graph_op_softmax, "softmax", WEIGHTS, bias ? SHIFTED : SCALED, -1);
    if (softmax != NULL) {
        check(b, dnnl_graph_op_set_attr_s64(softmax, dnnl_graph_op_attr_axis, &last, 1));
        check(b,
              dnnl_graph_op_set_attr_str(softmax, dnnl_graph_op_attr_mode, mode, strlen(mode)));
    }
    operation(b, dnnl_graph_op_matmul, "mix", DST, WEIGHTS, V);
    for (int i = 0; i < b->op_count && b->status == dnnl_success; i++) {
        check(b, dnnl_graph_add_op(b->graph, b->ops[i]));
    }
}

static void compile(builder *b, dk_xpu *xpu, dnnl_graph_partition_t partition)
{
    dk_xpu_sdpa *s = b->sdpa;
    dnnl_graph_logical_tensor_t ports[OPERANDS], scratch;
    const dnnl_graph_logical_tensor_t *inputs[OPERANDS], *output = &s->tensors[DST];
    size_t count = 0;
    uint8_t supported = 0;
    check(b, dnnl_graph_partition_is_supported(partition, &supported));
    check(b, dnnl_graph_partition_get_input_ports_num(partition, &count));
    if (b->status != dnnl_success || !supported || count > OPERANDS) {
        check(b, dnnl_unimplemented);
        return;
    }
    check(b, dnnl_graph_partition_get_input_ports(partition, count, ports));
    s->input_count = (int)count;
    for (size_t i = 0; i < count; i++) {
        s->inputs[i] = (int)ports[i].id;
        inputs[i] = &s->tensors[ports[i].id];
    }
    check(b, dnnl_graph_compiled_partition_create(&s->compiled, partition));
    check(b, dnnl_graph_partition_compile(partition, s->compiled, count, inputs, 1, &output,
                                          xpu->engine));
    check(b,
          dnnl_graph_compiled_partition_get_scratchpad_logical_tensor(s->compiled, &scratch));
    check(b, dnnl_graph_logical_tensor_get_mem_size(&scratch, &s->scratch_bytes));
}

/* Leaves s->compiled NULL where oneDNN does not do all of it in one partition. */
static void build(dk_xpu *xpu, dk_xpu_sdpa *s, const dk_attention_args *a)
{
    builder b = {.sdpa = s};
    dnnl_graph_partition_t partitions[MOST_OPS] = {0};
    size_t count = 0;
    bool gpu = DPCTLDevice_IsGPU(xpu->device);
    check(&b, dnnl_graph_graph_create(&b.graph, gpu ? dnnl_gpu : dnnl_cpu));
    describe(&b, a);
    connect(&b, a->bias != NULL);
    if (b.status == dnnl_success) {
        check(&b, dnnl_graph_graph_finalize(b.graph));
        check(&b, dnnl_graph_graph_filter(b.graph, dnnl_graph_partition_policy_fusion));
        check(&b, dnnl_graph_graph_get_partition_num(b.graph, &count));
    }
    if (b.status == dnnl_success && count == 1) {
        check(&b, dnnl_graph_graph_get_partitions(b.graph, count, partitions));
        compile(&b, xpu, partitions[0]);
    }
    if (b.status != dnnl_success && s->compiled != NULL) {
        dnnl_graph_compiled_partition_destroy(s->compiled);
        s->compiled = NULL;
    }
    for (size_t i = 0; i < count && i < MOST_OPS; i++) {
        dnnl_graph_partition_destroy(partitions[i]);
    }
    for (int i = 0; i < b.op_count; i++) {
        dnnl_graph_op_destroy(b.ops[i]);
    }
    dnnl_graph_graph_destroy(b.graph);
}

static dk_xpu_sdpa *find(const dk_xpu *xpu, const dk_xpu_key *key)
{
    for (int i = 0; i < xpu->attention.partition_count; i++) {
        if (memcmp(&xpu->attention.partitions[i]->key, key, sizeof *key) == 0) {
            return xpu->attention.partitions[i];
        }
    }
    return NULL;
}

static dk_xpu_key key_of(const dk_attention_args *a)
{
    dk_xpu_key key = dk_xpu_attention_key(a);
    union {
        float number;
        int32_t bits;
    } scale = {a->scale};
    key.value[DK_XPU_KEY_VALUES - 1] = scale.bits;
    return key;
}

/* Made once; the scale, a tensor of the graph, is written then. */
static dk_xpu_sdpa *obtain(dk_xpu *xpu, const dk_attention_args *a)
{
    const dk_xpu_key key = key_of(a);
    dk_xpu_attention_state *state = &xpu->attention;
    dk_xpu_sdpa *sdpa = find(xpu, &key);
    if (sdpa != NULL) {
        return sdpa;
    }
    sdpa = dk_alloc(sizeof *sdpa);
    sdpa->key = key;
    build(xpu, sdpa, a);
    if (sdpa->compiled != NULL && dk_xpu_alloc(xpu, &sdpa->scale, sizeof a->scale,
                                               "an attention's scale", NULL) == DK_OK) {
        dk_xpu_write(xpu, sdpa->scale, &a->scale, sizeof a->scale);
    }
    size_t count = (size_t)state->partition_count + 1;
    state->partitions = dk_realloc(state->partitions, count * sizeof(dk_xpu_sdpa *));
    state->partitions[state->partition_count++] = sdpa;
    return sdpa;
}

bool dk_xpu_attention_has_sdpa(dk_xpu *xpu, const dk_attention_args *a, const char **why)
{
    const char *reason = NULL;
    if (a->lse != NULL) {
        reason = "it gives no log-sum-exp";
    } else if (a->causal) {
        reason = "it takes no causal mask";
    } else if (a->bias != NULL && (a->bias_head < 0 || a->bias_q < 0 || a->bias_k != 1)) {
        reason = "its bias has rows of neighbours";
    } else {
        const dk_xpu_sdpa *sdpa = obtain(xpu, a);
        reason = sdpa->compiled == NULL || sdpa->scale == NULL
                     ? "oneDNN has no single partition for it here"
                     : NULL;
    }
    *why = reason;
    return reason == NULL;
}

static dnnl_graph_tensor_t bind(dk_xpu *xpu, const dnnl_graph_logical_tensor_t *tensor,
                                void *address)
{
    dnnl_graph_tensor_t made = NULL;
    dk_xpu_dnnl_ok(xpu, dnnl_graph_tensor_create(&made, tensor, xpu->engine, address),
                   "naming an operand of attention");
    return made;
}

static void execute(dk_xpu *xpu, const dk_xpu_sdpa *s, void *const *addresses, void *scratch)
{
    dnnl_graph_tensor_t inputs[OPERANDS] = {0}, output, room = NULL;
    dnnl_graph_logical_tensor_t tensor;
    for (int i = 0; i < s->input_count; i++) {
        inputs[i] = bind(xpu, &s->tensors[s->inputs[i]], addresses[s->inputs[i]]);
    }
    output = bind(xpu, &s->tensors[DST], addresses[DST]);
    if (s->scratch_bytes > 0 && dnnl_graph_compiled_partition_get_scratchpad_logical_tensor(
                                    s->compiled, &tensor) == dnnl_success) {
        room = bind(xpu, &tensor, scratch);
    }
    DPCTLSyclEventRef event = xpu->head.trace != NULL ? DPCTLEvent_Create() : NULL;
    if (xpu->head.failed == DK_OK) {
        dnnl_status_t status = dnnl_graph_sycl_interop_compiled_partition_execute_v2(
            s->compiled, xpu->stream, (size_t)s->input_count,
            (const_dnnl_graph_tensor_t *)inputs, 1, (const_dnnl_graph_tensor_t *)&output, room,
            NULL, event);
        dk_xpu_dnnl_ok(xpu, status, "attention as one partition");
        dk_xpu_span_note(xpu, DK_XPU_LANE_COMPUTE, "attention", "one partition", event, 0);
        dk_xpu_enqueued(xpu);
    }
    for (int i = 0; i < s->input_count; i++) {
        dnnl_graph_tensor_destroy(inputs[i]);
    }
    dnnl_graph_tensor_destroy(output);
    dnnl_graph_tensor_destroy(room);
    DPCTLEvent_Delete(event);
}

void dk_xpu_attention_sdpa(dk_xpu *xpu, const dk_attention_args *a)
{
    const dk_xpu_sdpa *s = obtain(xpu, a);
    void *scratch = s->scratch_bytes > 0 ? dk_xpu_scratch(xpu, s->scratch_bytes) : NULL;
    if (xpu->head.dry || xpu->head.failed != DK_OK) {
        return;
    }
    void *const addresses[OPERANDS] = {[Q] = dk_xpu_operand(xpu, a->q),
                                       [K] = dk_xpu_operand(xpu, a->k),
                                       [SCALE] = s->scale,
                                       [V] = dk_xpu_operand(xpu, a->v),
                                       [BIAS] = dk_xpu_operand(xpu, a->bias),
                                       [DST] = dk_xpu_operand(xpu, a->dst)};
    execute(xpu, s, addresses, scratch);
}

void dk_xpu_attention_sdpa_release(dk_xpu *xpu)
{
    dk_xpu_attention_state *state = &xpu->attention;
    for (int i = 0; i < state->partition_count; i++) {
        dk_xpu_sdpa *sdpa = state->partitions[i];
        if (sdpa->compiled != NULL) {
            dnnl_graph_compiled_partition_destroy(sdpa->compiled);
        }
        dk_xpu_free(xpu, sdpa->scale);
        dk_free(sdpa);
    }
    dk_free(state->partitions);
    state->partitions = NULL;
    state->partition_count = 0;
}
