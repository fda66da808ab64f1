/* Layers that the models share, over tensors [rows][cols]. Each call is one operation of the
   device; a layer's struct holds borrowed views of weights. */
#ifndef DK_NN_LAYERS_H
#define DK_NN_LAYERS_H

#include "comm/communicator.h"
#include "nn/context.h"
#include "weights/binder.h"

/* y = x Wᵀ + bias. weight: [out][in] as stored, further unit axes allowed; bias: [out] or
   NULL. */
typedef struct dk_nn_linear {
    dk_tensor weight;
    const float *bias;
    const dk_linear_quantized *quantized; /* borrowed: takes the weight's place; NULL: none */
    dk_comm *sum_over; /* borrowed: each of these ranks has a part of the inputs, and results
                          are summed; NULL: this one has all */
} dk_nn_linear;

/* How a layer of a split model is shared out among its ranks (dk_weights_split): by outputs,
   units of so many of which stay together, or by inputs. */
typedef enum dk_nn_split { DK_NN_WHOLE, DK_NN_OUTPUTS, DK_NN_INPUTS } dk_nn_split;

/* Binds "<prefix>.weight" [out][in] and, with_bias, "<prefix>.bias". */
void dk_nn_bind_linear(dk_binder *binder, dk_nn_linear *linear, int64_t out, int64_t in,
                       dk_nn_split split, int64_t unit, bool with_bias, const char *prefix);

/* What happens to a linear layer's result before it is stored, in this order. */
typedef struct dk_nn_epilogue {
    dk_activation activation;
    const dk_tensor *multiply; /* like dst */
    const float *gate;         /* [out], one for all rows */
    bool residual;             /* adds what dst (F32) holds */
} dk_nn_epilogue;

/* dst: [rows][out], src: [rows][in]; epilogue may be NULL. */
void dk_nn_linear_forward(dk_nn *nn, const dk_nn_linear *layer, const dk_tensor *dst,
                          const dk_tensor *src, const dk_nn_epilogue *epilogue);

/* Layers of one src, in this order: what has to be done to src is done once. An epilogue may
   read what an earlier layer wrote. */
typedef struct dk_nn_linear_call {
    const dk_nn_linear *layer;
    const dk_tensor *dst;
    const dk_nn_epilogue *epilogue; /* may be NULL */
} dk_nn_linear_call;
enum { DK_NN_MOST_CALLS = 8 };
void dk_nn_linear_group(dk_nn *nn, const dk_tensor *src, const dk_nn_linear_call *calls,
                        int count);

/* Affine or modulated normalisation of rows; absent operands NULL, vectors [cols]. */
typedef struct dk_nn_norm {
    dk_norm_kind kind;
    float eps;
    const float *weight, *bias;
    const float *scale, *shift; /* y (1 + scale) + shift */
    dk_activation activation;
} dk_nn_norm;
void dk_nn_norm_forward(dk_nn *nn, const dk_nn_norm *norm, const dk_tensor *dst,
                        const dk_tensor *src);

/* Rotary tables of one sequence: [rows][head_dim / 2]. */
typedef struct dk_nn_rope {
    const float *cos, *sin;
} dk_nn_rope;

/* RMS norm over all heads of a row, of whole_cols elements. */
typedef struct dk_nn_head_norm {
    const float *weight; /* [cols], of the heads that are here */
    float eps;
    dk_comm *across; /* borrowed: ranks that have the other heads; NULL: all are here */
    int64_t whole_cols;
} dk_nn_head_norm;

/* The norm, then rotary embedding, in place; each may be NULL. */
void dk_nn_norm_rope(dk_nn *nn, const dk_tensor *x, int heads, const dk_nn_head_norm *norm,
                     const dk_nn_rope *rope);

/* Bias of attention scores; see dk_attention_args. */
typedef struct dk_nn_bias {
    const float *values;
    int64_t head, q, k; /* strides */
} dk_nn_bias;

/* dst, q: [q_len][heads * head_dim]; k, v: [kv_len][heads * head_dim]. bias may be NULL. */
void dk_nn_attention(dk_nn *nn, const dk_tensor *dst, const dk_tensor *q, const dk_tensor *k,
                     const dk_tensor *v, int heads, float scale, const dk_nn_bias *bias);

/* dst = activation(src), converting between F32 and BF16. */
void dk_nn_map(dk_nn *nn, const dk_tensor *dst, const dk_tensor *src, dk_activation activation);

/* dst = a + b, all F32 of one size; dst may be a or b. */
void dk_nn_add(dk_nn *nn, const dk_tensor *dst, const dk_tensor *a, const dk_tensor *b);

/* Sinusoidal embedding of a timestep as in Ho et al., "Denoising Diffusion Probabilistic
   Models" (2020): dst[i] = cos(t f_i), dst[half + i] = sin(t f_i), f_i = 10000^(-i / half);
   dst: [1][2 half] F32. */
void dk_nn_timestep_embedding(dk_nn *nn, const dk_tensor *dst, float timestep);

/* Some columns of a matrix whose rows lie `stride` elements apart. */
typedef struct dk_nn_columns {
    void *data;
    int64_t stride;
    dk_dtype type;
} dk_nn_columns;

/* dst = src, [rows][cols], of types that differ or not. */
void dk_nn_copy_columns(dk_nn *nn, dk_nn_columns dst, dk_nn_columns src, int64_t rows,
                        int64_t cols);

#endif
