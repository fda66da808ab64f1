/* Inside attention: how keys and values lie in the memory that the first stages fill and the
   last one reads. */
#ifndef DK_KERNELS_ATTENTION_LAYOUT_H
#define DK_KERNELS_ATTENTION_LAYOUT_H

#include "kernels/attention.h"

enum {
    DK_ATTENTION_KEYS = 256,      /* keys whose scores are held at a time */
    DK_ATTENTION_PACK_BLOCKS = 4, /* such blocks of keys in one packing task */
};

/* Keys of a block: whole panels. */
static inline int64_t dk_attention_key_block(const dk_attention_plan *plan)
{
    return DK_ATTENTION_KEYS / plan->kernel->nr * plan->kernel->nr;
}

static inline int64_t dk_attention_k_panel(const dk_attention_plan *plan,
                                           const dk_attention_args *args)
{
    return dk_gemm_b_bytes(plan->score_kernel, args->head_dim);
}

static inline int64_t dk_attention_v_panel(const dk_attention_plan *plan)
{
    return dk_gemm_b_bytes(plan->kernel, dk_attention_key_block(plan));
}

static inline int64_t dk_attention_v_block(const dk_attention_plan *plan,
                                           const dk_attention_args *args)
{
    return dk_ceil_div(args->head_dim, plan->kernel->nr) * dk_attention_v_panel(plan);
}

/* One head: panels of all keys, then for each block of keys its panels of values; quantised,
   also the scale of each key, and the mean that was taken from all keys. */
typedef struct dk_attention_head {
    char *k, *v;
    float *scales, *mean; /* [kv_len], [head_dim] */
    size_t bytes;
} dk_attention_head;

/* packed: memory of all heads; NULL for the size alone. */
static inline dk_attention_head dk_attention_head_at(const dk_attention_plan *plan,
                                                     const dk_attention_args *args,
                                                     const void *packed, int64_t head)
{
    int64_t panels = dk_ceil_div(args->kv_len, plan->kernel->nr);
    int64_t blocks = dk_ceil_div(args->kv_len, dk_attention_key_block(plan));
    size_t k = dk_whole_lines((size_t)(panels * dk_attention_k_panel(plan, args)));
    size_t v = dk_whole_lines((size_t)(blocks * dk_attention_v_block(plan, args)));
    size_t keys = (size_t)args->kv_len;
    size_t scales = plan->quantized ? dk_whole_lines(keys * sizeof(float)) : 0;
    size_t mean = plan->quantized ? dk_whole_lines((size_t)args->head_dim * sizeof(float)) : 0;
    dk_attention_head at = {.bytes = k + v + scales + mean};
    if (packed != NULL) {
        at.k = (char *)packed + (size_t)head * at.bytes;
        at.v = at.k + k;
        at.scales = (float *)(void *)(at.v + v);
        at.mean = (float *)(void *)(at.v + v + scales);
    }
    return at;
}

static inline const char *dk_attention_element(const void *base, dk_dtype type, int64_t row,
                                               int64_t stride, int64_t column)
{
    return (const char *)base + (size_t)(row * stride + column) * dk_dtype_bytes(type);
}

#endif
