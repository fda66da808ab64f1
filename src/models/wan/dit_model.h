/* Inside of the Wan transformer: its parameters, bound by dit_bind.c, used by dit.c. */
#ifndef DK_MODELS_WAN_DIT_MODEL_H
#define DK_MODELS_WAN_DIT_MODEL_H

#include "models/wan/dit.h"
#include "weights/binder.h"

typedef struct dk_wan_attention {
    dk_nn_linear to_q, to_k, to_v, to_out;
    const float *norm_q, *norm_k; /* [dim] */
} dk_wan_attention;

typedef struct dk_wan_block {
    dk_wan_attention attn1, attn2;   /* self, cross */
    const float *norm2, *norm2_bias; /* [dim]; NULL without cross_attn_norm */
    dk_nn_linear ffn_in, ffn_out;
    const float *scale_shift; /* [6][dim] */
} dk_wan_block;

struct dk_wan_dit {
    dk_wan_dit_config config;
    dk_weights *weights;
    dk_bound bound;            /* owns the f32 parameters */
    dk_nn_quantized quantized; /* owns the int8 weights */
    dk_comm *tp;               /* borrowed: whose ranks share out heads; NULL: all are here */
    int64_t heads, ffn_dim;    /* of this rank */
    dk_nn_linear patch_embedding;
    dk_nn_linear text_1, text_2, time_1, time_2, time_proj;
    dk_wan_block *blocks;     /* [layers] */
    const float *scale_shift; /* [2][dim] */
    dk_nn_linear proj_out;
};

static inline int64_t dk_wan_dit_dim(const dk_wan_dit *dit)
{
    return dit->config.heads * dit->config.head_dim;
}

/* The RMS norm over all heads of a row, of which this rank may have a part. */
static inline dk_nn_head_norm dk_wan_dit_norm(const dk_wan_dit *dit, const float *weight)
{
    return (dk_nn_head_norm){.weight = weight,
                             .eps = dit->config.eps,
                             .across = dit->tp,
                             .whole_cols = dk_wan_dit_dim(dit)};
}

/* Fills everything after `bound`. */
DK_MUST_USE dk_status dk_wan_dit_bind(dk_wan_dit *dit, const char *where, dk_error *err);

#endif
