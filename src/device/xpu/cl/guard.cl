/* Looking at results. */
#include "common.h"

#define BITS_f32(x)  (as_uint(x) & 0x7fffffff)
#define BITS_bf16(x) ((uint)((x) & 0x7fff) << 16)

/* The largest magnitude, as the bits of an f32, which NaN and infinity exceed: *flag = max(*flag,
   it). */
#define ABSMAX(type)                                                                           \
    kernel void absmax_##type(global uint *flag, global const type *src, long count)           \
    {                                                                                          \
        uint most = 0;                                                                         \
        for (long i = get_global_id(0); i < count; i += get_global_size(0)) {                  \
            most = max(most, BITS_##type(src[i]));                                             \
        }                                                                                      \
        most = sub_group_reduce_max(most);                                                     \
        if (get_sub_group_local_id() == 0) {                                                   \
            atomic_max(flag, most);                                                            \
        }                                                                                      \
    }

ABSMAX(f32)
ABSMAX(bf16)

/* Spoils one number: for tests of what notices it. */
kernel void spoil_f32(global float *dst, long index)
{
    dst[index] = NAN;
}

kernel void spoil_bf16(global bf16 *dst, long index)
{
    dst[index] = 0x7fc0;
}
