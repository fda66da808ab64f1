/* Copies with strides. */
#include "common.h"

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

/* The same for up to three axes, without a division: dimensions are the axes, the last one first. */
#define PERMUTE3(to_type, from_type)                                                           \
    kernel void permute3_##to_type##_##from_type(                                              \
        global to_type *dst, global const from_type *src, int shape0, int shape1, int shape2,  \
        long src0, long src1, long src2, long dst0, long dst1, long dst2)                      \
    {                                                                                          \
        int x = get_global_id(0), y = get_global_id(1), z = get_global_id(2);                  \
        if (x < shape2 && y < shape1 && z < shape0) {                                          \
            dst[z * dst0 + y * dst1 + x * dst2] =                                              \
                STORE_##to_type(LOAD_##from_type(src[z * src0 + y * src1 + x * src2]));        \
        }                                                                                      \
    }

PERMUTE3(f32, f32)
PERMUTE3(f32, bf16)
PERMUTE3(bf16, f32)
PERMUTE3(bf16, bf16)
PERMUTE(f32, f32)
PERMUTE(f32, bf16)
PERMUTE(bf16, f32)
PERMUTE(bf16, bf16)
