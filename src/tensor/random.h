/* Normal random numbers, the same as the reference frameworks draw from the same seed. */
#ifndef DK_TENSOR_RANDOM_H
#define DK_TENSOR_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* torch-cpu: mt19937 as torch's CPU generator uses it. philox: Philox4x32-10 (Salmon et al.,
   "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), element i from the counter
   {draw, 0, i, 0} with the seed as key and Box-Muller over its first two words, which is
   torch's CUDA stream for tensors that one launch of its kernel covers. */
typedef enum dk_noise { DK_NOISE_TORCH_CPU, DK_NOISE_PHILOX } dk_noise;

bool dk_noise_from_name(dk_noise *out, const char *name); /* "torch-cpu", "philox" */
const char *dk_noise_name(dk_noise noise);

enum { DK_MT_WORDS = 624 };

typedef struct dk_generator {
    dk_noise kind;
    uint64_t seed;
    uint32_t draws;              /* philox: calls so far */
    uint32_t words[DK_MT_WORDS]; /* mt19937 */
    int next;
    bool has_cached; /* second value of the last small pair */
    double cached;
} dk_generator;

/* torch-cpu takes the low 32 bits of the seed, as torch does. */
void dk_generator_init(dk_generator *generator, dk_noise kind, uint64_t seed);

/* The next `count` values of a randn call of that size: sizes are drawn differently below 16,
   and a tail that is no multiple of 16 is drawn afresh, so the calls must match the
   reference's. */
void dk_generator_randn(dk_generator *generator, float *dst, int64_t count);

/* The same for a tensor of type BF16 or F16, which torch draws block by block. */
void dk_generator_randn_as(dk_generator *generator, void *dst, dk_dtype dtype, int64_t count);

#endif
