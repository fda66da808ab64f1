/* Random numbers after torch's CPU generator (ATen/native/cpu/DistributionTemplates.h,
   normal_fill) and Philox4x32-10. */
#include "tensor/random.h"

#include <math.h>
#include <string.h>

#include "tensor/convert.h"

enum { BLOCK = 16, HALF = 8 };

static const double PI = 3.14159265358979323846;

bool dk_noise_from_name(dk_noise *out, const char *name)
{
    for (int kind = DK_NOISE_TORCH_CPU; kind <= DK_NOISE_PHILOX; kind++) {
        if (strcmp(name, dk_noise_name((dk_noise)kind)) == 0) {
            *out = (dk_noise)kind;
            return true;
        }
    }
    return false;
}

const char *dk_noise_name(dk_noise noise)
{
    return noise == DK_NOISE_PHILOX ? "philox" : "torch-cpu";
}

void dk_generator_init(dk_generator *generator, dk_noise kind, uint64_t seed)
{
    *generator = (dk_generator){.kind = kind, .seed = seed, .next = DK_MT_WORDS};
    uint32_t word = (uint32_t)seed;
    for (uint32_t i = 0; i < DK_MT_WORDS; i++) {
        generator->words[i] = word;
        word = 1812433253u * (word ^ (word >> 30)) + i + 1;
    }
}

/* Matsumoto and Nishimura, "Mersenne Twister" (1998). */
static void twist(dk_generator *g)
{
    enum { SHIFT = 397 };
    for (int i = 0; i < DK_MT_WORDS; i++) {
        uint32_t y =
            (g->words[i] & 0x80000000u) | (g->words[(i + 1) % DK_MT_WORDS] & 0x7fffffffu);
        g->words[i] =
            g->words[(i + SHIFT) % DK_MT_WORDS] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    g->next = 0;
}

static uint32_t next_u32(dk_generator *g)
{
    if (g->next == DK_MT_WORDS) {
        twist(g);
    }
    uint32_t y = g->words[g->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static float uniform24(dk_generator *g)
{
    return (float)(next_u32(g) & 0xffffffu) * 0x1p-24f;
}

static double uniform53(dk_generator *g)
{
    uint64_t high = next_u32(g);
    uint64_t bits = high << 32 | next_u32(g);
    return (double)(bits & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

/* One value of a small draw: Box-Muller in float64; the pair's second value waits. */
static float small_normal(dk_generator *g)
{
    if (g->has_cached) {
        g->has_cached = false;
        return (float)g->cached;
    }
    double u1 = uniform53(g), u2 = uniform53(g);
    double radius = sqrt(-2.0 * log1p(-u2)), angle = 2.0 * PI * u1;
    g->cached = radius * sin(angle);
    g->has_cached = true;
    return (float)(radius * cos(angle));
}

/* Sixteen uniforms in place to normals: pairs (j, j + 8), cosine first. */
static void fill_block(float *values)
{
    for (int j = 0; j < HALF; j++) {
        float radius = sqrtf(-2.0f * logf(1.0f - values[j]));
        float angle = (float)(2.0 * PI) * values[j + HALF];
        values[j] = radius * cosf(angle);
        values[j + HALF] = radius * sinf(angle);
    }
}

static void draw_block(dk_generator *g, float *values)
{
    for (int j = 0; j < BLOCK; j++) {
        values[j] = uniform24(g);
    }
    fill_block(values);
}

static void torch_randn(dk_generator *g, float *dst, int64_t count)
{
    if (count < BLOCK) {
        for (int64_t i = 0; i < count; i++) {
            dst[i] = small_normal(g);
        }
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        dst[i] = uniform24(g);
    }
    for (int64_t i = 0; i + BLOCK <= count; i += BLOCK) {
        fill_block(dst + i);
    }
    if (count % BLOCK != 0) {
        draw_block(g, dst + count - BLOCK);
    }
}

static void philox_round(uint32_t counter[4], const uint32_t key[2])
{
    uint64_t a = (uint64_t)0xd2511f53u * counter[0], b = (uint64_t)0xcd9e8d57u * counter[2];
    uint32_t next[4] = {(uint32_t)(b >> 32) ^ counter[1] ^ key[0], (uint32_t)b,
                        (uint32_t)(a >> 32) ^ counter[3] ^ key[1], (uint32_t)a};
    memcpy(counter, next, sizeof next);
}

static float philox_normal(uint64_t seed, uint32_t draw, uint64_t element)
{
    uint32_t counter[4] = {draw, 0, (uint32_t)element, (uint32_t)(element >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        if (round > 0) {
            key[0] += 0x9e3779b9u;
            key[1] += 0xbb67ae85u;
        }
        philox_round(counter, key);
    }
    float u = (float)counter[0] * 0x1p-32f + 0x1p-33f;
    float v = (float)counter[1] * (float)(2.0 * PI * 0x1p-32) + (float)(PI * 0x1p-32);
    return sqrtf(-2.0f * logf(u)) * sinf(v);
}

void dk_generator_randn(dk_generator *generator, float *dst, int64_t count)
{
    if (generator->kind == DK_NOISE_TORCH_CPU) {
        torch_randn(generator, dst, count);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        dst[i] = philox_normal(generator->seed, generator->draws, (uint64_t)i);
    }
    generator->draws++;
}

void dk_generator_randn_as(dk_generator *generator, void *dst, dk_dtype dtype, int64_t count)
{
    size_t width = dk_dtype_bytes(dtype);
    float values[BLOCK];
    if (dtype == DK_F32) {
        dk_generator_randn(generator, dst, count);
        return;
    }
    if (generator->kind == DK_NOISE_PHILOX) {
        for (int64_t i = 0; i < count; i++) {
            values[0] = philox_normal(generator->seed, generator->draws, (uint64_t)i);
            dk_convert_from_f32((char *)dst + (size_t)i * width, dtype, values, 1);
        }
        generator->draws++;
        return;
    }
    if (count < BLOCK) {
        torch_randn(generator, values, count);
        dk_convert_from_f32(dst, dtype, values, count);
        return;
    }
    for (int64_t i = 0; i < count; i += BLOCK) {
        int64_t at = i + BLOCK <= count ? i : count - BLOCK;
        draw_block(generator, values);
        dk_convert_from_f32((char *)dst + (size_t)at * width, dtype, values, BLOCK);
    }
}
