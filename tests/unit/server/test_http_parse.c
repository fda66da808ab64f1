/* The parsers of src/server/http: targets, ranges, forms, routes. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "server/http/form.h"
#include "server/http/range.h"
#include "server/http/route.h"
#include "server/http/target.h"
#include "test.h"

static void test_target_is_decoded(void **state)
{
    (void)state;
    dk_error err;
    dk_http_target target;
    assert_ok(dk_http_target_parse(&target,
                                   "/v1/models/org%2Fname/%C3%BC?x=1+2&y=%26&z&=v&&x=3", &err),
              err);
    assert_string_equal(target.path, "/v1/models/org/name/ü");
    assert_int_equal(target.segment_count, 4);
    assert_string_equal(target.segments[2], "org/name");
    assert_string_equal(target.segments[3], "ü");
    assert_int_equal(target.pair_count, 5);
    assert_string_equal(target.pairs[0].value, "1 2");
    assert_string_equal(target.pairs[1].value, "&");
    assert_string_equal(target.pairs[2].name, "z");
    assert_string_equal(target.pairs[2].value, "");
    assert_string_equal(target.pairs[3].name, "");
    assert_string_equal(target.pairs[4].value, "3");
    dk_http_target_release(&target);
    assert_ok(dk_http_target_parse(&target, "http://host:1/a?b", &err), err);
    assert_string_equal(target.path, "/a");
    dk_http_target_release(&target);
    assert_ok(dk_http_target_parse(&target, "/", &err), err);
    assert_int_equal(target.segment_count, 1);
    assert_string_equal(target.segments[0], "");
    dk_http_target_release(&target);
    assert_ok(dk_http_target_parse(&target, "/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h", &err), err);
    assert_int_equal(target.segment_count, DK_HTTP_MAX_SEGMENTS + 1);
    dk_http_target_release(&target);
}

static void test_bad_targets_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",        "*",     "a",       "/%",        "/%4",      "/%zz",        "/a%00b",
        "/%0a",    "/..",   "/a/../b", "/a/%2e%2e", "/%2e%2E/", "/a%2f..%2fb", "/a\\..\\b",
        "/./a",    "/\xff", "/%ff",    "/a?%00",    "/a?x=%1f", "/a?x=%ff",    "http://host",
        "/a?x=%2", "\x01",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dk_error err = {0};
        dk_http_target target;
        if (dk_http_target_parse(&target, bad[i], &err) != DK_INVALID) {
            fail_msg("'%s' is accepted", bad[i]);
        }
        assert_true(strlen(err.message) > 10);
    }
    dk_string many = DK_STRING_EMPTY;
    dk_string_puts(&many, "/?");
    for (int i = 0; i <= DK_HTTP_MAX_PAIRS; i++) {
        dk_string_puts(&many, "a=b&");
    }
    dk_http_target target;
    assert_int_equal(dk_http_target_parse(&target, many.data, NULL), DK_INVALID);
    dk_string_release(&many);
}

typedef struct range_case {
    const char *text;
    uint64_t size;
    dk_http_range_kind kind;
    uint64_t first, length;
} range_case;

static void test_ranges(void **state)
{
    (void)state;
    static const range_case cases[] = {
        {NULL, 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"bytes=0-0", 100, DK_HTTP_RANGE_PART, 0, 1},
        {"bytes=10-19", 100, DK_HTTP_RANGE_PART, 10, 10},
        {"Bytes= 10 - 19 ", 100, DK_HTTP_RANGE_PART, 10, 10},
        {"bytes=90-", 100, DK_HTTP_RANGE_PART, 90, 10},
        {"bytes=90-1000", 100, DK_HTTP_RANGE_PART, 90, 10},
        {"bytes=90-99999999999999999999999", 100, DK_HTTP_RANGE_PART, 90, 10},
        {"bytes=-1", 100, DK_HTTP_RANGE_PART, 99, 1},
        {"bytes=-100", 100, DK_HTTP_RANGE_PART, 0, 100},
        {"bytes=-1000", 100, DK_HTTP_RANGE_PART, 0, 100},
        {"bytes=-99999999999999999999999", 100, DK_HTTP_RANGE_PART, 0, 100},
        {"bytes=100-", 100, DK_HTTP_RANGE_OUTSIDE, 0, 0},
        {"bytes=99999999999999999999999-", 100, DK_HTTP_RANGE_OUTSIDE, 0, 0},
        {"bytes=-0", 100, DK_HTTP_RANGE_OUTSIDE, 0, 0},
        {"bytes=0-", 0, DK_HTTP_RANGE_OUTSIDE, 0, 0},
        {"bytes=-5", 0, DK_HTTP_RANGE_OUTSIDE, 0, 0},
        {"bytes=20-10", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"bytes=0-1,5-6", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"bytes=-", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"bytes=a-b", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"bytes=1-2x", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"bytes=--1", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"lines=1-2", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
        {"bytes=", 100, DK_HTTP_RANGE_WHOLE, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const range_case *c = &cases[i];
        uint64_t first = 0, length = 0;
        dk_http_range_kind kind = dk_http_range_parse(c->text, c->size, &first, &length);
        if (kind != c->kind || first != c->first || length != c->length) {
            fail_msg("'%s': kind %d, %llu + %llu", c->text, (int)kind,
                     (unsigned long long)first, (unsigned long long)length);
        }
    }
}

/* Parses a copy of the body; *copy must outlive the form. */
static dk_status parse(dk_http_form *form, char **copy, const char *header, const char *body,
                       size_t size, dk_error *err)
{
    *copy = dk_alloc(size + 1);
    memcpy(*copy, body, size);
    return dk_http_form_parse(form, header, *copy, size, 8, err);
}

#define MULTIPART "multipart/form-data; boundary=XX"

static void test_multipart(void **state)
{
    (void)state;
    static const char body[] =
        "--XX\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na \0 "
        "red\r\n--XXY\r\n--X"
        "\r\n--XX\r\ncontent-type: image/png\r\nX-Other: 1\r\nContent-Disposition: form-data;"
        " filename=\"a \\\"b\\\" ü.png\" ; name=image\r\n\r\n\r\n--XX  \r\n"
        "Content-Disposition:form-data;name=unquoted;filename=x\r\n\r\n\r\n\r\n--XX--\r\nmore";
    dk_error err;
    dk_http_form form;
    char *copy;
    assert_ok(parse(&form, &copy, MULTIPART, body, sizeof body - 1, &err), err);
    assert_int_equal(form.count, 3);
    assert_string_equal(form.parts[0].name, "prompt");
    assert_null(form.parts[0].file_name);
    assert_null(form.parts[0].content_type);
    assert_int_equal(form.parts[0].size, 19);
    assert_memory_equal(form.parts[0].data, "a \0 red\r\n--XXY\r\n--X", 20);
    assert_string_equal(form.parts[1].name, "image");
    assert_string_equal(form.parts[1].file_name, "a \"b\" ü.png");
    assert_string_equal(form.parts[1].content_type, "image/png");
    assert_int_equal(form.parts[1].size, 0);
    assert_string_equal(form.parts[1].data, "");
    assert_string_equal(form.parts[2].name, "unquoted");
    assert_string_equal(form.parts[2].file_name, "x");
    assert_int_equal(form.parts[2].size, 2);
    dk_http_form_release(&form);
    dk_free(copy);
    static const char empty[] =
        "--a'()+_,-./:=? b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n"
        "\r\n--a'()+_,-./:=? b--";
    assert_ok(parse(&form, &copy,
                    "multipart/form-data; charset=x; boundary=\"a'()+_,-./:=? b\"", empty,
                    sizeof empty - 1, &err),
              err);
    assert_int_equal(form.count, 1);
    dk_http_form_release(&form);
    dk_free(copy);
}

typedef struct bad_form {
    const char *header, *body, *says;
} bad_form;

#define HEAD "--XX\r\nContent-Disposition: form-data; name=\"x\"\r\n"

static void test_bad_forms_are_refused(void **state)
{
    (void)state;
    static const bad_form bad[] = {
        {"multipart/form-data", HEAD "\r\nv\r\n--XX--", "boundary"},
        {"multipart/form-data; boundary=", HEAD "\r\nv\r\n--XX--", "boundary"},
        {"multipart/form-data; boundary=\"\"", HEAD "\r\nv\r\n--XX--", "boundary"},
        {"multipart/form-data; boundary=\"XX", HEAD "\r\nv\r\n--XX--", "boundary"},
        {"multipart/form-data; "
         "boundary=aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeefffffff"
         "fffggggggggggh",
         "", "boundary"},
        {MULTIPART, "", "does not begin"},
        {MULTIPART, "preamble\r\n" HEAD "\r\nv\r\n--XX--", "does not begin"},
        {MULTIPART, "--XY\r\n", "does not begin"},
        {MULTIPART, "--XX", "does not begin"},
        {MULTIPART, HEAD "\r\nv", "final boundary"},
        {MULTIPART, HEAD "\r\nv\r\n--XX", "final boundary"},
        {MULTIPART, HEAD "\r\nv\r\n--XX-", "final boundary"},
        {MULTIPART, HEAD "\r\nv\r\n--XX\r\n", "inside a part's headers"},
        {MULTIPART, HEAD, "inside a part's headers"},
        {MULTIPART, "--XX\r\n\r\nv\r\n--XX--", "no Content-Disposition"},
        {MULTIPART, "--XX\r\nContent-Type: a/b\r\n\r\nv\r\n--XX--", "no Content-Disposition"},
        {MULTIPART, "--XX\r\nno colon\r\n\r\nv\r\n--XX--", "without a name"},
        {MULTIPART, "--XX\r\nContent-Disposition: attachment; name=x\r\n\r\nv\r\n--XX--",
         "form-data"},
        {MULTIPART, "--XX\r\nContent-Disposition: form-data\r\n\r\nv\r\n--XX--", "malformed"},
        {MULTIPART, "--XX\r\nContent-Disposition: form-data; name=\"x\r\n\r\nv\r\n--XX--",
         "malformed"},
        {MULTIPART, "--XX\r\nContent-Disposition: form-data; name=\"x\" y\r\n\r\nv\r\n--XX--",
         "malformed"},
        {MULTIPART, "--XX\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nv\r\n--XX--",
         "0 bytes"},
        {MULTIPART, "--XX\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\nv\r\n--XX--",
         "name"},
        {MULTIPART, HEAD "Content-Disposition: form-data; name=\"y\"\r\n\r\nv\r\n--XX--",
         "not one"},
        {MULTIPART, HEAD "Content-Transfer-Encoding: base64\r\n\r\nv\r\n--XX--", "base64"},
        {"application/x-www-form-urlencoded", "a=%2", "bad %XX"},
        {"application/x-www-form-urlencoded", "a=%00", "NUL"},
        {"application/x-www-form-urlencoded", "=v", "0 bytes"},
        {"application/x-www-form-urlencoded", "a&b&c&d&e&f&g&h&i", "more than 8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dk_error err = {0};
        dk_http_form form;
        char *copy;
        dk_status status =
            parse(&form, &copy, bad[i].header, bad[i].body, strlen(bad[i].body), &err);
        if (status != DK_INVALID || strstr(err.message, bad[i].says) == NULL) {
            fail_msg("form %zu: status %d, '%s', expected '%s'", i, (int)status, err.message,
                     bad[i].says);
        }
        dk_free(copy);
    }
}

static void test_large_forms_are_refused(void **state)
{
    (void)state;
    dk_error err;
    dk_http_form form;
    char *copy;
    dk_string body = DK_STRING_EMPTY;
    for (int i = 0; i < 9; i++) {
        dk_string_puts(&body, HEAD "\r\nv\r\n");
    }
    dk_string_puts(&body, "--XX--");
    assert_int_equal(parse(&form, &copy, MULTIPART, body.data, body.length, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "more than 8 parts"));
    dk_free(copy);
    dk_string_clear(&body);
    dk_string_puts(&body, "--XX\r\n");
    for (int i = 0; i < 1000; i++) {
        dk_string_puts(&body, "X-Header: value\r\n");
    }
    dk_string_puts(&body, "\r\nv\r\n--XX--");
    assert_int_equal(parse(&form, &copy, MULTIPART, body.data, body.length, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "bytes of headers"));
    dk_free(copy);
    dk_string_release(&body);
}

static void test_urlencoded(void **state)
{
    (void)state;
    static const char body[] = "prompt=a+red%0Acat&&n=2&flag&empty=&x=a=b";
    dk_error err;
    dk_http_form form;
    char *copy;
    assert_ok(
        parse(&form, &copy, "application/x-www-form-urlencoded", body, sizeof body - 1, &err),
        err);
    assert_int_equal(form.count, 5);
    assert_string_equal(form.parts[0].name, "prompt");
    assert_string_equal(form.parts[0].data, "a red\ncat");
    assert_int_equal(form.parts[0].size, 9);
    assert_string_equal(form.parts[2].name, "flag");
    assert_string_equal(form.parts[2].data, "");
    assert_string_equal(form.parts[3].data, "");
    assert_string_equal(form.parts[4].data, "a=b");
    dk_http_form_release(&form);
    dk_free(copy);
}

static void test_routes(void **state)
{
    (void)state;
    static const dk_http_route table[] = {
        {"GET", "/", 0, NULL},
        {"GET", "/v1/videos", 0, NULL},
        {"POST", "/v1/videos", 0, NULL},
        {"GET", "/v1/videos/{id}/content", 0, NULL},
    };
    const dk_http_routes routes = {table, 4};
    const char *captures[DK_HTTP_MAX_CAPTURES];
    dk_http_target target;
    static const struct {
        const char *method, *path;
        int route;
    } cases[] = {
        {"GET", "/", 0},
        {"HEAD", "/v1/videos", 1},
        {"POST", "/v1/videos", 2},
        {"GET", "/v1/videos/", -1},
        {"GET", "/v1//videos", -1},
        {"GET", "/v1", -1},
        {"DELETE", "/v1/videos", -1},
        {"GET", "/v1/videos/a/content", 3},
        {"GET", "/v1/videos//content", -1},
        {"GET", "/v1/videos/a/b/content", -1},
        {"GET", "/v1/videos/a%2Fb/content", 3},
        {"get", "/", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_error err;
        assert_ok(dk_http_target_parse(&target, cases[i].path, &err), err);
        const dk_http_route *found =
            dk_http_route_find(&routes, cases[i].method, &target, captures);
        int index = found != NULL ? (int)(found - table) : -1;
        if (index != cases[i].route) {
            fail_msg("%s %s: route %d", cases[i].method, cases[i].path, index);
        }
        assert_true(index != 3 || captures[0][0] == 'a');
        dk_http_target_release(&target);
    }
    dk_string methods = DK_STRING_EMPTY;
    dk_error err;
    assert_ok(dk_http_target_parse(&target, "/v1/videos", &err), err);
    assert_true(dk_http_route_methods(&routes, &target, &methods));
    assert_string_equal(methods.data, "GET, HEAD, POST");
    dk_string_release(&methods);
    dk_http_target_release(&target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_target_is_decoded),
        cmocka_unit_test(test_bad_targets_are_refused),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_multipart),
        cmocka_unit_test(test_bad_forms_are_refused),
        cmocka_unit_test(test_large_forms_are_refused),
        cmocka_unit_test(test_urlencoded),
        cmocka_unit_test(test_routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
