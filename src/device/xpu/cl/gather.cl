/* Frames of a clip that follow one another, cast, each enlarged `up` times by nearest neighbour. */
#include "common.h"

/* src: [rows][width][channels], dst: [rows * up][width * up][channels]; a sub-group for each of
   `count` pixels of src. */
#define GATHER(to, from)                                                                       \
    ONE_ROW_PER_SUB_GROUP kernel void gather_##to##_##from(                                    \
        global to *dst, global const from *src, int channels, int width, int count, int up)    \
    {                                                                                          \
        int r = row_of_sub_group(), lane = get_sub_group_local_id();                           \
        if (r >= count) {                                                                      \
            return;                                                                            \
        }                                                                                      \
        long row = (long)width * up * channels;                                                \
        global const from *x = src + (long)r * channels;                                       \
        global to *y = dst + r / width * up * row + (long)(r % width) * up * channels;         \
        for (int i = 0; i < up; i++, y += row) {                                               \
            for (int c = lane; c < channels; c += LANES) {                                     \
                to value = STORE_##to(LOAD_##from(x[c]));                                      \
                y[c] = value;                                                                  \
                if (up > 1) {                                                                  \
                    y[channels + c] = value;                                                   \
                }                                                                              \
            }                                                                                  \
        }                                                                                      \
    }

GATHER(f32, f32)
GATHER(f32, bf16)
GATHER(bf16, f32)
GATHER(bf16, bf16)
