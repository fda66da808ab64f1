/* Epilogue of linear layers over a vector vocabulary. The includer defines LINEAR_STORE as the
   name of the function. */
#include "kernels/x86/linear_x86.h"
#include "kernels/x86/vec_math_tmpl.h"

static inline vec finish(const dk_linear_args *args, int64_t m, int64_t n, int count, vec y)
{
    int64_t at = m * args->dst_stride + n;
    if (args->bias != NULL) {
        y = vec_add(y, vec_load_any(args->bias, DK_F32, n, count));
    }
    y = vec_activate(y, args->activation);
    if (args->multiply != NULL) {
        y = vec_mul(y, vec_load_any(args->multiply, args->dst_type, at, count));
    }
    if (args->gate != NULL) {
        y = vec_mul(y, vec_load_any(args->gate, DK_F32, m * args->gate_stride + n, count));
    }
    if (args->residual != NULL) {
        y = vec_add(y, vec_load_any(args->residual, args->dst_type, at, count));
    }
    return y;
}

void LINEAR_STORE(const dk_linear_args *args, int64_t m0, int64_t n0, int rows, int cols,
                  const float *tile, int64_t ld)
{
    for (int m = 0; m < rows; m++) {
        for (int n = 0; n < cols; n += VEC) {
            int count = cols - n < VEC ? cols - n : VEC;
            vec y = vec_load_any(tile, DK_F32, m * ld + n, count);
            y = finish(args, m0 + m, n0 + n, count, y);
            vec_store_any(args->dst, args->dst_type, (m0 + m) * args->dst_stride + n0 + n,
                          count, y);
        }
    }
}
