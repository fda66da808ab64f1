/* The tile of 2 vectors by MR rows over a vector vocabulary, included before; A is broadcast
   from memory. The includer defines TILE_REPEAT (DK_REPEAT_<MR>), TILE_STEP (elements of k in
   one unit of 32 bits) and TILE_PRODUCT(sum, a, b), beside the enum of MR, NR and LANES. Sums
   are f32; or int32, where it defines TILE_INT as 1, and TILE_HEADER as 1 when B panels start
   with one. */
#include "kernels/gemm.h"
#include "kernels/x86/unroll.h"

#if defined(TILE_INT) && TILE_INT
typedef int32_t tile_unit;
typedef ivec tile_vec;
#define TILE_OP(name) ivec_##name
#else
typedef float tile_unit;
typedef vec tile_vec;
#define TILE_OP(name) vec_##name
#endif
#ifndef TILE_HEADER
#define TILE_HEADER 0
#endif

static void tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                 bool accumulate)
{
    const tile_unit *pb = b;
    tile_unit *out = (tile_unit *)(void *)c;
#define ZERO(m) tile_vec low##m = TILE_OP(set)(0), high##m = TILE_OP(set)(0);
    TILE_REPEAT(ZERO)
#undef ZERO
    for (int part = 0; part < a->parts; part++) {
        const tile_unit *pa =
            (const tile_unit *)a->data + row + (a->offset ? a->offset[part] : 0);
        if (TILE_HEADER) {
            tile_vec h0 = TILE_OP(load)(pb), h1 = TILE_OP(load)(pb + LANES);
#define START(m)                                                                               \
    low##m = TILE_OP(add)(low##m, h0);                                                         \
    high##m = TILE_OP(add)(high##m, h1);
            TILE_REPEAT(START)
#undef START
            pb += NR;
        }
        for (int64_t i = 0; i < a->k; i += TILE_STEP, pa += a->ld, pb += NR) {
            tile_vec b0 = TILE_OP(load)(pb), b1 = TILE_OP(load)(pb + LANES);
#define MULTIPLY(m)                                                                            \
    do {                                                                                       \
        tile_vec value = TILE_OP(set)(pa[m]);                                                  \
        low##m = TILE_PRODUCT(low##m, value, b0);                                              \
        high##m = TILE_PRODUCT(high##m, value, b1);                                            \
    } while (0);
            TILE_REPEAT(MULTIPLY)
#undef MULTIPLY
        }
    }
#define STORE(m)                                                                               \
    if (accumulate) {                                                                          \
        low##m = TILE_OP(add)(low##m, TILE_OP(load)(out + (m)*ldc));                           \
        high##m = TILE_OP(add)(high##m, TILE_OP(load)(out + (m)*ldc + LANES));                 \
    }                                                                                          \
    TILE_OP(store)(out + (m)*ldc, low##m);                                                     \
    TILE_OP(store)(out + (m)*ldc + LANES, high##m);
    TILE_REPEAT(STORE)
#undef STORE
}
