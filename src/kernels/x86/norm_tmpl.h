/* Normalisation over a vector vocabulary, which also gives vec_swap_pairs and vec_alternate.
   The includer defines NORM, NORM_ROPE and ROW_SQUARES as the names of the three functions. */
#include <math.h>

#include "kernels/x86/norm_x86.h"
#include "kernels/x86/vec_math_tmpl.h"

static inline int lanes_left(int64_t count, int64_t i)
{
    return (int)(count - i < VEC ? count - i : VEC);
}

static float row_sum(const void *src, dk_dtype type, int64_t start, int64_t count)
{
    vec sum[2] = {vec_set(0.0f), vec_set(0.0f)};
    for (int64_t i = 0, part = 0; i < count; i += VEC, part ^= 1) {
        sum[part] =
            vec_add(sum[part], vec_load_any(src, type, start + i, lanes_left(count, i)));
    }
    return vec_sum(vec_add(sum[0], sum[1]));
}

/* Sum of (x - mean)^2; lanes behind the end, which load as zero, are left out. */
static float row_squares(const void *src, dk_dtype type, int64_t start, int64_t count,
                         float mean)
{
    vec sum[2] = {vec_set(0.0f), vec_set(0.0f)}, centre = vec_set(mean);
    int64_t whole = count / VEC * VEC;
    for (int64_t i = 0, part = 0; i < whole; i += VEC, part ^= 1) {
        vec x = vec_sub(vec_load_any(src, type, start + i, VEC), centre);
        sum[part] = vec_fma(x, x, sum[part]);
    }
    float total = vec_sum(vec_add(sum[0], sum[1]));
    for (int64_t i = whole; i < count; i++) {
        float x = type == DK_F32 ? ((const float *)src)[start + i]
                                 : dk_f32_from_bf16(((const uint16_t *)src)[start + i]);
        total += (x - mean) * (x - mean);
    }
    return total;
}

void NORM(const dk_norm_args *args, int64_t row0, int64_t row1)
{
    for (int64_t row = row0; row < row1; row++) {
        int64_t start = row * args->cols, modulation = row * args->modulation_stride;
        float mean = 0;
        if (args->kind == DK_NORM_LAYER) {
            mean = row_sum(args->src, args->src_type, start, args->cols) / (float)args->cols;
        }
        vec centre = vec_set(mean);
        vec factor = vec_set(dk_norm_factor(
            args, row_squares(args->src, args->src_type, start, args->cols, mean)));
        for (int64_t i = 0; i < args->cols; i += VEC) {
            int n = lanes_left(args->cols, i);
            vec y = vec_load_any(args->src, args->src_type, start + i, n);
            y = vec_mul(vec_sub(y, centre), factor);
            if (args->weight != NULL) {
                y = vec_mul(y, vec_load_any(args->weight, DK_F32, i, n));
            }
            if (args->bias != NULL) {
                y = vec_add(y, vec_load_any(args->bias, DK_F32, i, n));
            }
            if (args->scale != NULL) {
                vec scale = vec_load_any(args->scale, DK_F32, modulation + i, n);
                y = vec_mul(y, vec_add(vec_set(1.0f), scale));
            }
            if (args->shift != NULL) {
                y = vec_add(y, vec_load_any(args->shift, DK_F32, modulation + i, n));
            }
            vec_store_any(args->dst, args->dst_type, start + i, n,
                          vec_activate(y, args->activation));
        }
    }
}

/* The table's values for `count` elements, two for each. */
static inline vec load_angles(const float *table, int count)
{
    float values[VEC / 2] = {0};
    for (int i = 0; count < VEC && i < count / 2; i++) {
        values[i] = table[i];
    }
    return vec_load_twice(count < VEC ? values : table);
}

/* Normalises (by factor, when weight is not NULL) and rotates one head in place. */
static void finish_head(const dk_norm_rope_args *args, int64_t start, int64_t row,
                        const float *weight, float factor)
{
    int half = args->head_dim / 2;
    for (int i = 0; i < args->head_dim; i += VEC) {
        int n = lanes_left(args->head_dim, i);
        vec x = vec_load_any(args->data, args->type, start + i, n);
        if (weight != NULL) {
            x = vec_mul(vec_mul(x, vec_set(factor)), vec_load_any(weight, DK_F32, i, n));
        }
        if (args->cos != NULL) {
            vec c = load_angles(args->cos + row * half + i / 2, n);
            vec s = load_angles(args->sin + row * half + i / 2, n);
            x = vec_fma(x, c, vec_alternate(vec_mul(vec_swap_pairs(x), s)));
        }
        vec_store_any(args->data, args->type, start + i, n, x);
    }
}

static float rms_factor(const dk_norm_rope_args *args, int64_t start, int64_t count)
{
    float squares = row_squares(args->data, args->type, start, count, 0.0f);
    return 1.0f / sqrtf(squares / (float)count + args->eps);
}

void NORM_ROPE(const dk_norm_rope_args *args, int64_t row0, int64_t row1)
{
    for (int64_t row = row0; row < row1; row++) {
        int64_t start = row * args->stride;
        bool normed = args->weight != NULL;
        float factor = 1.0f;
        if (normed && !args->per_head) {
            int64_t cols = (int64_t)args->heads * args->head_dim;
            float own = args->squares == NULL
                            ? row_squares(args->data, args->type, start, cols, 0.0f)
                            : 0.0f;
            factor = dk_norm_rope_factor(args, row, own);
        }
        for (int head = 0; head < args->heads; head++) {
            int64_t at = start + (int64_t)head * args->head_dim;
            const float *weight = args->weight;
            if (normed && args->per_head) {
                factor = rms_factor(args, at, args->head_dim);
            } else if (normed) {
                weight += (int64_t)head * args->head_dim;
            }
            finish_head(args, at, row, weight, factor);
        }
    }
}

void ROW_SQUARES(const dk_norm_rope_args *args, float *squares, int64_t row0, int64_t row1)
{
    int64_t cols = (int64_t)args->heads * args->head_dim;
    for (int64_t row = row0; row < row1; row++) {
        squares[row] = row_squares(args->data, args->type, row * args->stride, cols, 0.0f);
    }
}
