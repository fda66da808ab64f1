/* Bodies become orders; requests survive the wire. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "pipeline/request_parameters.h"
#include "server/api/order.h"
#include "server/wire/request.h"
#include "test.h"

static json_t *parse(const char *text)
{
    json_t *value;
    dk_error err;
    assert_ok(dk_json_parse(&value, text, strlen(text), "test", &err), err);
    return value;
}

static const char defaults_text[] =
    "{\"width\": 832, \"height\": 480, \"num_frames\": 81, \"num_inference_steps\": 50, "
    "\"guidance_scale\": 5, \"fps\": 16, \"seed\": \"0\", \"num_outputs_per_prompt\": 1}";

static dk_status read_order(dk_order *order, const char *kind, const char *body, dk_error *err)
{
    json_t *object = parse(body), *defaults = parse(defaults_text);
    dk_status status = dk_order_read_json(order, kind, defaults, object, err);
    json_decref(object);
    json_decref(defaults);
    return status;
}

static long number(const dk_order *order, const char *name)
{
    return (long)json_number_value(json_object_get(order->parameters, name));
}

static void test_the_model_fills_what_is_not_said(void **state)
{
    (void)state;
    dk_order order;
    dk_error err;
    assert_ok(read_order(&order, "video", "{\"prompt\": \"a\", \"width\": 64}", &err), err);
    assert_int_equal(number(&order, "width"), 64);
    assert_int_equal(number(&order, "height"), 480);
    assert_int_equal(number(&order, "num_frames"), 81);
    assert_int_equal(order.count, 1);
    assert_string_equal(order.extension, "mp4");
    assert_int_equal(order.quality, 0);
    assert_null(json_object_get(order.parameters, "seed"));
    assert_null(json_object_get(order.parameters, "num_outputs_per_prompt"));
    dk_order_release(&order);
    assert_ok(read_order(&order, "image", "{\"prompt\": \"a\"}", &err), err);
    assert_int_equal(number(&order, "num_frames"), 1);
    assert_string_equal(order.extension, "png");
    dk_order_release(&order);
    dk_order_release(&order);
}

static void test_sizes(void **state)
{
    (void)state;
    dk_order order;
    dk_error err;
    assert_ok(read_order(&order, "image", "{\"prompt\": \"a\", \"size\": \"48x32\"}", &err),
              err);
    assert_int_equal(number(&order, "width"), 48);
    assert_int_equal(number(&order, "height"), 32);
    dk_order_release(&order);
    assert_ok(read_order(&order, "image", "{\"prompt\": \"a\", \"size\": \"auto\"}", &err),
              err);
    assert_int_equal(number(&order, "width"), 832);
    dk_order_release(&order);
    static const char *const bad[] = {"x",       "48",      "48x",    "x48",     "48X32",
                                      "48x32x1", "0x16",    "-16x16", "1e2x1",   "48x32 ",
                                      "",        "48 x 32", "auto ",  "999999x1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char body[80];
        snprintf(body, sizeof body, "{\"prompt\": \"a\", \"size\": \"%s\"}", bad[i]);
        if (read_order(&order, "image", body, &err) != DK_INVALID) {
            fail_msg("size '%s' is accepted", bad[i]);
        }
        assert_string_equal(order.param, "size");
        dk_order_release(&order);
    }
}

static void test_seeds(void **state)
{
    (void)state;
    dk_order order;
    dk_error err;
    static const struct {
        const char *seed;
        int count;
        uint64_t first, last;
    } cases[] = {
        {"7", 1, 7, 7},
        {"\"7\"", 1, 7, 7},
        {"\"18446744073709551615\"", 1, UINT64_MAX, UINT64_MAX},
        {"9007199254740993", 1, 9007199254740993u, 9007199254740993u},
        {"[1, \"2\", 3]", 3, 1, 3},
        {"\"[4, 5]\"", 2, 4, 5},
        {"7, \"n\": 3", 3, 7, 9},
        {"[8, 1], \"n\": 2", 2, 8, 1},
        {"\"18446744073709551615\", \"n\": 2", 2, UINT64_MAX, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[120];
        snprintf(body, sizeof body, "{\"prompt\": \"a\", \"seed\": %s}", cases[i].seed);
        assert_ok(read_order(&order, "video", body, &err), err);
        assert_int_equal(order.count, cases[i].count);
        assert_true(order.seeds[0] == cases[i].first);
        assert_true(order.seeds[order.count - 1] == cases[i].last);
        dk_order_release(&order);
    }
    static const char *const bad[] = {"-1",
                                      "[]",
                                      "[1, -2]",
                                      "1.5",
                                      "{}",
                                      "\"[1\"",
                                      "[[1]]",
                                      "true",
                                      "[1], \"n\": 2",
                                      "\"1 2\"",
                                      "[1, null]",
                                      "\"-1\"",
                                      "[1,1,1,1,1,1,1,1,1,1,1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char body[120];
        snprintf(body, sizeof body, "{\"prompt\": \"a\", \"seed\": %s}", bad[i]);
        if (read_order(&order, "video", body, &err) != DK_INVALID) {
            fail_msg("seed %s is accepted", bad[i]);
        }
        assert_string_equal(order.param, "seed");
        dk_order_release(&order);
    }
}

static void test_lengths(void **state)
{
    (void)state;
    dk_order order;
    dk_error err;
    static const struct {
        const char *more;
        int frames;
    } cases[] = {{"\"seconds\": 2", 33},
                 {"\"seconds\": \"2\"", 33},
                 {"\"seconds\": 2, \"fps\": 10", 21},
                 {"\"seconds\": 2, \"num_frames\": 5", 5},
                 {"\"seconds\": 0.01", 1},
                 {"\"seconds\": 600, \"fps\": 240", 4097}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[120];
        snprintf(body, sizeof body, "{\"prompt\": \"a\", %s}", cases[i].more);
        assert_ok(read_order(&order, "video", body, &err), err);
        assert_int_equal(number(&order, "num_frames"), cases[i].frames);
        dk_order_release(&order);
    }
}

static void test_quality(void **state)
{
    (void)state;
    dk_order order;
    dk_error err;
    static const struct {
        const char *more;
        int quality;
    } cases[] = {{"\"output_quality\": 30", 30},
                 {"\"output_compression\": 40", 40},
                 {"\"output_quality\": 30, \"output_compression\": 40", 30},
                 {"\"quality\": \"high\"", 90},
                 {"\"quality\": \"auto\"", 0},
                 {"\"quality\": \"low\", \"output_quality\": 80", 80}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[120];
        snprintf(body, sizeof body, "{\"prompt\": \"a\", \"output_format\": \"jpeg\", %s}",
                 cases[i].more);
        assert_ok(read_order(&order, "image", body, &err), err);
        assert_string_equal(order.extension, "jpg");
        assert_int_equal(order.quality, cases[i].quality);
        dk_order_release(&order);
    }
}

/* A failure names its field; release is fine after it. */
static void test_faults(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *body, *param;
    } cases[] = {
        {"video", "{}", "prompt"},
        {"video", "{\"prompt\": null}", "prompt"},
        {"video", "{\"prompt\": 3}", "prompt"},
        {"video", "{\"prompt\": \"a\", \"widht\": 3}", "widht"},
        {"video", "{\"prompt\": \"a\", \"width\": 0}", "width"},
        {"video", "{\"prompt\": \"a\", \"width\": \"64.5\"}", "width"},
        {"video", "{\"prompt\": \"a\", \"response_format\": \"url\"}", "response_format"},
        {"image", "{\"prompt\": \"a\", \"num_frames\": 5}", "num_frames"},
        {"image", "{\"prompt\": \"a\", \"seconds\": 5}", "seconds"},
        {"image", "{\"prompt\": \"a\", \"dump_tensors\": \"/x\"}", "dump_tensors"},
        {"image", "{\"prompt\": \"a\", \"image_path\": \"/x\"}", "image_path"},
        {"image", "{\"prompt\": \"a\", \"mask-path\": \"/x\"}", "mask-path"},
        {"image", "{\"prompt\": \"a\", \"initial_latents\": \"/x\"}", "initial_latents"},
        {"image", "{\"prompt\": \"a\", \"size\": \"16x16\", \"width\": 32}", "size"},
        {"image", "{\"prompt\": \"a\", \"priority\": 11}", "priority"},
        {"image", "{\"prompt\": \"a\", \"stream\": \"maybe\"}", "stream"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_order order;
        dk_error err = {0};
        if (read_order(&order, cases[i].kind, cases[i].body, &err) != DK_INVALID) {
            fail_msg("%s is accepted", cases[i].body);
        }
        assert_string_equal(order.param, cases[i].param);
        assert_true(strlen(err.message) > 10);
        dk_order_release(&order);
    }
}

static void test_the_size_of_a_picture(void **state)
{
    (void)state;
    static const struct {
        int width, height, wide, high;
        const char *more;
    } cases[] = {{64, 32, 64, 32, ""},       /* it suits */
                 {63, 33, 880, 464, ""},     /* about the model's area */
                 {4000, 4000, 624, 624, ""}, /* too large */
                 {10000, 1, 63200, 16, ""},  /* a line stays one */
                 {4000, 4000, 832, 480, ", \"width\": 832"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_order order;
        dk_error err;
        char body[80];
        json_t *defaults = parse(defaults_text);
        snprintf(body, sizeof body, "{\"prompt\": \"a\"%s}", cases[i].more);
        assert_ok(read_order(&order, "image", body, &err), err);
        dk_order_suit_picture(&order, defaults, cases[i].width, cases[i].height);
        assert_int_equal(number(&order, "width") % 16, 0);
        assert_int_equal(number(&order, "height"), cases[i].high);
        if (cases[i].height > 1) {
            assert_int_equal(number(&order, "width"), cases[i].wide);
        }
        dk_order_release(&order);
        json_decref(defaults);
    }
}

/* Sets a parameter to a value that differs from every default. */
static void set_odd(const dk_parameter *parameter, dk_request *request, json_t *kept)
{
    dk_error err;
    char text[64];
    switch (parameter->type) {
    case DK_PARAMETER_TEXT:
        snprintf(text, sizeof text, "\"%s with ü and \\\"\"", parameter->name);
        break;
    case DK_PARAMETER_CHOICE:
    case DK_PARAMETER_LEVEL:
        snprintf(text, sizeof text, "\"%.*s\"", (int)strcspn(parameter->choices, ","),
                 parameter->choices);
        break;
    case DK_PARAMETER_INT:
        snprintf(text, sizeof text, "%.0f", parameter->max);
        break;
    case DK_PARAMETER_REAL:
        snprintf(text, sizeof text, "%.17g",
                 parameter->min + (parameter->max - parameter->min) / 3);
        break;
    case DK_PARAMETER_SEED:
        snprintf(text, sizeof text, "\"18446744073709551557\"");
        break;
    case DK_PARAMETER_BOOL:
        snprintf(text, sizeof text, "true");
        break;
    }
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    assert_ok(dk_parameter_set_json(parameter, request, value, parameter->name, &err), err);
    json_array_append_new(kept, value); /* texts are borrowed from it */
}

static void test_every_parameter_survives_the_wire(void **state)
{
    (void)state;
    dk_error err;
    dk_request request = {0}, back = {0};
    json_t *kept = json_array();
    for (int i = 0; i < dk_request_parameters.count; i++) {
        set_odd(&dk_request_parameters.parameters[i], &request, kept);
    }
    json_t *first = dk_request_to_json(&request);
    char *text = json_dumps(first, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_t *travelled = parse(text);
    assert_ok(dk_request_from_json(&back, travelled, &err), err);
    json_t *second = dk_request_to_json(&back);
    assert_int_equal(json_object_size(first), dk_request_parameters.count);
    assert_true(json_equal(first, second));
    assert_true(back.seed == 18446744073709551557u);
    assert_string_equal(back.prompt, "prompt with ü and \"");
    assert_true(back.strength >= request.strength && back.strength <= request.strength);
    json_decref(second);
    json_decref(travelled);
    json_decref(first);
    json_decref(kept);
    free(text);
}

static void test_what_is_not_set_is_not_sent(void **state)
{
    (void)state;
    dk_error err;
    dk_request request = {.guidance_scale = NAN, .flow_shift = NAN, .width = 64};
    json_t *object = dk_request_to_json(&request);
    assert_null(json_object_get(object, "prompt"));
    assert_null(json_object_get(object, "flow_shift"));
    assert_int_equal(json_integer_value(json_object_get(object, "width")), 64);
    json_decref(object);
    object = parse("{\"width\": 32, \"nothing\": 1}");
    assert_int_equal(dk_request_from_json(&request, object, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "nothing"));
    json_decref(object);
    object = parse("{\"width\": \"32\"}");
    assert_int_equal(dk_request_from_json(&request, object, &err), DK_INVALID);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_model_fills_what_is_not_said),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_quality),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_the_size_of_a_picture),
        cmocka_unit_test(test_every_parameter_survives_the_wire),
        cmocka_unit_test(test_what_is_not_set_is_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
