/* Epilogue and small path of linear layers over a vector vocabulary. The includer defines
   LINEAR_SMALL and LINEAR_STORE as the names of the two functions. */
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

/* One output column for all rows: W's row is read once, in four interleaved sums per row. */
void LINEAR_SMALL(const dk_linear_args *args, int64_t n0, int64_t n1)
{
    enum { CHUNK = 256, MOST_ROWS = 4, PARTS = 4 };
    float values[CHUNK];
    size_t width = dk_dtype_bytes(args->weight_type);
    bool direct = args->weight_type == DK_F32 || args->weight_type == DK_BF16;
    for (int64_t n = n0; n < n1; n++) {
        vec sum[MOST_ROWS][PARTS];
        for (int i = 0; i < MOST_ROWS * PARTS; i++) {
            sum[i / PARTS][i % PARTS] = vec_set(0.0f);
        }
        const char *row = (const char *)args->weight + (size_t)(n * args->depth) * width;
        for (int64_t k0 = 0; k0 < args->depth; k0 += CHUNK) {
            int64_t length = args->depth - k0 < CHUNK ? args->depth - k0 : CHUNK;
            if (!direct) {
                dk_convert_to_f32(values, row + (size_t)k0 * width, args->weight_type, length);
            }
            for (int64_t k = 0; k < length; k += VEC) {
                int count = (int)(length - k < VEC ? length - k : VEC);
                vec w = direct ? vec_load_any(row, args->weight_type, k0 + k, count)
                               : vec_load_any(values, DK_F32, k, count);
                int part = (int)(k / VEC) % PARTS;
                for (int64_t m = 0; m < args->rows; m++) {
                    vec x = vec_load_any(args->src, args->src_type,
                                         m * args->src_stride + k0 + k, count);
                    sum[m][part] = vec_fma(w, x, sum[m][part]);
                }
            }
        }
        for (int64_t m = 0; m < args->rows; m++) {
            vec y = vec_set(
                vec_sum(vec_add(vec_add(sum[m][0], sum[m][1]), vec_add(sum[m][2], sum[m][3]))));
            y = finish(args, args->dst_type, args->activation, m, n, 1, y);
            vec_store_any(args->dst, args->dst_type, m * args->dst_stride + n, 1, y);
        }
    }
}
