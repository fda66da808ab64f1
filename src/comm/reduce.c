/* Reduction, a block that stays in the first-level cache after the other. */
#include "comm/reduce.h"

#include <stdint.h>
#include <string.h>

#include "tensor/convert.h"

enum { BLOCK = 2048 };

bool dk_reduces(dk_dtype type)
{
    return type == DK_F32 || type == DK_BF16 || type == DK_I32;
}

static inline float larger(float a, float b)
{
    return a > b || a != a ? a : b;
}

static void add_f32(float *restrict sum, const float *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] += src[i];
    }
}

static void max_f32(float *restrict sum, const float *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] = larger(sum[i], src[i]);
    }
}

static void load_bf16(float *restrict dst, const uint16_t *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dst[i] = dk_f32_from_bf16(src[i]);
    }
}

static void add_bf16(float *restrict sum, const uint16_t *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] += dk_f32_from_bf16(src[i]);
    }
}

static void max_bf16(float *restrict sum, const uint16_t *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] = larger(sum[i], dk_f32_from_bf16(src[i]));
    }
}

static void store_bf16(uint16_t *restrict dst, const float *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dst[i] = dk_bf16_from_f32(src[i]);
    }
}

static void add_i32(uint32_t *restrict sum, const uint32_t *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] += src[i];
    }
}

static void max_i32(int32_t *restrict sum, const int32_t *restrict src, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] = sum[i] > src[i] ? sum[i] : src[i];
    }
}

static void reduce_f32(float *dst, const void *const *src, int sources, size_t at, size_t count,
                       dk_reduction reduction)
{
    float block[BLOCK];
    memcpy(block, (const float *)src[0] + at, count * sizeof *block);
    for (int s = 1; s < sources; s++) {
        (reduction == DK_REDUCE_SUM ? add_f32 : max_f32)(block, (const float *)src[s] + at,
                                                         count);
    }
    memcpy(dst + at, block, count * sizeof *block);
}

static void reduce_bf16(uint16_t *dst, const void *const *src, int sources, size_t at,
                        size_t count, dk_reduction reduction)
{
    float block[BLOCK];
    load_bf16(block, (const uint16_t *)src[0] + at, count);
    for (int s = 1; s < sources; s++) {
        (reduction == DK_REDUCE_SUM ? add_bf16 : max_bf16)(block, (const uint16_t *)src[s] + at,
                                                           count);
    }
    store_bf16(dst + at, block, count);
}

static void reduce_i32(int32_t *dst, const void *const *src, int sources, size_t at,
                       size_t count, dk_reduction reduction)
{
    int32_t block[BLOCK];
    memcpy(block, (const int32_t *)src[0] + at, count * sizeof *block);
    for (int s = 1; s < sources; s++) {
        if (reduction == DK_REDUCE_SUM) {
            add_i32((uint32_t *)block, (const uint32_t *)src[s] + at, count);
        } else {
            max_i32(block, (const int32_t *)src[s] + at, count);
        }
    }
    memcpy(dst + at, block, count * sizeof *block);
}

void dk_reduce(void *dst, const void *const *src, int sources, dk_dtype type, size_t count,
               dk_reduction reduction)
{
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t size = count - at < BLOCK ? count - at : BLOCK;
        if (type == DK_F32) {
            reduce_f32(dst, src, sources, at, size, reduction);
        } else if (type == DK_BF16) {
            reduce_bf16(dst, src, sources, at, size, reduction);
        } else {
            reduce_i32(dst, src, sources, at, size, reduction);
        }
    }
}
