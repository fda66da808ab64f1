/* Shared layers: each fills the argument struct of one device operation. */
#include "nn/layers.h"

#include "nn/parallel.h"

#include <assert.h>
#include <math.h>

void dk_nn_bind_linear(dk_binder *b, dk_nn_linear *linear, int64_t out, int64_t in,
                       dk_nn_split split, int64_t unit, bool with_bias, const char *prefix)
{
    const int64_t shape[2] = {out, in};
    if (split == DK_NN_WHOLE) {
        dk_bind_tensor(b, &linear->weight, 2, shape, "%s.weight", prefix);
    } else {
        dk_bind_part(b, &linear->weight, split == DK_NN_OUTPUTS ? 0 : 1, unit, shape,
                     "%s.weight", prefix);
    }
    if (with_bias && split == DK_NN_OUTPUTS) {
        dk_bind_f32_part(b, &linear->bias, out, unit, "%s.bias", prefix);
    } else if (with_bias) {
        dk_bind_f32(b, &linear->bias, out, "%s.bias", prefix);
    }
    linear->sum_over = split == DK_NN_INPUTS ? b->comm : NULL;
}

static int64_t rows_of(const dk_tensor *x)
{
    return x->shape[0];
}

static int64_t cols_of(const dk_tensor *x)
{
    return x->shape[1];
}

static dk_linear_args linear_args(const dk_nn_linear *layer, const dk_tensor *dst,
                                  const dk_tensor *src, const dk_nn_epilogue *epilogue)
{
    static const dk_nn_epilogue none = {.activation = DK_ACT_NONE};
    const dk_nn_epilogue *end = epilogue != NULL ? epilogue : &none;
    assert(dk_tensor_count(&layer->weight) == cols_of(dst) * cols_of(src));
    assert(rows_of(dst) == rows_of(src) && (!end->residual || dst->dtype == DK_F32));
    return (dk_linear_args){
        .rows = rows_of(src),
        .cols = cols_of(dst),
        .depth = cols_of(src),
        .src = src->data,
        .src_type = src->dtype,
        .src_stride = cols_of(src),
        .weight = layer->weight.data,
        .weight_type = layer->weight.dtype,
        .quantized = layer->quantized,
        .bias = layer->bias,
        .activation = end->activation,
        .multiply = end->multiply != NULL ? end->multiply->data : NULL,
        .gate = end->gate,
        .residual = end->residual ? dst->data : NULL,
        .dst = dst->data,
        .dst_type = dst->dtype,
        .dst_stride = cols_of(dst),
    };
}

/* Every rank has a part of the inputs. The gate is linear: each applies it to its part; the
   bias is the first rank's. Sums travel in the type of activations. */
static void forward_summed(dk_nn *nn, const dk_nn_linear *layer, const dk_tensor *dst,
                           const dk_tensor *src, const dk_nn_epilogue *epilogue)
{
    size_t mark = dk_nn_mark(nn);
    const dk_nn_epilogue end = {.gate = epilogue != NULL ? epilogue->gate : NULL};
    dk_nn_linear part = *layer;
    dk_tensor sums = dk_nn_temp(nn, nn->type, rows_of(dst), cols_of(dst));
    assert(epilogue == NULL ||
           (epilogue->activation == DK_ACT_NONE && epilogue->multiply == NULL));
    part.bias = dk_comm_rank(layer->sum_over) == 0 ? layer->bias : NULL;
    dk_linear_args args = linear_args(&part, &sums, src, &end);
    dk_device_linear(nn->device, &args);
    dk_nn_sum(nn, layer->sum_over, &sums);
    if (epilogue == NULL || !epilogue->residual) {
        dk_nn_map(nn, dst, &sums, DK_ACT_NONE);
    } else if (sums.dtype == DK_F32) {
        dk_nn_add(nn, dst, dst, &sums);
    } else {
        dk_tensor wide = dk_nn_temp(nn, DK_F32, rows_of(dst), cols_of(dst));
        dk_nn_map(nn, &wide, &sums, DK_ACT_NONE);
        dk_nn_add(nn, dst, dst, &wide);
    }
    dk_nn_unwind(nn, mark);
}

void dk_nn_linear_forward(dk_nn *nn, const dk_nn_linear *layer, const dk_tensor *dst,
                          const dk_tensor *src, const dk_nn_epilogue *epilogue)
{
    if (layer->sum_over != NULL && nn->parallel != NULL) {
        forward_summed(nn, layer, dst, src, epilogue);
        return;
    }
    dk_linear_args args = linear_args(layer, dst, src, epilogue);
    dk_device_linear(nn->device, &args);
}

void dk_nn_linear_group(dk_nn *nn, const dk_tensor *src, const dk_nn_linear_call *calls,
                        int count)
{
    dk_linear_args args[DK_NN_MOST_CALLS];
    assert(count <= DK_NN_MOST_CALLS);
    for (int i = 0; i < count; i++) {
        args[i] = linear_args(calls[i].layer, calls[i].dst, src, calls[i].epilogue);
    }
    dk_device_linear_group(nn->device, args, count);
}

void dk_nn_norm_forward(dk_nn *nn, const dk_nn_norm *norm, const dk_tensor *dst,
                        const dk_tensor *src)
{
    assert(dk_tensor_count(dst) == dk_tensor_count(src));
    dk_norm_args args = {
        .kind = norm->kind,
        .activation = norm->activation,
        .rows = rows_of(src),
        .cols = cols_of(src),
        .src = src->data,
        .src_type = src->dtype,
        .dst = dst->data,
        .dst_type = dst->dtype,
        .weight = norm->weight,
        .bias = norm->bias,
        .scale = norm->scale,
        .shift = norm->shift,
        .eps = norm->eps,
    };
    dk_device_norm(nn->device, &args);
}

void dk_nn_norm_rope(dk_nn *nn, const dk_tensor *x, int heads, const dk_nn_head_norm *norm,
                     const dk_nn_rope *rope)
{
    size_t mark = dk_nn_mark(nn);
    dk_norm_rope_args args = {
        .rows = rows_of(x),
        .heads = heads,
        .head_dim = (int)(cols_of(x) / heads),
        .data = x->data,
        .type = x->dtype,
        .stride = cols_of(x),
        .weight = norm != NULL ? norm->weight : NULL,
        .eps = norm != NULL ? norm->eps : 0.0f,
        .cos = rope != NULL ? rope->cos : NULL,
        .sin = rope != NULL ? rope->sin : NULL,
    };
    if (norm != NULL && norm->across != NULL && nn->parallel != NULL) {
        dk_tensor sums = dk_nn_temp(nn, DK_F32, rows_of(x), 1);
        dk_device_row_squares(nn->device, &args, sums.data);
        dk_nn_sum(nn, norm->across, &sums);
        args.squares = sums.data;
        args.whole_cols = norm->whole_cols;
    }
    dk_device_norm_rope(nn->device, &args);
    dk_nn_unwind(nn, mark);
}

void dk_nn_attention(dk_nn *nn, const dk_tensor *dst, const dk_tensor *q, const dk_tensor *k,
                     const dk_tensor *v, int heads, float scale, const dk_nn_bias *bias)
{
    assert(rows_of(k) == rows_of(v) && cols_of(q) == cols_of(k) && q->dtype == k->dtype);
    dk_attention_args args = {
        .heads = heads,
        .head_dim = (int)(cols_of(q) / heads),
        .q_len = rows_of(q),
        .kv_len = rows_of(k),
        .q = q->data,
        .k = k->data,
        .v = v->data,
        .type = q->dtype,
        .q_stride = cols_of(q),
        .k_stride = cols_of(k),
        .v_stride = cols_of(v),
        .dst_stride = cols_of(dst),
        .scale = scale,
        .bias = bias != NULL ? bias->values : NULL,
        .bias_head = bias != NULL ? bias->head : 0,
        .bias_q = bias != NULL ? bias->q : 0,
        .bias_k = bias != NULL ? bias->k : 0,
        .dst = dst->data,
    };
    dk_device_attention(nn->device, &args);
}

void dk_nn_map(dk_nn *nn, const dk_tensor *dst, const dk_tensor *src, dk_activation activation)
{
    assert(dk_tensor_count(dst) == dk_tensor_count(src));
    dk_device_map(nn->device, dst->data, dst->dtype, src->data, src->dtype, activation,
                  dk_tensor_count(src));
}

void dk_nn_add(dk_nn *nn, const dk_tensor *dst, const dk_tensor *a, const dk_tensor *b)
{
    const float *sources[] = {a->data, b->data};
    const float ones[] = {1.0f, 1.0f};
    dk_device_combine(nn->device, dst->data, sources, ones, 2, dk_tensor_count(dst));
}

void dk_nn_timestep_embedding(dk_nn *nn, const dk_tensor *dst, float timestep)
{
    enum { MAX = 4096 };
    float values[MAX];
    int half = (int)(cols_of(dst) / 2);
    assert(2 * half <= MAX);
    for (int i = 0; i < half; i++) {
        float frequency = expf(-logf(10000.0f) * (float)i / (float)half);
        float angle = timestep * frequency;
        values[i] = cosf(angle);
        values[half + i] = sinf(angle);
    }
    dk_device_write(nn->device, dst->data, values, 2 * (size_t)half * sizeof *values);
}

void dk_nn_copy_columns(dk_nn *nn, dk_nn_columns dst, dk_nn_columns src, int64_t rows,
                        int64_t cols)
{
    const dk_permute_args args = {.rank = 2,
                                  .shape = {rows, cols},
                                  .src_stride = {src.stride, 1},
                                  .dst_stride = {dst.stride, 1},
                                  .src = src.data,
                                  .src_type = src.type,
                                  .dst = dst.data,
                                  .dst_type = dst.type};
    if (rows > 0 && cols > 0) {
        dk_device_permute(nn->device, &args);
    }
}
