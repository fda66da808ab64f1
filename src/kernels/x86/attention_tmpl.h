/* Attention's softmax and scaling over a vector vocabulary. The includer defines SOFTMAX_BLOCK
   and SCALE_ROW as the names of the two functions. */
#include <math.h>

#include "kernels/x86/attention_x86.h"
#include "kernels/x86/vec_math_tmpl.h"

void SOFTMAX_BLOCK(float *scores, int64_t ld, int rows, int cols, float scale, float *row_max,
                   float *row_sum, float *shrink)
{
    vec factor = vec_set(scale);
    for (int m = 0; m < rows; m++) {
        float *row = scores + m * ld;
        vec top = vec_set(row_max[m]);
        for (int n = 0; n < cols; n += VEC) {
            top = vec_max(vec_mul(vec_load(row + n), factor), top);
        }
        float highest = vec_top(top);
        vec below = vec_set(-highest), sum = vec_set(0.0f);
        for (int n = 0; n < cols; n += VEC) {
            vec p = vec_exp2_negative(vec_fma(vec_load(row + n), factor, below));
            vec_store(row + n, p);
            sum = vec_add(sum, p);
        }
        shrink[m] = exp2f(row_max[m] - highest);
        row_sum[m] = row_sum[m] * shrink[m] + vec_sum(sum);
        row_max[m] = highest;
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
