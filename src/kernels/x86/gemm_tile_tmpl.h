/* The tile of 2 vectors by MR rows over a vector vocabulary, included before; A is broadcast
   from memory. The includer defines TILE_REPEAT (DK_REPEAT_<MR>), TILE_STEP (elements of k in
   one unit of 32 bits) and TILE_PRODUCT(sum, a, b), beside the enum of MR, NR and LANES. */
#include "kernels/gemm.h"
#include "kernels/x86/unroll.h"

static void tile(float *c, int64_t ldc, const dk_gemm_a *a, int64_t row, const void *b,
                 bool accumulate)
{
    const float *pb = b; /* units of 32 bits */
#define ZERO(m) vec low##m = vec_set(0.0f), high##m = vec_set(0.0f);
    TILE_REPEAT(ZERO)
#undef ZERO
    for (int part = 0; part < a->parts; part++) {
        const float *pa = (const float *)a->data + row + (a->offset ? a->offset[part] : 0);
        for (int64_t i = 0; i < a->k; i += TILE_STEP, pa += a->ld, pb += NR) {
            vec b0 = vec_load(pb), b1 = vec_load(pb + LANES);
#define MULTIPLY(m)                                                                            \
    do {                                                                                       \
        vec value = vec_set(pa[m]);                                                            \
        low##m = TILE_PRODUCT(low##m, value, b0);                                              \
        high##m = TILE_PRODUCT(high##m, value, b1);                                            \
    } while (0);
            TILE_REPEAT(MULTIPLY)
#undef MULTIPLY
        }
    }
#define STORE(m)                                                                               \
    if (accumulate) {                                                                          \
        low##m = vec_add(low##m, vec_load(c + (m)*ldc));                                       \
        high##m = vec_add(high##m, vec_load(c + (m)*ldc + LANES));                             \
    }                                                                                          \
    vec_store(c + (m)*ldc, low##m);                                                            \
    vec_store(c + (m)*ldc + LANES, high##m);
    TILE_REPEAT(STORE)
#undef STORE
}
