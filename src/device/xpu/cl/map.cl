/* Casts, activations, linear combinations. */
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

MAP(f32, f32)
MAP(f32, bf16)
MAP(bf16, f32)
MAP(bf16, bf16)
