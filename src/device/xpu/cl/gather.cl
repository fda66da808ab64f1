/* Frames of a clip, gathered. */
#include "common.h"

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

GATHER(f32, f32)
GATHER(f32, bf16)
GATHER(bf16, f32)
GATHER(bf16, bf16)
