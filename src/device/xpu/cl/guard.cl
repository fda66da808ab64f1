/* Looking at results. */
#include "common.h"

/* The largest magnitude, as its bits, which NaN and infinity exceed: *flag = max(*flag, it). */
kernel void absmax(global uint *flag, global const float *src, long count)
{
    uint most = 0;
    for (long i = get_global_id(0); i < count; i += get_global_size(0)) {
        most = max(most, as_uint(src[i]) & 0x7fffffff);
    }
    most = sub_group_reduce_max(most);
    if (get_sub_group_local_id() == 0) {
        atomic_max(flag, most);
    }
}

/* Spoils one number: for tests of what notices it. */
kernel void spoil_f32(global float *dst, long index)
{
    dst[index] = NAN;
}

kernel void spoil_bf16(global bf16 *dst, long index)
{
    dst[index] = 0x7fc0;
}
