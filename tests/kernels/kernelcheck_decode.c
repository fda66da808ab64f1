/* Decoding of stored weights: exact, so every code of the small types is compared bit for bit.
 */
#include <math.h>
#include <string.h>

#include "kernels/decode.h"
#include "kernels/kernelcheck.h"

static const dk_dtype types[] = {DK_F16, DK_F64, DK_F8_E4M3, DK_F8_E5M2};

static bool decode_is_new(const kc *k)
{
    dk_decode_kernels now, before;
    dk_decode_kernels_init(&now, k->flags);
    dk_decode_kernels_init(&before, k->below);
    bool differs = false;
    for (int t = 0; t < DK_DTYPE_COUNT; t++) {
        differs = differs || now.of[t].decode != before.of[t].decode;
    }
    return k->lowest || differs;
}

/* Zero has a sign, which kc_expect does not see. */
static void expect_exact(kc *k, int64_t i, float got, double want)
{
    kc_expect(k, i, (double)got, kc_rounded(want, DK_F32), 0.0);
    if (!isnan(want) && (signbit(got) != 0) != (signbit(want) != 0)) {
        kc_fail(k, "dst[%lld] is %g, expected the other sign", (long long)i, (double)got);
    }
}

/* All codes of 8 and 16 bits in order. */
static void check_codes(kc *k, const dk_stored_format *format, dk_dtype type)
{
    int bytes = (int)dk_dtype_bytes(type), codes = bytes == 1 ? 256 : 65536;
    kc_case(k, 2, "%s, every code", dk_dtype_name(type));
    while (kc_next_round(k)) {
        char *src = kc_alloc(k, (size_t)codes * (size_t)bytes);
        for (int code = 0; code < codes; code++) {
            memcpy(src + code * bytes, &code, (size_t)bytes); /* its low bytes */
        }
        float *dst = kc_alloc(k, (size_t)codes * sizeof *dst);
        format->decode(dst, src, 0, codes);
        kc_result(k, dst, (size_t)codes * sizeof *dst);
        for (int code = 0; code < codes; code++) {
            expect_exact(k, code, dst[code], kc_get(src, type, code));
        }
    }
}

static void check_piece(kc *k, const dk_stored_format *format, dk_dtype type, int64_t k0,
                        int64_t count)
{
    kc_case(k, 2, "%s, %lld elements from %lld", dk_dtype_name(type), (long long)count,
            (long long)k0);
    while (kc_next_round(k)) {
        const void *row = kc_operand(k, type, k0 + count, KC_WILD);
        float *dst = kc_alloc(k, (size_t)count * sizeof *dst);
        format->decode(dst, row, k0, count);
        kc_result(k, dst, (size_t)count * sizeof *dst);
        for (int64_t i = 0; i < count; i++) {
            expect_exact(k, i, dst[i], kc_get(row, type, k0 + i));
        }
    }
}

static void check_decode(kc *k)
{
    dk_decode_kernels kernels;
    dk_decode_kernels_init(&kernels, k->flags);
    for (int t = 0; t < KC_COUNT(types); t++) {
        const dk_stored_format *format = dk_stored_format_of(&kernels, types[t]);
        if (dk_stored_bytes(format, 13) != 13 * dk_dtype_bytes(types[t])) {
            kc_fail(k, "13 elements of %s are %zu bytes", dk_dtype_name(types[t]),
                    dk_stored_bytes(format, 13));
        }
        if (dk_dtype_bytes(types[t]) <= 2) {
            check_codes(k, format, types[t]);
        }
        for (int64_t count = 1; count <= 67; count++) {
            check_piece(k, format, types[t], count % 5 * 3, count);
        }
    }
}

static const kc_test tests[] = {
    {"decode", decode_is_new, check_decode, false},
};

const kc_family kc_decode = {tests, KC_COUNT(tests)};
