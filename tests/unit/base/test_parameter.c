/* Parameter tables: text, JSON, ranges, messages, nearest names. */
#include <math.h>
#include <string.h>

#include "base/parameter.h"
#include "test.h"

typedef struct sample {
    const char *text, *choice;
    int level, count;
    double share;
    uint64_t seed;
    bool flag;
} sample;

static const dk_parameter parameters[] = {
    {.name = "some_text",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(sample, text),
     .max = 4},
    {.name = "choice",
     .type = DK_PARAMETER_CHOICE,
     .offset = offsetof(sample, choice),
     .choices = "one, two, three"},
    {.name = "level",
     .type = DK_PARAMETER_LEVEL,
     .offset = offsetof(sample, level),
     .choices = "low, high"},
    {.name = "count",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(sample, count),
     .min = -2,
     .max = 9},
    {.name = "share",
     .type = DK_PARAMETER_REAL,
     .offset = offsetof(sample, share),
     .min = 0,
     .max = 1},
    {.name = "seed", .type = DK_PARAMETER_SEED, .offset = offsetof(sample, seed)},
    {.name = "flag", .type = DK_PARAMETER_BOOL, .offset = offsetof(sample, flag)},
};
static const dk_parameter_table table = {.parameters = parameters,
                                         .count = sizeof parameters / sizeof *parameters};

static dk_status set(sample *s, const char *name, const char *text, dk_error *err)
{
    return dk_parameter_set_text(dk_parameter_find(&table, name), s, text, name, err);
}

static dk_status set_json(sample *s, const char *name, const char *text, dk_error *err)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    dk_status status =
        dk_parameter_set_json(dk_parameter_find(&table, name), s, value, name, err);
    json_decref(value);
    return status;
}

static void names(void **state)
{
    (void)state;
    assert_ptr_equal(dk_parameter_find(&table, "some-text"), &parameters[0]);
    assert_ptr_equal(dk_parameter_find(&table, "some_text"), &parameters[0]);
    assert_null(dk_parameter_find(&table, "some_tex"));
    assert_null(dk_parameter_find(&table, "some_texts"));
    assert_null(dk_parameter_find(&table, ""));
    assert_int_equal(dk_name_distance("num_frames", "num-frames"), 0);
    assert_int_equal(dk_name_distance("widht", "width"), 2);
    assert_int_equal(dk_name_distance("", "abc"), 3);
    assert_int_equal(dk_name_distance("kitten", "sitting"), 3);
}

static void texts(void **state)
{
    (void)state;
    sample s = {.count = 7};
    dk_error err = {0};
    assert_ok(set(&s, "some_text", "abcd", &err), err);
    assert_ok(set(&s, "choice", "three", &err), err);
    assert_ok(set(&s, "level", "high", &err), err);
    assert_ok(set(&s, "count", "-2", &err), err);
    assert_ok(set(&s, "share", ".5", &err), err);
    assert_ok(set(&s, "seed", "18446744073709551615", &err), err);
    assert_ok(set(&s, "flag", "true", &err), err);
    assert_string_equal(s.choice, "three");
    assert_true(s.level == 1 && s.count == -2 && s.share == 0.5 && s.seed == UINT64_MAX &&
                s.flag);
    static const char *const bad[][2] = {{"some_text", "abcde"},
                                         {"choice", "thre"},
                                         {"choice", ""},
                                         {"choice", "one, two"},
                                         {"level", "LOW"},
                                         {"count", "10"},
                                         {"count", "1e0"},
                                         {"count", " 1"},
                                         {"count", ""},
                                         {"share", "nan"},
                                         {"share", "inf"},
                                         {"share", "1.01"},
                                         {"share", "0,5"},
                                         {"seed", "-1"},
                                         {"seed", "1.0"},
                                         {"seed", "18446744073709551616"},
                                         {"flag", "yes"},
                                         {"flag", ""},
                                         {"count", "99999999999999999999"}};
    sample before = s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(set(&s, bad[i][0], bad[i][1], &err), DK_INVALID);
        assert_memory_equal(err.message, bad[i][0], strlen(bad[i][0]));
        assert_memory_equal(&s, &before, sizeof s);
    }
    assert_int_equal(set(&s, "choice", "four", &err), DK_INVALID);
    assert_string_equal(err.message, "choice is 'four', accepted are one, two, three");
}

static void json(void **state)
{
    (void)state;
    sample s = {.count = 7, .share = NAN};
    dk_error err = {0};
    assert_ok(set_json(&s, "count", "9", &err), err);
    assert_ok(set_json(&s, "count", "null", &err), err);
    assert_ok(set_json(&s, "seed", "\"18446744073709551615\"", &err), err);
    assert_ok(set_json(&s, "share", "1", &err), err);
    assert_ok(set_json(&s, "flag", "true", &err), err);
    assert_true(s.count == 9 && s.seed == UINT64_MAX && s.share == 1.0 && s.flag);
    static const char *const bad[][2] = {{"count", "9.0"},    {"count", "\"9\""},
                                         {"count", "10"},     {"count", "-9223372036854775808"},
                                         {"share", "2"},      {"share", "\"0\""},
                                         {"seed", "-1"},      {"seed", "1.5"},
                                         {"flag", "1"},       {"some_text", "12"},
                                         {"some_text", "[]"}, {"choice", "\"four\""}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(set_json(&s, bad[i][0], bad[i][1], &err), DK_INVALID);
        assert_memory_equal(err.message, bad[i][0], strlen(bad[i][0]));
    }
    json_t *seed = dk_parameter_get_json(dk_parameter_find(&table, "seed"), &s);
    assert_string_equal(json_string_value(seed), "18446744073709551615");
    json_decref(seed);
}

static void checks(void **state)
{
    (void)state;
    sample s = {.share = NAN};
    dk_error err = {0};
    assert_ok(dk_parameter_check_all(&table, &s, &err), err);
    s.count = 10;
    assert_int_equal(dk_parameter_check_all(&table, &s, &err), DK_INVALID);
    assert_string_equal(err.message, "count is 10, accepted are whole numbers from -2 to 9");
    s = (sample){.choice = "four"};
    assert_int_equal(dk_parameter_check_all(&table, &s, &err), DK_INVALID);
    s = (sample){.share = INFINITY};
    assert_int_equal(dk_parameter_check_all(&table, &s, &err), DK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(texts),
        cmocka_unit_test(json),
        cmocka_unit_test(checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
