/* W's rows against a packed panel of 2 vectors, over a vector vocabulary, included before
   beside the enum of NR: six rows of W at a time, of which every element is spread over the
   lanes, so that no sum crosses lanes and no tail of k needs a mask. A panel of which only the
   first vector is wanted is summed apart for even and odd k, to keep as many sums in flight. */
#include "kernels/x86/direct_group.h"

/* Element i of a row of W in all lanes; `odd`, of two numbers of bf16 that start at i - 1. */
static inline vec load_even(const char *row, dk_dtype type, int64_t i)
{
    return type == DK_F32 ? vec_set(((const float *)(const void *)row)[i])
                          : vec_set_bf16_even(row + 2 * i);
}

static inline vec load_odd(const char *row, dk_dtype type, int64_t i)
{
    return type == DK_F32 ? vec_set(((const float *)(const void *)row)[i])
                          : vec_set_bf16_odd(row + 2 * (i - 1));
}

static inline vec load_last(const char *row, dk_dtype type, int64_t i)
{
    return type == DK_F32 ? vec_set(((const float *)(const void *)row)[i])
                          : vec_set(dk_f32_from_bf16(((const uint16_t *)(const void *)row)[i]));
}

/* The value is needed until here. gcc else lets a product take its register over and moves sums
   from register to register, and some to memory. */
#define NEEDED(value) __asm__ volatile("" : : "v"(value))

/* The group from row n on. type and wide (both vectors) are constants where it is called. */
static inline __attribute__((always_inline)) void direct_group(float *c, const dk_gemm_rows *w,
                                                               int n, dk_dtype type,
                                                               const float *x, bool wide,
                                                               bool accumulate)
{
    int64_t i = 0, k = w->k;
    DK_REPEAT_6(DK_DIRECT_START)
#define MULTIPLY(m, load, narrow_sum)                                                          \
    do {                                                                                       \
        vec value = load(w##m, type, i);                                                       \
        if (wide) {                                                                            \
            low##m = vec_fma(value, x0, low##m);                                               \
            high##m = vec_fma(value, x1, high##m);                                             \
        } else {                                                                               \
            narrow_sum##m = vec_fma(value, x0, narrow_sum##m);                                 \
        }                                                                                      \
        NEEDED(value);                                                                         \
    } while (0);
#define EVEN(m) MULTIPLY(m, load_even, low)
#define ODD(m)  MULTIPLY(m, load_odd, high)
#define LAST(m) MULTIPLY(m, load_last, low)
    for (; i + 1 < k; i++) {
        vec x0 = vec_load(x), x1 = vec_load(x + VEC);
        DK_REPEAT_6(EVEN)
        /* Pairs of W are loaded twice: kept for the odd elements, they take registers of sums.
         */
        __asm__ volatile("" : : : "memory");
        i++;
        x0 = vec_load(x + NR);
        x1 = vec_load(x + NR + VEC);
        DK_REPEAT_6(ODD)
        x += 2 * NR;
    }
    if (i < k) {
        vec x0 = vec_load(x), x1 = vec_load(x + VEC);
        DK_REPEAT_6(LAST)
    }
#undef EVEN
#undef ODD
#undef LAST
#undef MULTIPLY
#define JOIN(m) low##m = wide ? low##m : vec_add(low##m, high##m);
    DK_REPEAT_6(JOIN)
#undef JOIN
    DK_REPEAT_6(DK_DIRECT_FINISH)
}

static void direct(float *c, const dk_gemm_rows *w, const void *panel, int cols,
                   bool accumulate)
{
    for (int n = 0; n < w->count; n += DK_DIRECT_GROUP) {
        if (cols > VEC && w->type == DK_F32) {
            direct_group(c, w, n, DK_F32, panel, true, accumulate);
        } else if (cols > VEC) {
            direct_group(c, w, n, DK_BF16, panel, true, accumulate);
        } else if (w->type == DK_F32) {
            direct_group(c, w, n, DK_F32, panel, false, accumulate);
        } else {
            direct_group(c, w, n, DK_BF16, panel, false, accumulate);
        }
    }
}
