/* The frame of the `direct` kernels of gemm.h on vectors: six rows of W, each with the sums of
   two vectors of columns. Over a vector vocabulary, included before beside the enum of NR. */
#ifndef DK_KERNELS_X86_DIRECT_GROUP_H
#define DK_KERNELS_X86_DIRECT_GROUP_H

#include "kernels/gemm.h"
#include "kernels/x86/unroll.h"

enum { DK_DIRECT_GROUP = 6 };

/* Row m of the group that starts at row n of `w`, behind the last one that again; its sums. */
#define DK_DIRECT_START(m)                                                                     \
    const char *w##m =                                                                         \
        (const char *)w->data + (n + (m) < w->count ? n + (m) : w->count - 1) * w->row_bytes;  \
    vec low##m = vec_set(0.0f), high##m = vec_set(0.0f);

/* Stores row m of `c`; not wide: the first vector alone. */
#define DK_DIRECT_FINISH(m)                                                                    \
    do {                                                                                       \
        float *out = c + (int64_t)(n + (m)) * NR;                                              \
        vec_store(out, accumulate ? vec_add(low##m, vec_load(out)) : low##m);                  \
        if (wide) {                                                                            \
            high##m = accumulate ? vec_add(high##m, vec_load(out + VEC)) : high##m;            \
            vec_store(out + VEC, high##m);                                                     \
        }                                                                                      \
    } while (0);

#endif
