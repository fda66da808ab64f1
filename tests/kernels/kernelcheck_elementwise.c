/* Type casts with activations, and linear combinations. */
#include <math.h>
#include <string.h>

#include "kernels/elementwise.h"
#include "kernels/kernelcheck.h"
#include "kernels/kernelcheck_device.h"

static void tables(const kc *k, dk_elementwise_kernels *now, dk_elementwise_kernels *before)
{
    dk_elementwise_kernels_init(now, k->flags);
    dk_elementwise_kernels_init(before, k->below);
}

static bool map_is_new(const kc *k)
{
    dk_elementwise_kernels now, before;
    tables(k, &now, &before);
    return k->lowest || now.map != before.map;
}

static bool combine_is_new(const kc *k)
{
    dk_elementwise_kernels now, before;
    tables(k, &now, &before);
    return k->lowest || now.combine != before.combine;
}

static const int64_t counts[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1027};

typedef struct map_case {
    dk_dtype dst, src;
    dk_activation activation;
    int64_t count;
    bool in_place, huge;
} map_case;

static void map_rounds(kc *k, dk_map_fn *map, const map_case *c)
{
    kc_case(k, 2, "%s to %s, activation %d, %lld elements%s%s", dk_dtype_name(c->src),
            dk_dtype_name(c->dst), (int)c->activation, (long long)c->count,
            c->in_place ? ", in place" : "", c->huge ? ", huge" : "");
    while (kc_next_round(k)) {
        /* Infinities have no activation: inf * 0. */
        kc_values values = c->activation == DK_ACT_NONE ? KC_WILD : KC_HARD;
        char *src = kc_operand(k, c->src, c->count, values);
        for (int64_t i = 0; c->huge && i < c->count; i++) {
            const uint32_t bits = 0x7f000000u | (uint32_t)(i % 2) << 31; /* ±2^127 */
            size_t width = dk_dtype_bytes(c->src);
            memcpy(src + (size_t)i * width, (const char *)&bits + sizeof bits - width, width);
        }
        const void *before = kc_copy(k, src, (size_t)c->count * dk_dtype_bytes(c->src));
        size_t bytes = (size_t)c->count * dk_dtype_bytes(c->dst);
        void *dst = c->in_place ? src : kc_alloc(k, bytes);
        if (k->device != NULL) {
            kc_device_map(k, dst, c->dst, src, c->src, c->activation, c->count);
        } else {
            map(dst, c->dst, src, c->src, c->activation, c->count);
        }
        kc_result(k, dst, bytes);
        for (int64_t i = 0; k->round == 0 && i < c->count; i++) {
            kc_value v = {kc_get(before, c->src, i), 0};
            if (c->activation == DK_ACT_NONE) { /* a cast rounds exactly */
                v.y = kc_rounded(v.y, c->dst);
                v.error = c->dst == DK_BF16 ? KC_TINY : 0;
            } else {
                v = kc_activated(v, c->activation);
                v.error += kc_unit(c->dst) * (fabs(v.y) + v.error) + KC_TINY;
            }
            kc_expect(k, i, kc_get(dst, c->dst, i), v.y, v.error);
        }
    }
}

static void check_map(kc *k)
{
    dk_elementwise_kernels kernels;
    dk_elementwise_kernels_init(&kernels, k->flags);
    for (int i = 0; i < KC_COUNT(counts); i++) {
        for (int bits = 0; bits < 8; bits++) {
            for (int act = DK_ACT_NONE; act <= DK_ACT_GELU_TANH; act++) {
                const map_case c = {.dst = bits & 1 ? DK_BF16 : DK_F32,
                                    .src = bits & 2 ? DK_BF16 : DK_F32,
                                    .activation = (dk_activation)act,
                                    .count = counts[i],
                                    .in_place = (bits & 4) != 0,
                                    .huge = (bits & 4) == 0 && i % 4 == 3};
                if (!c.in_place || c.dst == c.src) {
                    map_rounds(k, kernels.map, &c);
                }
            }
        }
    }
}

static void combine_rounds(kc *k, dk_combine_fn *combine, int terms, int64_t count, int place,
                           kc_values values)
{
    kc_case(k, 2, "%d terms, %lld elements, dst is source %d, values %d", terms,
            (long long)count, place, (int)values);
    while (kc_next_round(k)) {
        const float *src[DK_COMBINE_MAX_TERMS], *before[DK_COMBINE_MAX_TERMS];
        size_t bytes = (size_t)count * sizeof(float);
        const float *coef = kc_operand(k, DK_F32, terms, KC_ORDINARY);
        float *dst = kc_alloc(k, bytes);
        for (int t = 0; t < terms; t++) {
            float *own = kc_operand(k, DK_F32, count, values);
            before[t] = kc_copy(k, own, bytes);
            src[t] = own;
            dst = t == place ? own : dst;
        }
        if (k->device != NULL) {
            kc_device_combine(k, dst, src, coef, terms, count);
        } else {
            combine(dst, src, coef, terms, count);
        }
        kc_result(k, dst, bytes);
        for (int64_t i = 0; k->round == 0 && i < count; i++) {
            double sum = 0, all = 0;
            for (int t = 0; t < terms; t++) {
                double term = (double)coef[t] * (double)before[t][i];
                sum += term;
                all += fabs(term);
            }
            /* One rounding for each product and each sum. */
            kc_expect(k, i, (double)dst[i], sum, 2.0 * terms * KC_U32 * all + KC_TINY);
        }
    }
}

static void check_combine(kc *k)
{
    dk_elementwise_kernels kernels;
    dk_elementwise_kernels_init(&kernels, k->flags);
    for (int terms = 1; terms <= DK_COMBINE_MAX_TERMS; terms++) {
        for (int i = 0; i < KC_COUNT(counts); i++) {
            combine_rounds(k, kernels.combine, terms, counts[i], i % (terms + 1),
                           i % 3 == 0 ? KC_HARD : KC_ORDINARY);
        }
        combine_rounds(k, kernels.combine, terms, 50, -1, KC_WILD);
    }
}

static const kc_test tests[] = {
    {"elementwise.map", map_is_new, check_map, true},
    {"elementwise.combine", combine_is_new, check_combine, true},
};

const kc_family kc_elementwise = {tests, KC_COUNT(tests)};
