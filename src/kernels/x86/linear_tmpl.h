/* Epilogue of linear layers over a vector vocabulary. The includer defines LINEAR_STORE as the
   name of the function. */
#include "kernels/x86/linear_x86.h"
#include "kernels/x86/vec_math_tmpl.h"

/* `type` and `activation` are the arguments' own, as constants where it is inlined. */
static inline __attribute__((always_inline)) vec finish(const dk_linear_args *args,
                                                        dk_dtype type, dk_activation activation,
                                                        int64_t m, int64_t n, int count, vec y)
{
    int64_t at = m * args->dst_stride + n;
    if (args->bias != NULL) {
        y = vec_add(y, vec_load_any(args->bias, DK_F32, n, count));
    }
    y = vec_activate(y, activation);
    if (args->multiply != NULL) {
        y = vec_mul(y, vec_load_any(args->multiply, type, at, count));
    }
    if (args->gate != NULL) {
        y = vec_mul(y, vec_load_any(args->gate, DK_F32, m * args->gate_stride + n, count));
    }
    if (args->residual != NULL) {
        y = vec_add(y, vec_load_any(args->residual, type, at, count));
    }
    return y;
}

static inline __attribute__((always_inline)) void
store_rows(const dk_linear_args *args, dk_dtype type, dk_activation activation, int64_t m0,
           int64_t n0, int rows, int cols, const float *tile, int64_t ld)
{
    int whole = cols / VEC * VEC;
    for (int m = 0; m < rows; m++, tile += ld) {
        int64_t row = (m0 + m) * args->dst_stride + n0;
        for (int n = 0; n < whole; n += VEC) {
            vec y = finish(args, type, activation, m0 + m, n0 + n, VEC, vec_load(tile + n));
            vec_store_any(args->dst, type, row + n, VEC, y);
        }
        if (whole < cols) {
            vec y = vec_load_any(tile, DK_F32, whole, cols - whole);
            y = finish(args, type, activation, m0 + m, n0 + whole, cols - whole, y);
            vec_store_any(args->dst, type, row + whole, cols - whole, y);
        }
    }
}

/* One copy of the loop per type and activation: the choice inside costs as much as the work. */
void LINEAR_STORE(const dk_linear_args *args, int64_t m0, int64_t n0, int rows, int cols,
                  const float *tile, int64_t ld)
{
    bool f32 = args->dst_type == DK_F32;
    switch (args->activation) {
    case DK_ACT_NONE:
        f32 ? store_rows(args, DK_F32, DK_ACT_NONE, m0, n0, rows, cols, tile, ld)
            : store_rows(args, DK_BF16, DK_ACT_NONE, m0, n0, rows, cols, tile, ld);
        break;
    case DK_ACT_SILU:
        f32 ? store_rows(args, DK_F32, DK_ACT_SILU, m0, n0, rows, cols, tile, ld)
            : store_rows(args, DK_BF16, DK_ACT_SILU, m0, n0, rows, cols, tile, ld);
        break;
    case DK_ACT_GELU_TANH:
        f32 ? store_rows(args, DK_F32, DK_ACT_GELU_TANH, m0, n0, rows, cols, tile, ld)
            : store_rows(args, DK_BF16, DK_ACT_GELU_TANH, m0, n0, rows, cols, tile, ld);
        break;
    }
}
