/* Patterns, and where they are broken. */
#include "comm/check_data.h"

#include <math.h>
#include <string.h>

#include "comm/reduce.h"
#include "tensor/convert.h"

enum { BLOCK = 512 };

static uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

static uint32_t seed_of(int from, int to, uint32_t salt)
{
    return mix((uint32_t)from * 2654435761u ^ mix((uint32_t)to + 77u) ^ salt * 40503u);
}

static unsigned char byte_at(size_t i, uint32_t seed)
{
    return (unsigned char)(((uint32_t)i * 0x9e3779b1u + seed) >> 21);
}

void dk_comm_fill_bytes(void *dst, size_t bytes, int from, int to, uint32_t salt)
{
    unsigned char *data = dst;
    uint32_t seed = seed_of(from, to, salt);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = byte_at(i, seed);
    }
}

int64_t dk_comm_find_wrong(const void *data, size_t bytes, int from, int to, uint32_t salt)
{
    const unsigned char *found = data;
    uint32_t seed = seed_of(from, to, salt);
    for (size_t i = 0; i < bytes; i++) {
        if (found[i] != byte_at(i, seed)) {
            return (int64_t)i;
        }
    }
    return -1;
}

static float float_at(size_t i, uint32_t seed)
{
    uint32_t bits = mix((uint32_t)i + seed);
    float value = (float)(int32_t)(bits & 0xffffu) / 32768.0f - 1.0f;
    return ldexpf(value, -(int)(bits >> 29));
}

void dk_comm_fill_numbers(void *dst, dk_dtype type, size_t begin, size_t count, int from,
                          uint32_t salt)
{
    uint32_t seed = seed_of(from, -1, salt);
    for (size_t i = 0; i < count; i++) {
        if (type == DK_F32) {
            ((float *)dst)[i] = float_at(begin + i, seed);
        } else if (type == DK_BF16) {
            ((uint16_t *)dst)[i] = dk_bf16_from_f32(float_at(begin + i, seed));
        } else {
            ((uint32_t *)dst)[i] = mix((uint32_t)(begin + i) + seed);
        }
    }
}

static float number_at(const void *data, dk_dtype type, size_t i)
{
    return type == DK_F32 ? ((const float *)data)[i]
                          : dk_f32_from_bf16(((const uint16_t *)data)[i]);
}

/* An addition of `ranks` numbers of magnitude up to 1 in any order: each of the ranks - 1 sums
   is of magnitude up to `ranks` and rounded once, by half a unit of the type; the right one was
   rounded too. */
static bool is_close(float a, float b, dk_dtype type, int ranks)
{
    float unit = type == DK_F32 ? 0x1p-24f : 0x1p-8f;
    return fabsf(a - b) <= (float)ranks * (float)ranks * unit;
}

static int64_t find_in_block(const void *data, const void *wanted, const dk_comm_case *c,
                             size_t count, int ranks, bool exact)
{
    size_t unit = dk_dtype_bytes(c->type);
    if (memcmp(data, wanted, count * unit) == 0) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        bool same =
            memcmp((const char *)data + i * unit, (const char *)wanted + i * unit, unit) == 0;
        if (!same && (exact || !is_close(number_at(data, c->type, i),
                                         number_at(wanted, c->type, i), c->type, ranks))) {
            return (int64_t)i;
        }
    }
    return -1;
}

int64_t dk_comm_find_wrong_number(const void *data, const dk_comm_case *c, size_t begin,
                                  size_t count, int ranks, bool exact, uint32_t salt)
{
    uint32_t rows[DK_COMM_MOST_RANKS][BLOCK], wanted[BLOCK];
    const void *sources[DK_COMM_MOST_RANKS];
    size_t unit = dk_dtype_bytes(c->type);
    bool order_is_free = !exact && c->type != DK_I32 && c->reduction == DK_REDUCE_SUM;
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t part = count - at < BLOCK ? count - at : BLOCK;
        for (int rank = 0; rank < ranks; rank++) {
            dk_comm_fill_numbers(rows[rank], c->type, begin + at, part, rank, salt);
            sources[rank] = rows[rank];
        }
        dk_reduce(wanted, sources, ranks, c->type, part, c->reduction);
        int64_t wrong = find_in_block((const char *)data + at * unit, wanted, c, part, ranks,
                                      !order_is_free);
        if (wrong >= 0) {
            return (int64_t)(begin + at) + wrong;
        }
    }
    return -1;
}
