/* Casts, activations, linear combinations, copies with strides. */
#include "common.h"

/* dst[i] = activation(src[i]) */
#define MAP(to, from)                                                                          \
    kernel void map_##to##_##from(global to *dst, global const from *src, int activation,      \
                                  long count)                                                  \
    {                                                                                          \
        long i = get_global_id(0);                                                             \
        if (i < count) {                                                                       \
            dst[i] = STORE_##to(activate(LOAD_##from(src[i]), activation));                    \
        }                                                                                      \
    }

/* dst[i] = sum over terms, in order, of c[t] s[t][i]; dst may be one of the sources. */
kernel void combine(global float *dst, global const float *s0, global const float *s1,
                    global const float *s2, global const float *s3, global const float *s4,
                    global const float *s5, global const float *s6, global const float *s7,
                    float c0, float c1, float c2, float c3, float c4, float c5, float c6,
                    float c7, int terms, long count)
{
    long i = get_global_id(0);
    if (i >= count) {
        return;
    }
    float sum = c0 * s0[i];
    sum = terms > 1 ? sum + c1 * s1[i] : sum;
    sum = terms > 2 ? sum + c2 * s2[i] : sum;
    sum = terms > 3 ? sum + c3 * s3[i] : sum;
    sum = terms > 4 ? sum + c4 * s4[i] : sum;
    sum = terms > 5 ? sum + c5 * s5[i] : sum;
    sum = terms > 6 ? sum + c6 * s6[i] : sum;
    sum = terms > 7 ? sum + c7 * s7[i] : sum;
    dst[i] = sum;
}

/* Takes the last axis off a running index. */
#define AXIS(n)                                                                                \
    at = left % shape##n;                                                                      \
    left /= shape##n;                                                                          \
    from += at * src##n;                                                                       \
    to += at * dst##n;

/* dst[shape] = src[shape], both walked with their own strides; unused axes have length 1. */
#define PERMUTE(to_type, from_type)                                                            \
    kernel void permute_##to_type##_##from_type(                                               \
        global to_type *dst, global const from_type *src, long shape0, long shape1,            \
        long shape2, long shape3, long shape4, long shape5, long shape6, long shape7,          \
        long src0, long src1, long src2, long src3, long src4, long src5, long src6,           \
        long src7, long dst0, long dst1, long dst2, long dst3, long dst4, long dst5,           \
        long dst6, long dst7, long count)                                                      \
    {                                                                                          \
        long left = get_global_id(0), from = 0, to = 0, at;                                    \
        if (left >= count) {                                                                   \
            return;                                                                            \
        }                                                                                      \
        AXIS(7) AXIS(6) AXIS(5) AXIS(4) AXIS(3) AXIS(2) AXIS(1) AXIS(0)                        \
        dst[to] = STORE_##to_type(LOAD_##from_type(src[from]));                                \
    }

/* What follows a matrix product whose result is f32 in scratch, sums [rows][cols]:
   y = activation(sum); y *= multiply; y *= gate; y += residual; absent operands are NULL. Row r
   of dst (multiply, residual) lies at r / block * block_stride + r % block * stride. */
#define EPILOGUE(type)                                                                         \
    kernel void epilogue_##type(global type *dst, global const float *sums,                    \
                                global const type *multiply, global const float *gate,         \
                                global const type *residual, int activation, long rows,        \
                                long cols, long gate_stride, long block, long block_stride,    \
                                long stride)                                                   \
    {                                                                                          \
        long c = get_global_id(0), r = get_global_id(1);                                       \
        if (c >= cols || r >= rows) {                                                          \
            return;                                                                            \
        }                                                                                      \
        long at = r / block * block_stride + r % block * stride + c;                           \
        float y = activate(sums[r * cols + c], activation);                                    \
        y = multiply != 0 ? y * LOAD_##type(multiply[at]) : y;                                 \
        y = gate != 0 ? y * gate[r * gate_stride + c] : y;                                     \
        y = residual != 0 ? y + LOAD_##type(residual[at]) : y;                                 \
        dst[at] = STORE_##type(y);                                                             \
    }

#define FRAME(n) f = t == n ? f##n : f;

/* Frames that lie anywhere, one behind the other, each enlarged `up` times by nearest neighbour;
   NULL is a frame of zeros. Dimensions: channels, pixels of the result, frames. */
#define GATHER(to, from)                                                                       \
    kernel void gather_##to##_##from(                                                          \
        global to *dst, global const from *f0, global const from *f1, global const from *f2,   \
        global const from *f3, global const from *f4, global const from *f5,                   \
        global const from *f6, global const from *f7, global const from *f8,                   \
        global const from *f9, global const from *f10, global const from *f11,                 \
        global const from *f12, global const from *f13, global const from *f14,                \
        global const from *f15, long channels, long width, long pixels, int up)                \
    {                                                                                          \
        long c = get_global_id(0), p = get_global_id(1), t = get_global_id(2);                 \
        if (c >= channels || p >= pixels) {                                                    \
            return;                                                                            \
        }                                                                                      \
        global const from *f = f0;                                                             \
        FRAME(1) FRAME(2) FRAME(3) FRAME(4) FRAME(5) FRAME(6) FRAME(7) FRAME(8) FRAME(9)       \
        FRAME(10) FRAME(11) FRAME(12) FRAME(13) FRAME(14) FRAME(15)                            \
        long y = p / (width * up) / up, x = p % (width * up) / up;                             \
        float value = f != 0 ? LOAD_##from(f[(y * width + x) * channels + c]) : 0.0f;          \
        dst[(t * pixels + p) * channels + c] = STORE_##to(value);                              \
    }

MAP(f32, f32)
MAP(f32, bf16)
MAP(bf16, f32)
MAP(bf16, bf16)

PERMUTE(f32, f32)
PERMUTE(f32, bf16)
PERMUTE(bf16, f32)
PERMUTE(bf16, bf16)

EPILOGUE(f32)
EPILOGUE(bf16)

GATHER(f32, f32)
GATHER(f32, bf16)
GATHER(bf16, f32)
GATHER(bf16, bf16)
