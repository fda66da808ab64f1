/* Element types and views. 16-bit and 8-bit types are tried exhaustively, against values built
   from their definition with ldexp. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "tensor/convert.h"
#include "tensor/tensor.h"

enum { VALUES = 1 << 16 };

/* sign, exponent_bits, mantissa_bits of IEEE form; finite_top: the largest exponent holds
   numbers and one NaN (OCP E4M3). */
static double value_of(unsigned bits, int exponent_bits, int mantissa_bits, int finite_top)
{
    int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
    int mantissa = (int)(bits & ((1u << mantissa_bits) - 1));
    int exponent = (int)(bits >> mantissa_bits) & top;
    double sign = bits >> (exponent_bits + mantissa_bits) ? -1 : 1;
    if (exponent == top && !finite_top) {
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    }
    if (exponent == top && mantissa == (1 << mantissa_bits) - 1) {
        return (double)NAN;
    }
    if (exponent == 0) {
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    }
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static void assert_value(float is, double expected, unsigned bits)
{
    bool same = isnan(expected) ? isnan(is)
                                : (double)is == expected && !signbit(is) == !signbit(expected);
    if (!same) {
        fail_msg("0x%x is %g, expected %g", bits, (double)is, expected);
    }
}

static void test_to_f32(void **state)
{
    (void)state;
    uint16_t *bits = dk_alloc(VALUES * sizeof *bits);
    uint8_t bytes[256];
    float *values = dk_alloc(VALUES * sizeof *values);
    for (unsigned i = 0; i < VALUES; i++) {
        bits[i] = (uint16_t)i;
        bytes[i % 256] = (uint8_t)(i % 256);
    }
    dk_convert_to_f32(values, bits, DK_F16, VALUES);
    for (unsigned i = 0; i < VALUES; i++) {
        assert_value(values[i], value_of(i, 5, 10, 0), i);
        assert_value(dk_f32_from_f16((uint16_t)i), value_of(i, 5, 10, 0), i);
    }
    dk_convert_to_f32(values, bits, DK_BF16, VALUES);
    for (unsigned i = 0; i < VALUES; i++) {
        assert_value(values[i], value_of(i, 8, 7, 0), i);
    }
    dk_convert_to_f32(values, bytes, DK_F8_E4M3, 256);
    for (unsigned i = 0; i < 256; i++) {
        assert_value(values[i], value_of(i, 4, 3, 1), i);
    }
    dk_convert_to_f32(values, bytes, DK_F8_E5M2, 256);
    for (unsigned i = 0; i < 256; i++) {
        assert_value(values[i], value_of(i, 5, 2, 0), i);
    }
    const double wide[] = {0.1, -0.0, 1e300, 1e-60, 16777217.0};
    dk_convert_to_f32(values, wide, DK_F64, 5);
    for (int i = 0; i < 5; i++) {
        assert_value(values[i], (double)(float)wide[i], (unsigned)i);
    }
    dk_free(values);
    dk_free(bits);
}

/* Every 16-bit value survives the way to f32 and back; between two neighbours the nearer one
   wins, and in the middle the even one. */
static void check_from_f32(dk_dtype dtype, int exponent_bits, int mantissa_bits)
{
    unsigned infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
    for (unsigned i = 0; i < infinity; i++) {
        double low = value_of(i, exponent_bits, mantissa_bits, 0);
        double high = i + 1 < infinity
                          ? value_of(i + 1, exponent_bits, mantissa_bits, 0)
                          : 2 * low - value_of(i - 1, exponent_bits, mantissa_bits, 0);
        float middle = (float)((low + high) / 2);
        const float in[] = {(float)low,
                            -(float)low,
                            middle,
                            -middle,
                            nextafterf(middle, -1e38f),
                            nextafterf(middle, INFINITY)};
        uint16_t out[6];
        unsigned even = i % 2 == 0 ? i : i + 1, sign = 0x8000;
        const unsigned expected[] = {i, i | sign, even, even | sign, i, i + 1};
        dk_convert_from_f32(out, dtype, in, 6);
        for (int k = 0; k < 6; k++) {
            if (out[k] != expected[k]) {
                fail_msg("%a became 0x%x, expected 0x%x", (double)in[k], out[k], expected[k]);
            }
        }
    }
    const float odd[] = {INFINITY, -INFINITY, NAN, 3.4028235e38f};
    uint16_t out[4];
    dk_convert_from_f32(out, dtype, odd, 4);
    assert_int_equal(out[0], infinity);
    assert_int_equal(out[1], infinity | 0x8000u);
    assert_true((out[2] & infinity) == infinity && (out[2] & ~(infinity | 0x8000u)) != 0);
    assert_int_equal(out[3], infinity);
}

static float dtype_value(dk_dtype dtype, uint8_t code)
{
    float value;
    dk_convert_to_f32(&value, &code, dtype, 1);
    return value;
}

/* Every finite code is met by its value, and by what lies up to halfway to the next. */
static void check_f8_from_f32(dk_dtype dtype, uint8_t largest, uint8_t over)
{
    uint8_t out[4];
    for (int code = 0; code <= largest; code++) {
        const uint8_t codes[] = {(uint8_t)code, (uint8_t)(code + 1)};
        float value[2];
        dk_convert_to_f32(value, codes, dtype, 2);
        if (code == largest) {
            value[1] = 2 * value[0] - dtype_value(dtype, (uint8_t)(code - 1));
        }
        float middle = (value[0] + value[1]) / 2;
        uint8_t next = code == largest ? over : codes[1];
        const float in[] = {-value[0], middle, nextafterf(middle, 0.0f),
                            nextafterf(middle, INFINITY)};
        dk_convert_from_f32(out, dtype, in, 4);
        assert_int_equal(out[0], code | 0x80);
        assert_int_equal(out[1], code % 2 == 0 ? code : next);
        assert_int_equal(out[2], code);
        assert_int_equal(out[3], next);
    }
    const float odd[] = {INFINITY, -3.4028235e38f, NAN, 0.0f};
    dk_convert_from_f32(out, dtype, odd, 4);
    assert_int_equal(out[0], over);
    assert_int_equal(out[1], over | 0x80);
    assert_int_equal(out[2] & 0x7f, 0x7f);
    assert_int_equal(out[3], 0);
}

static void test_from_f32(void **state)
{
    (void)state;
    check_from_f32(DK_F16, 5, 10);
    check_from_f32(DK_BF16, 8, 7);
    check_f8_from_f32(DK_F8_E4M3, 0x7e, 0x7f);
    check_f8_from_f32(DK_F8_E5M2, 0x7b, 0x7c);
    /* NaNs whose payload lies in the low bits only stay NaN. */
    for (uint32_t bits = 0x7f800001u; bits < 0x7f800010u; bits++) {
        float value;
        memcpy(&value, &bits, sizeof value);
        assert_true(isnan(dk_f32_from_bf16(dk_bf16_from_f32(value))));
        assert_true(isnan(dk_f32_from_f16(dk_f16_from_f32(value))));
    }
    const float in[] = {0.1f, -5};
    float out[2];
    dk_convert_from_f32(out, DK_F32, in, 2);
    assert_memory_equal(in, out, sizeof in);
}

static void test_dtypes(void **state)
{
    (void)state;
    dk_dtype found;
    for (int i = 0; i < DK_DTYPE_COUNT; i++) {
        dk_dtype dtype = (dk_dtype)i;
        assert_true(dk_dtype_from_name(&found, dk_dtype_name(dtype)) && found == dtype);
        assert_true(dk_dtype_bits(dtype) >= 4 && dk_dtype_bits(dtype) <= 64);
        assert_true(dk_dtype_bytes(dtype) == dk_dtype_bits(dtype) / 8);
        assert_non_null(strstr(dk_dtype_names(), dk_dtype_name(dtype)));
    }
    assert_true(dk_starts_with(dk_dtype_names(), "F32, BF16, F16, "));
    found = DK_U8;
    assert_false(dk_dtype_from_name(&found, "f32"));
    assert_false(dk_dtype_from_name(&found, ""));
    assert_false(dk_dtype_from_name(&found, "F321"));
    assert_int_equal(found, DK_U8);
}

static void test_views(void **state)
{
    (void)state;
    float data[24];
    char text[DK_SHAPE_TEXT_BYTES];
    dk_tensor t = DK_TENSOR(data, DK_F32, 2, 3, 4);
    assert_true(t.rank == 3 && t.data == data);
    assert_true(dk_tensor_count(&t) == 24 && dk_tensor_bytes(&t) == 96);
    assert_true(dk_tensor_has_shape(&t, 3, (int64_t[]){2, 3, 4}));
    assert_false(dk_tensor_has_shape(&t, 2, (int64_t[]){2, 3}));
    assert_false(dk_tensor_has_shape(&t, 3, (int64_t[]){2, 3, 5}));
    assert_string_equal(dk_shape_text(text, t.rank, t.shape), "[2, 3, 4]");
    dk_tensor scalar = dk_tensor_view(data, DK_F4, 0, NULL);
    assert_int_equal(dk_tensor_count(&scalar), 1);
    assert_string_equal(dk_shape_text(text, 0, NULL), "[]");
    dk_tensor half = DK_TENSOR(NULL, DK_F4, 6);
    assert_int_equal(dk_tensor_bytes(&half), 3);
    int64_t wide[DK_MAX_RANK];
    for (int i = 0; i < DK_MAX_RANK; i++) {
        wide[i] = INT64_MIN;
    }
    dk_shape_text(text, DK_MAX_RANK, wide);
    assert_true(strlen(text) < sizeof text && text[strlen(text) - 1] == ']');
}

static void test_shape_count(void **state)
{
    (void)state;
    int64_t count = 77;
    assert_true(dk_shape_count(&count, 0, NULL) && count == 1);
    assert_true(dk_shape_count(&count, 3, (int64_t[]){2, 0, 5}) && count == 0);
    assert_true(dk_shape_count(&count, 2, (int64_t[]){INT64_MAX, 1}) && count == INT64_MAX);
    count = 77;
    assert_false(dk_shape_count(&count, 2, (int64_t[]){INT64_MAX, 2}));
    assert_false(dk_shape_count(&count, 2, (int64_t[]){-1, -1}));
    assert_false(dk_shape_count(&count, 2, (int64_t[]){0, -1}));
    assert_false(dk_shape_count(&count, 2, (int64_t[]){1LL << 32, 1LL << 32}));
    assert_int_equal(count, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_to_f32),      cmocka_unit_test(test_from_f32),
        cmocka_unit_test(test_dtypes),      cmocka_unit_test(test_views),
        cmocka_unit_test(test_shape_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
