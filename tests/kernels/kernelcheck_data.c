/* Memory with borders, random numbers, and the arithmetic of oracles and their bounds. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/grouped_gemm.h"
#include "kernels/kernelcheck.h"
#include "kernels/kernelcheck_run.h"
#include "tensor/convert.h"

enum { PAGE = 4096, BORDER = 0xc5 };

struct kc_block {
    kc_block *next;
    unsigned char *map, *data; /* [guard page][body][guard page] */
    size_t bytes, body;
};

void *kc_alloc(kc *k, size_t bytes)
{
    kc_block *block = calloc(1, sizeof *block);
    size_t body = (bytes + PAGE - 1) / PAGE * PAGE;
    void *map =
        mmap(NULL, body + (size_t)2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == NULL || map == MAP_FAILED ||
        (body > 0 && mprotect((char *)map + PAGE, body, PROT_READ | PROT_WRITE) != 0)) {
        abort();
    }
    unsigned char *start = (unsigned char *)map + PAGE;
    bool at_end = k->round % 2 == 0;
    *block = (kc_block){k->blocks, map, start + (at_end ? body - bytes : 0), bytes, body};
    memset(start, BORDER, body);
    memset(block->data, at_end ? 0xff : 0x7b, bytes);
    k->blocks = block;
    return block->data;
}

void *kc_copy(kc *k, const void *data, size_t bytes)
{
    return memcpy(kc_alloc(k, bytes), data, bytes);
}

static bool border_is_whole(const kc_block *block)
{
    const unsigned char *start = block->map + PAGE;
    for (size_t i = 0; i < block->body; i++) {
        bool inside = start + i >= block->data && start + i < block->data + block->bytes;
        i += inside ? block->bytes - 1 : 0;
        if (!inside && start[i] != BORDER) {
            return false;
        }
    }
    return true;
}

void kc_release_blocks(kc *k, bool check)
{
    while (k->blocks != NULL) {
        kc_block *block = k->blocks;
        if (check && !border_is_whole(block)) {
            kc_fail(k, "memory around a buffer of %zu bytes was written", block->bytes);
        }
        k->blocks = block->next;
        munmap(block->map, block->body + (size_t)2 * PAGE);
        free(block);
    }
}

static uint64_t next_random(kc *k) /* xorshift64*: Vigna, 2016 */
{
    k->random ^= k->random >> 12;
    k->random ^= k->random << 25;
    k->random ^= k->random >> 27;
    return k->random * 0x2545f4914f6cdd1dull;
}

int kc_below(kc *k, int bound)
{
    return (int)((next_random(k) >> 32) * (uint64_t)bound >> 32);
}

double kc_uniform(kc *k)
{
    return (double)(next_random(k) >> 40) * 0x1p-23 - 1.0;
}

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float value_of(kc *k, kc_values values, float large)
{
    float x = (float)kc_uniform(k);
    if (values == KC_ORDINARY) {
        return x;
    }
    switch (kc_below(k, values == KC_WILD ? 20 : 16)) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return x * 0x1p-127f;
    case 3:
        return x * large;
    case 4:
        return x * 0x1p-60f;
    case 16:
        return x < 0 ? -INFINITY : INFINITY;
    case 17:
        return NAN;
    case 18: /* NaN that rounding to bf16 would carry out of, or cut to infinity */
        return from_bits(0x7fffffffu);
    case 19:
        return from_bits(0xff800001u);
    case 5: /* halfway between two numbers of bf16, and just below */
        return from_bits((to_bits(x) & 0xffff0000u) | (x < 0 ? 0x8000u : 0x7fffu));
    default:
        return x;
    }
}

/* Any code of a float of one byte; without NaN, infinities and large numbers unless WILD. */
static uint8_t byte_of(kc *k, kc_values values, dk_dtype type)
{
    for (;;) {
        uint8_t code = (uint8_t)kc_below(k, 256);
        double x = type == DK_F8_E4M3 ? dk_f32_from_f8_e4m3(code) : dk_f32_from_f8_e5m2(code);
        if (values == KC_WILD || fabs(x) <= (values == KC_HARD ? 16.0 : 1.0)) {
            return code;
        }
    }
}

void *kc_operand(kc *k, dk_dtype type, int64_t count, kc_values values)
{
    char *memory = kc_alloc(k, (size_t)count * dk_dtype_bytes(type));
    for (int64_t i = 0; i < count; i++) {
        char *at = memory + (size_t)i * dk_dtype_bytes(type);
        if (dk_dtype_bytes(type) == 1) {
            *(uint8_t *)at = byte_of(k, values, type);
            continue;
        }
        float x = value_of(k, values, type == DK_F16 ? 0x1p10f : 0x1p40f);
        double wide = x;
        if (type == DK_F64) {
            memcpy(at, &wide, sizeof wide);
        } else {
            dk_convert_from_f32(at, type, &x, 1);
        }
    }
    return memory;
}

int8_t *kc_int8_operand(kc *k, int64_t count, bool extreme)
{
    int8_t *memory = kc_alloc(k, (size_t)count);
    for (int64_t i = 0; i < count; i++) {
        int value = kc_below(k, 255) - 127;
        int end = value < 0 ? -127 : 127;
        memory[i] = (int8_t)(extreme && kc_below(k, 2) == 0 ? end : value);
    }
    return memory;
}

double kc_get(const void *base, dk_dtype type, int64_t index)
{
    const char *at = (const char *)base + (size_t)index * dk_dtype_bytes(type);
    uint16_t half;
    float single;
    double wide;
    switch (type) {
    case DK_F32:
        memcpy(&single, at, sizeof single);
        return single;
    case DK_BF16:
        memcpy(&half, at, sizeof half);
        return dk_f32_from_bf16(half);
    case DK_F16:
        memcpy(&half, at, sizeof half);
        return dk_f32_from_f16(half);
    case DK_F64:
        memcpy(&wide, at, sizeof wide);
        return wide;
    case DK_F8_E4M3:
        return dk_f32_from_f8_e4m3(*(const uint8_t *)at);
    default:
        return dk_f32_from_f8_e5m2(*(const uint8_t *)at);
    }
}

double kc_unit(dk_dtype type)
{
    return type == DK_BF16 ? KC_UBF16 : KC_U32;
}

double kc_rounded(double value, dk_dtype type)
{
    float single = (float)value;
    return type == DK_BF16 ? dk_f32_from_bf16(dk_bf16_from_f32(single)) : single;
}

double *kc_plain(kc *k, const void *base, dk_dtype type, int64_t count, dk_dtype panels)
{
    double *out = kc_alloc(k, (size_t)count * sizeof *out);
    for (int64_t i = 0; i < count; i++) {
        out[i] = kc_rounded(kc_get(base, type, i), panels);
    }
    return out;
}

double kc_growth(int64_t n)
{
    return 4.0 * (1.0 + sqrt((double)n));
}

double kc_activate(double x, dk_activation kind)
{
    if (kind == DK_ACT_SILU) {
        return x / (1.0 + exp(-x));
    }
    if (kind == DK_ACT_GELU_TANH) {
        double u = 0.79788456080286536 * (x + 0.044715 * x * x * x);
        return x / (1.0 + exp(-2.0 * u)); /* 0.5 x (1 + tanh(u)) without its cancellation */
    }
    return x;
}

/* SiLU errs relative to its value (exp is exact to a few units); its results below 1e-34 may be
   flushed. 1 + tanh(u) of GELU cancels for negative x, where the error is relative to x; behind
   -10 all of it is 0. */
double kc_activate_error(double x, dk_activation kind)
{
    double y = fabs(kc_activate(x, kind));
    if (kind == DK_ACT_SILU) {
        return 8.0 * KC_U32 * y + 1e-34;
    }
    if (kind == DK_ACT_GELU_TANH) {
        return 8.0 * KC_U32 * y + 4.0 * KC_U32 * fmin(fabs(x), 10.0) + KC_TINY;
    }
    return 0.0;
}

kc_value kc_multiplied(kc_value v, double by)
{
    double y = v.y * by;
    return (kc_value){y, v.error * fabs(by) + KC_U32 * fabs(y) + KC_TINY};
}

kc_value kc_plus(kc_value v, double term)
{
    double y = v.y + term;
    return (kc_value){y, v.error + KC_U32 * (fabs(y) + v.error)};
}

/* The slopes of both activations stay below 1.13. */
kc_value kc_activated(kc_value v, dk_activation kind)
{
    if (kind == DK_ACT_NONE) {
        return v;
    }
    return (kc_value){kc_activate(v.y, kind), 1.13 * v.error + kc_activate_error(v.y, kind)};
}

kc_value kc_epilogue(const dk_linear_args *args, const void *dst_before, int64_t m, int64_t n,
                     kc_value v)
{
    int64_t at = m * args->dst_stride + n;
    v = args->bias != NULL ? kc_plus(v, (double)args->bias[n]) : v;
    v = kc_activated(v, args->activation);
    if (args->multiply != NULL) {
        v = kc_multiplied(v, kc_get(args->multiply, args->dst_type, at));
    }
    if (args->gate != NULL) {
        v = kc_multiplied(v, (double)args->gate[m * args->gate_stride + n]);
    }
    if (args->residual != NULL) {
        const void *from = args->residual == args->dst ? dst_before : args->residual;
        v = kc_plus(v, kc_get(from, args->dst_type, at));
    }
    v.error += kc_unit(args->dst_type) * (fabs(v.y) + v.error) + KC_TINY;
    return v;
}

int kc_new_gemms(const kc *k, dk_gemm_kernel out[KC_MOST_GEMMS])
{
    dk_gemm_kernels now, before;
    int count = 0;
    dk_gemm_kernels_init(&now, k->flags);
    dk_gemm_kernels_init(&before, k->below);
    if (k->lowest || now.f32.tile != before.f32.tile) {
        out[count++] = now.f32;
    }
    bool own = now.bf16.tile != now.f32.tile;
    if (own && (k->lowest || now.bf16.tile != before.bf16.tile)) {
        out[count++] = now.bf16;
    }
    if (k->lowest) {
        out[count++] = grouped_gemm();
    }
    return count;
}

int kc_new_int8_gemms(const kc *k, dk_gemm_kernel out[KC_MOST_INT8_GEMMS])
{
    dk_gemm_kernels now, before;
    int count = 0;
    dk_gemm_kernels_init(&now, k->flags);
    dk_gemm_kernels_init(&before, k->below);
    if (k->lowest || now.int8.tile != before.int8.tile) {
        out[count++] = now.int8;
    }
    if (k->lowest) {
        out[count++] = grouped_int8_gemm();
    }
    return count;
}
