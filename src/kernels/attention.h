/* Scaled dot-product attention with online softmax: no score matrix is ever stored.
   Sources: Dao et al., "FlashAttention" (2022); Milakov and Gimelshein, "Online normalizer
   calculation for softmax" (2018). Statistics are f32. */
#ifndef DK_KERNELS_ATTENTION_H
#define DK_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/blocking.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"
#include "tensor/dtype.h"

/* dst[q][h] = sum_k softmax_k(scale * q[q][h]·k[k][h] + bias[h][q][k]) v[k][h]. Head h of a row
   starts at element h * head_dim; any head_dim from 1 to 512. */
typedef struct dk_attention_args {
    int heads, head_dim;
    int64_t q_len, kv_len; /* kv_len > 0 */
    const void *q, *k, *v; /* rows of heads * head_dim elements, F32 or BF16 */
    dk_dtype type;         /* of q, k, v and dst */
    int64_t q_stride, k_stride, v_stride, dst_stride; /* elements from row to row */
    float scale;
    bool causal; /* key j is seen by query i when j <= i + kv_len - q_len */
    /* Additive bias of score (h, q, k) at bias[h * bias_head + q * bias_q + k * bias_k], f32,
       or NULL. Strides may be 0 (a bias per key) or negative (a relative table: bias_q = -1,
       bias_k = 1, bias pointing at distance 0). */
    const float *bias;
    int64_t bias_head, bias_q, bias_k;
    void *dst;
    float *lse; /* [heads][q_len] log-sum-exp of the scores, or NULL */
    /* Where k and v are one of several parts of the keys, which come one after the other: what
       the parts before gave goes on with this one. sum: [q_len][heads * head_dim], the output
       before its division; running: [2][heads][q_len], the maximum of the scores, to the base
       2, and the sum of exponentials. The last part's result goes to dst, and lse, which no
       other part touches. NULL: k and v are all there is. */
    float *sum, *running;
    bool first, last;
} dk_attention_args;

/* Attention over some of the keys is made one with that over others: sum = both, each weighted
   by its share of the exponentials, which the log-sum-exps tell. first: sum and sum_lse hold
   nothing yet. */
typedef struct dk_attention_merge_args {
    int heads, head_dim;
    int64_t rows;
    float *sum;            /* [rows][heads * head_dim] */
    float *sum_lse;        /* [heads][rows] */
    const void *part;      /* like sum, of type */
    const float *part_lse; /* like sum_lse */
    dk_dtype type;         /* F32 or BF16 */
    bool first;
} dk_attention_merge_args;

void dk_attention_merge_rows(const dk_attention_merge_args *args, int64_t row0, int64_t row1);

/* How attention is computed. SAGE multiplies queries and keys as int8, each row with a scale of
   its own, keys after taking their mean over the sequence (which no softmax sees); attentions
   with a bias or a mask are computed as FLASH. Source: Zhang et al., "SageAttention: Accurate
   8-Bit Attention for Plug-and-play Inference Acceleration" (2024). */
typedef enum dk_attention_backend {
    DK_ATTENTION_FLASH,     /* bf16 operands where the CPU multiplies them, else f32 */
    DK_ATTENTION_REFERENCE, /* f32 operands */
    DK_ATTENTION_SAGE,
    DK_ATTENTION_AUTO, /* what the device thinks best */
    DK_ATTENTION_SDPA, /* a library's fused attention, where the device has one */
} dk_attention_backend;

typedef struct dk_attention_plan {
    const dk_gemm_kernel *kernel, *score_kernel; /* of probabilities · V, of Q · Kᵀ */
    bool quantized;                              /* score_kernel multiplies int8 */
    int mean_tasks;                              /* of stage 0; 0: there is none */
    int block_q;                                 /* queries of one task, at most */
    int q_blocks;                                /* blocks of so many queries, of one head */
    dk_cut cut;           /* of all heads' blocks into tasks of stage 2 */
    int pack_blocks;      /* tasks of stage 1 = heads * pack_blocks */
    size_t packed_bytes;  /* K and V of all heads, packed: shared memory, aligned to 64 */
    size_t scratch_bytes; /* per thread, aligned to 64 */
} dk_attention_plan;

/* One block of the online softmax, to the base 2: multiplies the scores by scale, takes the
   running maximum and sum of each row, leaves 2^(score - new maximum) in their place and in
   shrink the factor by which the row's earlier output and sum shrink. */
typedef struct dk_softmax_args {
    float *scores; /* [rows][cols], ld elements apart */
    int64_t ld;
    int rows, cols; /* cols: a multiple of 16; what is masked holds -inf */
    float scale;    /* > 0 */
    /* NULL, or the scores are int32 and score (m, n) is multiplied by key_scale[n] and
       query_scale[m] > 0 too; what is masked holds 1, with a key_scale of -inf. */
    const float *key_scale, *query_scale;
    float *max, *sum, *shrink; /* [rows] */
    /* NULL, or where the results go as bf16 instead: the A operand of a kernel whose a_group is
       packed_group, zero-padded to whole groups; scores are then undefined. */
    void *packed;
    int64_t packed_ld;
} dk_softmax_args;

typedef struct dk_attention_kernels {
    dk_gemm_kernels gemm;
    dk_quantize_kernels quantize;
    void (*softmax)(const dk_softmax_args *args);
    int packed_group; /* of what softmax packs; 0: it does not */
    /* dst[i] = src[i] * factor, F32 or BF16. */
    void (*scale_row)(void *dst, dk_dtype type, const float *src, float factor, int64_t count);
} dk_attention_kernels;

void dk_attention_kernels_init(dk_attention_kernels *kernels, unsigned cpu_flags);
/* threads: that take the tasks. No result depends on how many. */
void dk_attention_plan_init(dk_attention_plan *plan, const dk_attention_kernels *kernels,
                            const dk_attention_args *args, dk_attention_backend backend,
                            int threads);
/* Stages in order, all tasks of one before any of the next, each with a scratch of its thread.
   Stage 0: the mean of one head's keys. */
void dk_attention_mean(const dk_attention_plan *plan, const dk_attention_args *args, int task,
                       void *packed, void *scratch);
/* Stage 1: packs part of one head's K and V. */
void dk_attention_pack(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                       const dk_attention_args *args, int task, void *packed, void *scratch);
/* Stage 2: a block of queries of one head, or a part of one. */
void dk_attention_block(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                        const dk_attention_args *args, int task, const void *packed,
                        void *scratch);

#endif
