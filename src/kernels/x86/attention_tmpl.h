/* Attention's softmax and scaling over a vector vocabulary. The includer defines SOFTMAX and
   SCALE_ROW as the names of the two functions, and SOFTMAX_PACKS where the vocabulary stores
   two vectors as a group of 32 bf16. */
#include <stdbool.h>

#include "kernels/x86/attention_x86.h"
#include "kernels/x86/vec_math_tmpl.h"

/* Scores of row m before the factor; `ints` is a constant where it is inlined. */
static inline vec load_scores(const dk_softmax_args *args, bool ints, const float *row, int n)
{
    return ints ? vec_mul(vec_from_ivec(ivec_load(row + n)), vec_load(args->key_scale + n))
                : vec_load(row + n);
}

static inline float factor_of(const dk_softmax_args *args, bool ints, int m)
{
    return ints ? args->query_scale[m] * args->scale : args->scale;
}

/* New maxima; shrink gets old - new. The factor is positive, so it can wait for the maximum. */
static inline __attribute__((always_inline)) void take_maxima(const dk_softmax_args *args,
                                                              bool ints)
{
    for (int m = 0; m < args->rows; m++) {
        const float *row = args->scores + m * args->ld;
        vec top = load_scores(args, ints, row, 0), other = top;
        for (int n = VEC; n < args->cols; n += VEC) {
            vec x = load_scores(args, ints, row, n);
            top = n / VEC % 2 ? top : vec_max(x, top);
            other = n / VEC % 2 ? vec_max(x, other) : other;
        }
        float highest = vec_top(vec_max(top, other)) * factor_of(args, ints, m);
        highest = highest > args->max[m] ? highest : args->max[m];
        args->shrink[m] = args->max[m] - highest;
        args->max[m] = highest;
    }
    for (int m = 0; m < args->rows; m += VEC) {
        int n = args->rows - m < VEC ? args->rows - m : VEC;
        vec x = vec_load_any(args->shrink, DK_F32, m, n);
        vec_store_any(args->shrink, DK_F32, m, n, vec_exp2_negative(x));
    }
}

static inline __attribute__((always_inline)) void softmax(const dk_softmax_args *args,
                                                          bool ints)
{
    take_maxima(args, ints);
    for (int m = 0; m < args->rows; m++) {
        float *row = args->scores + m * args->ld;
        vec factor = vec_set(factor_of(args, ints, m));
        vec below = vec_set(-args->max[m]), sum = vec_set(0.0f);
#ifdef SOFTMAX_PACKS
        enum { GROUP = 2 * VEC };
        char *packed = (char *)args->packed + (size_t)m * GROUP * sizeof(uint16_t);
        for (int n = 0; args->packed != NULL && n < args->cols; n += GROUP) {
            vec low = vec_fma(load_scores(args, ints, row, n), factor, below);
            vec high = vec_set(0.0f);
            low = vec_exp2_negative(low);
            if (n + VEC < args->cols) {
                high = vec_fma(load_scores(args, ints, row, n + VEC), factor, below);
                high = vec_exp2_negative(high);
            }
            vec_store_two_bf16(packed, low, high);
            packed += args->packed_ld * GROUP * (int64_t)sizeof(uint16_t);
            sum = vec_add(sum, vec_add(low, high));
        }
#endif
        for (int n = 0; args->packed == NULL && n < args->cols; n += VEC) {
            vec p = vec_fma(load_scores(args, ints, row, n), factor, below);
            p = vec_exp2_negative(p);
            vec_store(row + n, p);
            sum = vec_add(sum, p);
        }
        args->sum[m] = args->sum[m] * args->shrink[m] + vec_sum(sum);
    }
}

void SOFTMAX(const dk_softmax_args *args)
{
    if (args->key_scale != NULL) {
        softmax(args, true);
    } else {
        softmax(args, false);
    }
}

void SCALE_ROW(void *dst, dk_dtype type, const float *src, float factor, int64_t count)
{
    vec by = vec_set(factor);
    for (int64_t i = 0; i < count; i += VEC) {
        int n = (int)(count - i < VEC ? count - i : VEC);
        vec_store_any(dst, type, i, n, vec_mul(vec_load_any(src, DK_F32, i, n), by));
    }
}
