/* The first stages of attention: keys and values as B panels, once for all queries. */
#include <string.h>

#include "kernels/attention_layout.h"
#include "tensor/convert.h"

/* Key row `key` of a head as f32. */
static void load_key(const dk_attention_args *args, int64_t head, int64_t key, float *values)
{
    const char *row =
        dk_attention_element(args->k, args->type, key, args->k_stride, head * args->head_dim);
    dk_convert_to_f32(values, row, args->type, args->head_dim);
}

void dk_attention_mean(const dk_attention_plan *plan, const dk_attention_args *args, int task,
                       void *packed, void *scratch)
{
    float *mean = dk_attention_head_at(plan, args, packed, task).mean, *row = scratch;
    memset(mean, 0, (size_t)args->head_dim * sizeof *mean);
    for (int64_t key = 0; key < args->kv_len; key++) {
        load_key(args, task, key, row);
        for (int64_t i = 0; i < args->head_dim; i++) {
            mean[i] += row[i];
        }
    }
    for (int64_t i = 0; i < args->head_dim; i++) {
        mean[i] /= (float)args->kv_len;
    }
}

/* A panel of `count` keys less their mean, as int8, each with a scale of its own. */
static void pack_quantized(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                           const dk_attention_args *args, const dk_attention_head *at,
                           int64_t head, int64_t key, int count, void *scratch)
{
    int64_t dim = args->head_dim;
    float *row = scratch;
    int8_t *values = (int8_t *)scratch + dk_whole_lines((size_t)dim * sizeof *row);
    for (int i = 0; i < count; i++) {
        load_key(args, head, key + i, row);
        for (int64_t c = 0; c < dim; c++) {
            row[c] -= at->mean[c];
        }
        const dk_quantize_args one = {.cols = dim,
                                      .src = row,
                                      .src_type = DK_F32,
                                      .dst = values + i * dim,
                                      .scales = &at->scales[key + i]};
        kernels->quantize.quantize_rows(&one, 0, 1);
    }
    char *panel = at->k + key / plan->kernel->nr * dk_attention_k_panel(plan, args);
    plan->score_kernel->pack_weight(panel, values, DK_I8, dim, count, dim);
}

static void pack_keys(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                      const dk_attention_args *args, int64_t head, const int64_t range[2],
                      void *packed, void *scratch)
{
    dk_attention_head at = dk_attention_head_at(plan, args, packed, head);
    const dk_gemm_kernel *kernel = plan->score_kernel;
    for (int64_t key = range[0]; key < range[1]; key += kernel->nr) {
        int count = (int)dk_smaller(kernel->nr, range[1] - key);
        if (plan->quantized) {
            pack_quantized(kernels, plan, args, &at, head, key, count, scratch);
            continue;
        }
        kernel->pack_weight(at.k + key / kernel->nr * dk_attention_k_panel(plan, args),
                            dk_attention_element(args->k, args->type, key, args->k_stride,
                                                 head * args->head_dim),
                            args->type, args->k_stride, count, args->head_dim);
    }
}

static void pack_values(const dk_attention_plan *plan, const dk_attention_args *args,
                        int64_t head, const int64_t range[2], void *packed)
{
    dk_attention_head at = dk_attention_head_at(plan, args, packed, head);
    const dk_gemm_kernel *kernel = plan->kernel;
    int64_t step = dk_attention_key_block(plan);
    for (int64_t key = range[0]; key < range[1]; key += step) {
        char *panel = at.v + key / step * dk_attention_v_block(plan, args);
        for (int64_t n = 0; n < args->head_dim; n += kernel->nr) {
            kernel->pack_matrix(panel,
                                dk_attention_element(args->v, args->type, key, args->v_stride,
                                                     head * args->head_dim + n),
                                args->type, args->v_stride,
                                (int)dk_smaller(kernel->nr, args->head_dim - n),
                                dk_smaller(step, range[1] - key));
            panel += dk_attention_v_panel(plan);
        }
    }
}

void dk_attention_pack(const dk_attention_kernels *kernels, const dk_attention_plan *plan,
                       const dk_attention_args *args, int task, void *packed, void *scratch)
{
    int64_t keys = DK_ATTENTION_PACK_BLOCKS * dk_attention_key_block(plan);
    int64_t head = task / plan->pack_blocks, first = task % plan->pack_blocks * keys;
    const int64_t range[2] = {first, dk_smaller(first + keys, args->kv_len)};
    pack_keys(kernels, plan, args, head, range, packed, scratch);
    pack_values(plan, args, head, range, packed);
}
