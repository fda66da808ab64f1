/* Element-wise work over a vector vocabulary. The includer defines MAP and COMBINE as the names
   of the two functions. */
#include "kernels/x86/elementwise_x86.h"
#include "kernels/x86/vec_math_tmpl.h"

void MAP(void *dst, dk_dtype dst_type, const void *src, dk_dtype src_type,
         dk_activation activation, int64_t count)
{
    for (int64_t i = 0; i < count; i += VEC) {
        int n = (int)(count - i < VEC ? count - i : VEC);
        vec_store_any(dst, dst_type, i, n,
                      vec_activate(vec_load_any(src, src_type, i, n), activation));
    }
}

void COMBINE(float *dst, const float *const *src, const float *coef, int terms, int64_t count)
{
    for (int64_t i = 0; i < count; i += VEC) {
        int n = (int)(count - i < VEC ? count - i : VEC);
        vec sum = vec_mul(vec_set(coef[0]), vec_load_any(src[0], DK_F32, i, n));
        for (int t = 1; t < terms; t++) {
            sum = vec_add(sum, vec_mul(vec_set(coef[t]), vec_load_any(src[t], DK_F32, i, n)));
        }
        vec_store_any(dst, DK_F32, i, n, sum);
    }
}
