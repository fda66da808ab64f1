/* JSON: limits of the parser, and accessors that name the key, what it is and what it may be.
 */
#include "test.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/string.h"

static json_t *parse(const char *text)
{
    dk_error err;
    json_t *value;
    assert_ok(dk_json_parse(&value, text, strlen(text), "test", &err), err);
    return value;
}

static void assert_refused(dk_status status, dk_status expected, const dk_error *err,
                           const char *text)
{
    assert_int_equal(status, expected);
    if (strstr(err->message, text) == NULL || strncmp(err->message, "test: ", 6) != 0) {
        fail_msg("'%s' is not in: %s", text, err->message);
    }
}

static void test_parse(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\":1,\"a\":2}",
        "nul",
        "1 2",
        "{'a':1}",
        "// x\n1",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\xff\"",
        "NaN",
        "1e999",
        "99999999999999999999",
        "\xef\xbb\xbf{}",
        "[1",
        "\"a",
        "\"\n\"",
        "01",
    };
    dk_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *value = NULL;
        dk_status status = dk_json_parse(&value, bad[i], strlen(bad[i]), "test", &err);
        if (status != DK_FORMAT) {
            fail_msg("%s was read", bad[i]);
        }
        assert_refused(status, DK_FORMAT, &err, "not valid JSON, line ");
        assert_null(value);
    }
    json_t *value = parse("\"[[[{{{\\\"\"");
    json_decref(value);
    value = NULL;
    assert_int_equal(dk_json_parse(&value, "{}\0", 3, "test", &err), DK_FORMAT);
    assert_int_equal(dk_json_load(&value, "/nonexistent", 100, &err), DK_NOT_FOUND);
}

static void test_depth(void **state)
{
    (void)state;
    dk_error err;
    for (int depth = DK_JSON_MAX_DEPTH; depth <= DK_JSON_MAX_DEPTH + 1; depth++) {
        dk_string text = DK_STRING_EMPTY;
        json_t *value = NULL;
        for (int i = 0; i < depth; i++) {
            dk_string_putc(&text, '[');
        }
        for (int i = 0; i < depth; i++) {
            dk_string_putc(&text, ']');
        }
        dk_status status = dk_json_parse(&value, text.data, text.length, "test", &err);
        assert_int_equal(status, depth <= DK_JSON_MAX_DEPTH ? DK_OK : DK_FORMAT);
        json_decref(value);
        dk_string_release(&text);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    dk_error err;
    json_t *o = parse("{\"i\": 5, \"r\": 2.5, \"n\": null, \"s\": \"5\", \"b\": true, "
                      "\"big\": 9223372036854775807, \"whole\": 3.0}");
    int64_t i = 42;
    double d = 42;
    assert_ok(dk_json_int(o, "i", 5, 5, 0, &i, "test", &err), err);
    assert_int_equal(i, 5);
    assert_ok(dk_json_int(o, "absent", 0, 1, 0, &i, "test", &err), err);
    assert_ok(dk_json_int(o, "n", 0, 1, DK_JSON_NULL_IS_ABSENT, &i, "test", &err), err);
    assert_int_equal(i, 5);
    assert_ok(dk_json_int(o, "big", 0, INT64_MAX, 0, &i, "test", &err), err);
    assert_true(i == INT64_MAX);
    i = 42;
    assert_refused(dk_json_int(o, "i", 6, 9, 0, &i, "test", &err), DK_FORMAT, &err,
                   "'i' is 5, accepted are 6 to 9");
    assert_refused(dk_json_int(o, "r", 0, 9, 0, &i, "test", &err), DK_FORMAT, &err,
                   "'r' is a number with a fraction, expected an integer");
    assert_refused(dk_json_int(o, "whole", 0, 9, 0, &i, "test", &err), DK_FORMAT, &err,
                   "expected an integer");
    assert_refused(dk_json_int(o, "n", 0, 9, 0, &i, "test", &err), DK_FORMAT, &err,
                   "'n' is null");
    assert_refused(dk_json_int(o, "s", 0, 9, 0, &i, "test", &err), DK_FORMAT, &err,
                   "'s' is a string");
    assert_refused(dk_json_int(o, "x", 0, 9, DK_JSON_REQUIRED, &i, "test", &err), DK_FORMAT,
                   &err, "key 'x' is missing");
    assert_refused(
        dk_json_int(o, "n", 0, 9, DK_JSON_REQUIRED | DK_JSON_NULL_IS_ABSENT, &i, "test", &err),
        DK_FORMAT, &err, "key 'n' is missing");
    assert_int_equal(i, 42);
    assert_ok(dk_json_double(o, "r", 0, 9, 0, &d, "test", &err), err);
    assert_true(d == 2.5);
    assert_ok(dk_json_double(o, "i", 0, 9, 0, &d, "test", &err), err);
    assert_true(d == 5);
    assert_refused(dk_json_double(o, "r", 3, 9, 0, &d, "test", &err), DK_FORMAT, &err,
                   "'r' is 2.5, accepted are 3 to 9");
    assert_refused(dk_json_double(o, "b", 3, 9, 0, &d, "test", &err), DK_FORMAT, &err,
                   "'b' is true or false, expected a number");
    assert_true(d == 5);
    json_decref(o);
}

static void test_others(void **state)
{
    (void)state;
    dk_error err;
    json_t *o = parse("{\"t\": \"x\", \"b\": false, \"l\": [], \"o\": {}}");
    static const char *const accepted[] = {"x", "y", NULL}, *const others[] = {"z", "y", NULL};
    const char *text = "kept";
    bool flag = true;
    assert_ok(dk_json_string(o, "absent", 0, &text, "test", &err), err);
    assert_string_equal(text, "kept");
    assert_refused(dk_json_string(o, "l", 0, &text, "test", &err), DK_FORMAT, &err,
                   "'l' is an array, expected a string");
    assert_ok(dk_json_string(o, "t", DK_JSON_REQUIRED, &text, "test", &err), err);
    assert_string_equal(text, "x");
    assert_ok(dk_json_bool(o, "b", 0, &flag, "test", &err), err);
    assert_false(flag);
    assert_refused(dk_json_bool(o, "o", 0, &flag, "test", &err), DK_FORMAT, &err,
                   "'o' is an object, expected true or false");
    assert_ok(dk_json_choice(o, "t", accepted, "test", &err), err);
    assert_ok(dk_json_choice(o, "absent", accepted, "test", &err), err);
    assert_refused(dk_json_choice(o, "t", others, "test", &err), DK_UNSUPPORTED, &err,
                   "t 'x' is not supported, accepted is 'z', 'y'");
    assert_refused(dk_json_bool(json_object_get(o, "l"), "b", 0, &flag, "test", &err),
                   DK_FORMAT, &err, "is an array, expected an object");
    assert_refused(dk_json_bool(NULL, "b", 0, &flag, "test", &err), DK_FORMAT, &err,
                   "is nothing, expected an object");
    json_decref(o);
}

static void test_arrays(void **state)
{
    (void)state;
    dk_error err;
    json_t *o = parse("{\"i\": [1, 2, 3], \"r\": [0.5, 2], \"b\": [true, false], "
                      "\"mixed\": [1, \"2\"], \"e\": [], \"n\": null, \"s\": \"x\"}");
    int64_t ints[3] = {9, 9, 9};
    double reals[3];
    bool flags[3];
    int count = 77;
    assert_ok(dk_json_ints(o, "i", 3, 3, 1, 3, 0, ints, &count, "test", &err), err);
    assert_true(count == 3 && ints[2] == 3);
    assert_ok(dk_json_ints(o, "e", 0, 3, 1, 3, 0, ints, &count, "test", &err), err);
    assert_int_equal(count, 0);
    count = 77;
    assert_ok(
        dk_json_ints(o, "n", 1, 3, 1, 3, DK_JSON_NULL_IS_ABSENT, ints, &count, "test", &err),
        err);
    assert_int_equal(count, 77);
    assert_refused(dk_json_ints(o, "i", 1, 2, 1, 3, 0, ints, &count, "test", &err), DK_FORMAT,
                   &err, "'i' has 3 entries, accepted are 1 to 2");
    assert_refused(dk_json_ints(o, "i", 2, 2, 1, 3, 0, ints, &count, "test", &err), DK_FORMAT,
                   &err, "'i' has 3 entries, expected 2");
    assert_refused(dk_json_ints(o, "i", 3, 3, 1, 2, 0, ints, &count, "test", &err), DK_FORMAT,
                   &err, "'i' is 3, accepted are 1 to 2");
    assert_refused(dk_json_ints(o, "mixed", 1, 3, 1, 3, 0, ints, &count, "test", &err),
                   DK_FORMAT, &err, "'mixed' is a string, expected an integer");
    assert_refused(dk_json_ints(o, "s", 1, 3, 1, 3, 0, ints, &count, "test", &err), DK_FORMAT,
                   &err, "'s' is a string, expected an array");
    assert_ok(dk_json_doubles(o, "r", 1, 3, 0, reals, &count, "test", &err), err);
    assert_true(count == 2 && reals[0] == 0.5 && reals[1] == 2);
    assert_ok(dk_json_bools(o, "b", 1, 3, 0, flags, &count, "test", &err), err);
    assert_true(count == 2 && flags[0] && !flags[1]);
    assert_refused(dk_json_bools(o, "i", 1, 3, 0, flags, &count, "test", &err), DK_FORMAT, &err,
                   "'i' is an integer, expected true or false");
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),   cmocka_unit_test(test_depth),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_others),
        cmocka_unit_test(test_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
