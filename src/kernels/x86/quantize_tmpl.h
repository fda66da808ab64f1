/* Quantisation over a vector vocabulary. The includer defines QUANTIZE_ROWS and RESCALE as the
   names of the two functions. */
#include <math.h>
#include <string.h>

#include "kernels/x86/quantize_x86.h"
#include "kernels/x86/vec_math_tmpl.h"

static inline int lanes_left(int64_t count, int64_t i)
{
    return (int)(count - i < VEC ? count - i : VEC);
}

/* The largest magnitude of a row, or NaN when one of its values is infinite or NaN. */
static float row_top(const void *src, dk_dtype type, int64_t start, int64_t count)
{
    const vec zero = vec_set(0.0f);
    vec top = zero, lost = zero; /* a lane is NaN once it met an infinity or a NaN */
    for (int64_t i = 0; i < count; i += VEC) {
        vec x = vec_load_any(src, type, start + i, lanes_left(count, i));
        top = vec_max(vec_max(x, vec_sub(zero, x)), top);
        lost = vec_fma(x, zero, lost);
    }
    float sum = vec_sum(lost);
    return isnan(sum) ? sum : vec_top(top);
}

void QUANTIZE_ROWS(const dk_quantize_args *args, int64_t row0, int64_t row1)
{
    for (int64_t row = row0; row < row1; row++) {
        int64_t start = row * args->src_stride;
        int8_t *dst = args->dst + row * args->dst_stride;
        float top = row_top(args->src, args->src_type, start, args->cols);
        if (!(top >= DK_QUANTIZE_LEAST)) {
            args->scales[row] = isnan(top) ? NAN : 0.0f;
            memset(dst, 0, (size_t)args->cols);
            continue;
        }
        args->scales[row] = top / 127.0f;
        vec factor = vec_set(127.0f / top);
        for (int64_t i = 0; i < args->cols; i += VEC) {
            int n = lanes_left(args->cols, i);
            vec x = vec_load_any(args->src, args->src_type, start + i, n);
            ivec_store_int8(dst + i, ivec_round(vec_mul(x, factor)), n);
        }
    }
}

void RESCALE(float *tile, int64_t ld, int rows, int cols, const float *row_scale,
             const float *col_scale)
{
    int whole = cols / VEC * VEC;
    for (int m = 0; m < rows; m++) {
        float *row = tile + m * ld;
        vec scale = vec_set(row_scale[m]);
        for (int n = 0; n < whole; n += VEC) {
            vec sum = vec_from_ivec(ivec_load(row + n));
            vec_store(row + n, vec_mul(vec_mul(sum, scale), vec_load(col_scale + n)));
        }
        for (int n = whole; n < cols; n++) {
            int32_t sum;
            memcpy(&sum, &row[n], sizeof sum);
            row[n] = (float)sum * row_scale[m] * col_scale[n];
        }
    }
}
