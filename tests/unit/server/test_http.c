/* Requests and replies over libcurl against a real server. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "http_fixture.h"
#include "scratch.h"

static json_t *body_json(const http_answer *answer)
{
    json_error_t problem;
    json_t *value = json_loads(dk_string_text(&answer->body), 0, &problem);
    assert_non_null(value);
    return value;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static void test_json_is_replied(void **state)
{
    http_fixture *fixture = *state;
    http_answer answer = http_get(fixture, "/hello");
    assert_int_equal(answer.http_status, 200);
    assert_string_equal(dk_string_text(&answer.body), "{\"say\":\"hello\"}");
    assert_string_equal(http_answer_header(&answer, "Content-Type"), "application/json");
    assert_string_equal(http_answer_header(&answer, "X-Content-Type-Options"), "nosniff");
    assert_string_equal(http_answer_header(&answer, "Cache-Control"), "no-store");
    assert_string_equal(http_answer_header(&answer, "Access-Control-Allow-Origin"), "");
    http_answer_release(&answer);
    answer = http_ask(fixture, "HEAD", "/hello", NULL, NULL, 0);
    assert_int_equal(answer.http_status, 200);
    assert_string_equal(http_answer_header(&answer, "Content-Length"), "15");
    assert_int_equal(answer.body.length, 0);
    http_answer_release(&answer);
}

static void test_request_is_told(void **state)
{
    http_fixture *fixture = *state;
    http_answer answer =
        http_ask(fixture, "GET", "/echo/a%2Fb/x/%C3%BC?y=1&x=%26+2", "X-TEST: yes", NULL, 0);
    assert_int_equal(answer.http_status, 200);
    json_t *value = body_json(&answer);
    assert_string_equal(text_of(value, "first"), "a/b");
    assert_string_equal(text_of(value, "second"), "ü");
    assert_string_equal(text_of(value, "path"), "/echo/a/b/x/ü");
    assert_string_equal(text_of(value, "x"), "& 2");
    assert_string_equal(text_of(value, "header"), "yes");
    assert_string_equal(text_of(value, "client"), "127.0.0.1");
    assert_string_equal(text_of(value, "key"), "");
    json_decref(value);
    http_answer_release(&answer);
}

static void test_refusals_are_error_objects(void **state)
{
    http_fixture *fixture = *state;
    http_answer answer = http_get(fixture, "/nowhere");
    http_expect_error(&answer, 404, "nothing at this path");
    answer = http_ask(fixture, "PUT", "/echo/a", NULL, "x", 1);
    assert_string_equal(http_answer_header(&answer, "Allow"), "GET, HEAD, DELETE");
    http_expect_error(&answer, 405, "method");
    answer = http_get(fixture, "/echo/../hello");
    http_expect_error(&answer, 400, "'..'");
    answer = http_get(fixture, "/echo/%00");
    http_expect_error(&answer, 400, "control character");
    answer = http_get(fixture, "/echo/%ff");
    http_expect_error(&answer, 400, "UTF-8");
    answer = http_ask(fixture, "POST", "/body", "Content-Encoding: gzip", "x", 1);
    http_expect_error(&answer, 415, "compressed");
    answer = http_get(fixture, "/error");
    json_t *value = body_json(&answer);
    const json_t *error = json_object_get(value, "error");
    assert_string_equal(text_of(error, "message"), "the queue is ? full?");
    assert_string_equal(text_of(error, "type"), "rate_limit_error");
    assert_string_equal(text_of(error, "param"), "prompt");
    assert_string_equal(text_of(error, "code"), "queue_full");
    json_decref(value);
    http_expect_error(&answer, 429, "queue");
}

static void test_body_arrives_whole(void **state)
{
    http_fixture *fixture = *state;
    const size_t size = 3 * 1024 * 1024 + 17;
    char *body = dk_alloc(size);
    for (size_t i = 0; i < size; i++) {
        body[i] = (char)(i * 2654435761u >> 13);
    }
    http_answer answer =
        http_ask(fixture, "POST", "/body", "Content-Type: Text/Plain; x=y", body, size);
    assert_int_equal(answer.http_status, 201);
    assert_int_equal(answer.body.length, size);
    assert_memory_equal(answer.body.data, body, size);
    assert_string_equal(http_answer_header(&answer, "X-Type"), "text/plain");
    http_answer_release(&answer);
    answer = http_ask(fixture, "POST", "/body", "Transfer-Encoding: chunked", body, size);
    assert_int_equal(answer.body.length, size);
    assert_memory_equal(answer.body.data, body, size);
    http_answer_release(&answer);
    answer = http_ask(fixture, "POST", "/body", NULL, "", 0);
    assert_int_equal(answer.http_status, 201);
    http_answer_release(&answer);
    dk_free(body);
}

static void test_forms_are_parsed(void **state)
{
    http_fixture *fixture = *state;
    static const char body[] =
        "--B\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na cat\r\n"
        "--B\r\nContent-Disposition: form-data; name=\"image\"; filename=\"i.png\"\r\n"
        "Content-Type: image/png\r\n\r\n\0\1\2\r\n--B--\r\n";
    http_answer answer =
        http_ask(fixture, "POST", "/form", "Content-Type: multipart/form-data; boundary=B",
                 body, sizeof body - 1);
    assert_int_equal(answer.http_status, 200);
    json_t *value = body_json(&answer);
    const json_t *image = json_array_get(json_object_get(value, "parts"), 1);
    assert_string_equal(text_of(value, "prompt"), "a cat");
    assert_string_equal(text_of(image, "file"), "i.png");
    assert_string_equal(text_of(image, "type"), "image/png");
    assert_int_equal(json_integer_value(json_object_get(image, "size")), 3);
    assert_true(json_is_false(json_object_get(value, "body")));
    json_decref(value);
    http_answer_release(&answer);
    answer = http_ask(fixture, "POST", "/form", "Content-Type: multipart/form-data; boundary=C",
                      body, sizeof body - 1);
    http_expect_error(&answer, 400, "boundary");
    answer = http_ask(fixture, "POST", "/form",
                      "Content-Type: application/x-www-form-urlencoded", "prompt=a+dog", 12);
    value = body_json(&answer);
    assert_string_equal(text_of(value, "prompt"), "a dog");
    json_decref(value);
    http_answer_release(&answer);
}

/* A body of body_size bytes at /body with limits of the fixture's options. */
static http_answer post_size(http_fixture *fixture, size_t size, const char *headers)
{
    char *body = dk_alloc(size + 1);
    memset(body, 'x', size);
    http_answer answer = http_ask(fixture, "POST", "/body", headers, body, size);
    dk_free(body);
    return answer;
}

static void test_limits_of_bodies(void **state)
{
    http_fixture *fixture = *state;
    const size_t mebi = 1024 * 1024;
    fixture->options.max_body_bytes = mebi;
    http_restart(fixture);
    http_answer answer = post_size(fixture, mebi, NULL);
    assert_int_equal(answer.http_status, 201);
    http_answer_release(&answer);
    /* The reply comes although the client sends on: nothing is thrown away. */
    answer = post_size(fixture, 8 * mebi, NULL);
    http_expect_error(&answer, 413, "1048576");
    answer = post_size(fixture, mebi + 1, "Transfer-Encoding: chunked");
    http_expect_error(&answer, 413, "1048576");
    answer = post_size(fixture, mebi / 2, "Transfer-Encoding: chunked");
    assert_int_equal(answer.http_status, 201);
    http_answer_release(&answer);
    fixture->options.max_total_bytes = mebi / 2;
    http_restart(fixture);
    answer = post_size(fixture, mebi, NULL);
    assert_string_equal(http_answer_header(&answer, "Retry-After"), "1");
    http_expect_error(&answer, 503, "too many uploads");
    answer = post_size(fixture, mebi, "Transfer-Encoding: chunked");
    http_expect_error(&answer, 503, "too many uploads");
    for (int i = 0; i < 8; i++) { /* and everything was given back */
        answer = post_size(fixture, mebi / 4, NULL);
        assert_int_equal(answer.http_status, 201);
        http_answer_release(&answer);
    }
}

static void test_files(void **state)
{
    http_fixture *fixture = *state;
    scratch_write(fixture->folder, "v.mp4", "0123456789");
    http_answer answer = http_get(fixture, "/file/v.mp4?download=m%C3%BC%22x.mp4");
    assert_int_equal(answer.http_status, 200);
    assert_string_equal(dk_string_text(&answer.body), "0123456789");
    assert_string_equal(http_answer_header(&answer, "Content-Type"), "video/mp4");
    assert_string_equal(http_answer_header(&answer, "Content-Length"), "10");
    assert_string_equal(http_answer_header(&answer, "Accept-Ranges"), "bytes");
    assert_string_equal(http_answer_header(&answer, "Content-Disposition"),
                        "attachment; filename=\"m___x.mp4\"; filename*=UTF-8''m%C3%BC%22x.mp4");
    char *etag = dk_strdup(http_answer_header(&answer, "ETag"));
    char *modified = dk_strdup(http_answer_header(&answer, "Last-Modified"));
    assert_int_equal(strlen(modified), strlen("Sun, 06 Nov 1994 08:49:37 GMT"));
    http_answer_release(&answer);
    char header[512];
    snprintf(header, sizeof header, "If-None-Match: \"other\", W/%s", etag);
    answer = http_ask(fixture, "GET", "/file/v.mp4", header, NULL, 0);
    assert_int_equal(answer.http_status, 304);
    assert_string_equal(http_answer_header(&answer, "ETag"), etag);
    http_answer_release(&answer);
    answer = http_ask(fixture, "HEAD", "/file/v.mp4", "Range: bytes=2-3", NULL, 0);
    assert_int_equal(answer.http_status, 200);
    assert_string_equal(http_answer_header(&answer, "Content-Length"), "10");
    http_answer_release(&answer);
    const struct {
        const char *name, *value;
        int http_status;
    } conditions[] = {{"If-Range", etag, 206},
                      {"If-Range", modified, 206},
                      {"If-Range", "\"old\"", 200},
                      {"If-Range", "Sun, 06 Nov 1994 08:49:37 GMT", 200}};
    for (int i = 0; i < 4; i++) {
        snprintf(header, sizeof header, "Range: bytes=2-3\n%s: %s", conditions[i].name,
                 conditions[i].value);
        answer = http_ask(fixture, "GET", "/file/v.mp4", header, NULL, 0);
        assert_int_equal(answer.http_status, conditions[i].http_status);
        http_answer_release(&answer);
    }
    dk_free(etag);
    dk_free(modified);
}

static void test_ranges_of_files(void **state)
{
    http_fixture *fixture = *state;
    scratch_write(fixture->folder, "v.mp4", "0123456789");
    scratch_write(fixture->folder, "empty", "");
    static const struct {
        const char *range, *body, *content_range;
        int http_status;
    } cases[] = {
        {"bytes=2-4", "234", "bytes 2-4/10", 206},
        {"bytes=7-", "789", "bytes 7-9/10", 206},
        {"bytes=-2", "89", "bytes 8-9/10", 206},
        {"bytes=0-99", "0123456789", "bytes 0-9/10", 206},
        {"bytes=1-2,4-5", "0123456789", "", 200},
        {"bytes=x", "0123456789", "", 200},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[64];
        snprintf(header, sizeof header, "Range: %s", cases[i].range);
        http_answer answer = http_ask(fixture, "GET", "/file/v.mp4", header, NULL, 0);
        assert_int_equal(answer.http_status, cases[i].http_status);
        assert_string_equal(dk_string_text(&answer.body), cases[i].body);
        assert_string_equal(http_answer_header(&answer, "Content-Range"),
                            cases[i].content_range);
        http_answer_release(&answer);
    }
    http_answer answer = http_ask(fixture, "GET", "/file/v.mp4", "Range: bytes=10-", NULL, 0);
    assert_string_equal(http_answer_header(&answer, "Content-Range"), "bytes */10");
    http_expect_error(&answer, 416, "outside");
    answer = http_get(fixture, "/file/empty");
    assert_int_equal(answer.http_status, 200);
    assert_int_equal(answer.body.length, 0);
    http_answer_release(&answer);
    answer = http_get(fixture, "/file/none");
    http_expect_error(&answer, 404, "does not exist");
    answer = http_get(fixture, "/file/.%2F"); /* the folder itself */
    http_expect_error(&answer, 400, "'.'");
}

static void test_static_has_an_etag(void **state)
{
    http_fixture *fixture = *state;
    http_answer answer = http_get(fixture, "/");
    assert_int_equal(answer.http_status, 200);
    assert_string_equal(http_answer_header(&answer, "Cache-Control"), "no-cache");
    char header[128];
    snprintf(header, sizeof header, "If-None-Match: %s", http_answer_header(&answer, "ETag"));
    assert_true(strlen(header) > 30);
    http_answer_release(&answer);
    answer = http_ask(fixture, "GET", "/", header, NULL, 0);
    assert_int_equal(answer.http_status, 304);
    assert_int_equal(answer.body.length, 0);
    http_answer_release(&answer);
    answer = http_ask(fixture, "GET", "/", "If-None-Match: \"x\"", NULL, 0);
    assert_int_equal(answer.http_status, 200);
    http_answer_release(&answer);
}

static void test_keys(void **state)
{
    http_fixture *fixture = *state;
    static const char *const keys[] = {"first-key", "second-key"};
    fixture->options.api_keys = keys;
    fixture->options.api_key_count = 2;
    http_restart(fixture);
    http_answer answer = http_get(fixture, "/echo/a");
    assert_string_equal(http_answer_header(&answer, "WWW-Authenticate"), "Bearer");
    http_expect_error(&answer, 401, "wants an API key");
    static const char *const wrong[] = {"first-ke", "first-key2", "", "FIRST-KEY"};
    for (int i = 0; i < 4; i++) {
        char header[64];
        snprintf(header, sizeof header, "Authorization: Bearer %s", wrong[i]);
        answer = http_ask(fixture, "GET", "/echo/a", header, NULL, 0);
        http_expect_error(&answer, 401, "API key");
    }
    answer = http_ask(fixture, "GET", "/echo/a", "Authorization: Basic first-key", NULL, 0);
    http_expect_error(&answer, 401, "API key");
    answer = http_ask(fixture, "POST", "/body", "Authorization: Bearer no", "x", 1);
    http_expect_error(&answer, 401, "API key");
    answer = http_get(fixture, "/open");
    assert_int_equal(answer.http_status, 200);
    http_answer_release(&answer);
    char names[2][32];
    for (int i = 0; i < 2; i++) {
        char header[64];
        snprintf(header, sizeof header, "authorization: bearer %s", keys[i]);
        answer = http_ask(fixture, "GET", "/echo/a", header, NULL, 0);
        assert_int_equal(answer.http_status, 200);
        json_t *value = body_json(&answer);
        snprintf(names[i], sizeof names[i], "%s", text_of(value, "key"));
        assert_int_equal(strlen(names[i]), 16);
        json_decref(value);
        http_answer_release(&answer);
    }
    assert_string_not_equal(names[0], names[1]);
    dk_error err;
    dk_http_server *other;
    static const char *const bad[] = {"", "a b"};
    for (int i = 0; i < 2; i++) {
        dk_http_options options = fixture->options;
        options.api_keys = bad + i;
        options.api_key_count = 1;
        assert_int_equal(dk_http_server_start(&other, &options, &err), DK_INVALID);
    }
}

static void test_cors(void **state)
{
    http_fixture *fixture = *state;
    static const char *const keys[] = {"key"};
    http_answer answer = http_ask(fixture, "OPTIONS", "/echo/a", "Origin: http://a", NULL, 0);
    http_expect_error(&answer, 405, "method");
    fixture->options.cors_origin = "https://page.example";
    fixture->options.api_keys = keys;
    fixture->options.api_key_count = 1;
    http_restart(fixture);
    answer = http_ask(fixture, "OPTIONS", "/echo/a",
                      "Origin: https://page.example\nAccess-Control-Request-Method: GET\n"
                      "Access-Control-Request-Headers: authorization,x-stainless-os",
                      NULL, 0);
    assert_int_equal(answer.http_status, 204);
    assert_string_equal(http_answer_header(&answer, "Access-Control-Allow-Origin"),
                        "https://page.example");
    assert_string_equal(http_answer_header(&answer, "Access-Control-Allow-Methods"),
                        "GET, HEAD, DELETE");
    assert_string_equal(http_answer_header(&answer, "Access-Control-Allow-Headers"),
                        "authorization,x-stainless-os");
    assert_string_equal(http_answer_header(&answer, "Vary"), "Origin");
    http_answer_release(&answer);
    answer = http_ask(fixture, "OPTIONS", "/nowhere", NULL, NULL, 0);
    http_expect_error(&answer, 404, "nothing");
    answer = http_get(fixture, "/echo/a"); /* the page must be able to read refusals */
    assert_string_equal(http_answer_header(&answer, "Access-Control-Allow-Origin"),
                        "https://page.example");
    http_expect_error(&answer, 401, "key");
}

static void test_reports(void **state)
{
    http_fixture *fixture = *state;
    http_answer answer = http_ask(fixture, "POST", "/body", NULL, "12345", 5);
    http_answer_release(&answer);
    http_wait_reports(fixture, 1);
    assert_string_equal(fixture->last_route, "/body");
    assert_int_equal(fixture->last.http_status, 201);
    assert_int_equal(fixture->last.bytes_in, 5);
    assert_int_equal(fixture->last.bytes_out, 5);
    assert_true(fixture->last.seconds > 0 && fixture->last.seconds < 10);
    answer = http_get(fixture, "/no/such");
    http_answer_release(&answer);
    http_wait_reports(fixture, 2);
    assert_string_equal(fixture->last_route, "");
    assert_string_equal(fixture->last_path, "/no/such");
    assert_int_equal(fixture->last.http_status, 404);
}

static void test_tls(void **state)
{
    http_fixture *fixture = *state;
    char command[1024];
    char *certificate = scratch_path(fixture->folder, "cert.pem");
    char *key = scratch_path(fixture->folder, "key.pem");
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext "
             "subjectAltName=IP:127.0.0.1 -keyout '%s' -out '%s' 2>/dev/null",
             key, certificate);
    assert_int_equal(system(command), 0);
    fixture->options.ssl_certfile = certificate;
    fixture->options.ssl_keyfile = key;
    http_restart(fixture);
    http_answer answer = http_ask(fixture, "POST", "/body", NULL, "secret", 6);
    assert_int_equal(answer.http_status, 201);
    assert_string_equal(dk_string_text(&answer.body), "secret");
    http_answer_release(&answer);
    scratch_write(fixture->folder, "v.mp4", "0123456789");
    answer = http_ask(fixture, "GET", "/file/v.mp4", "Range: bytes=5-", NULL, 0);
    assert_int_equal(answer.http_status, 206);
    assert_string_equal(dk_string_text(&answer.body), "56789");
    http_answer_release(&answer);

    dk_error err;
    dk_http_server *other;
    dk_http_options options = fixture->options;
    options.ssl_keyfile = NULL;
    assert_int_equal(dk_http_server_start(&other, &options, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "both"));
    options.ssl_keyfile = "/none/key.pem";
    assert_int_equal(dk_http_server_start(&other, &options, &err), DK_NOT_FOUND);
    assert_non_null(strstr(err.message, "/none/key.pem"));
    scratch_write(fixture->folder, "v.mp4", "no certificate");
    char *bad = scratch_path(fixture->folder, "v.mp4");
    options.ssl_certfile = bad;
    options.ssl_keyfile = key;
    assert_int_equal(dk_http_server_start(&other, &options, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "v.mp4"));
    dk_http_server_stop(&fixture->server);
    http_start(fixture);
    dk_free(bad);
    dk_free(certificate);
    dk_free(key);
}

static void test_hosts(void **state)
{
    http_fixture *fixture = *state;
    dk_error err;
    dk_http_server *other = NULL;
    dk_http_options options = fixture->options;
    options.port = dk_http_server_port(fixture->server);
    assert_int_equal(dk_http_server_start(&other, &options, &err), DK_IO);
    assert_non_null(strstr(err.message, "is taken"));
    options.port = 0;
    options.host = "no such host";
    assert_int_equal(dk_http_server_start(&other, &options, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "no such host"));
    options.host = "192.0.2.1";
    assert_int_equal(dk_http_server_start(&other, &options, &err), DK_IO);
    options.host = "127.0.0.1";
    options.port = 65536;
    assert_int_equal(dk_http_server_start(&other, &options, &err), DK_INVALID);
    static const char *const hosts[] = {"::", "localhost", "0.0.0.0"};
    for (int i = 0; i < 3; i++) {
        fixture->options.host = hosts[i];
        http_restart(fixture);
        http_answer answer = http_get(fixture, "/echo/a");
        assert_int_equal(answer.http_status, 200);
        json_t *value = body_json(&answer);
        assert_string_equal(text_of(value, "client"), "127.0.0.1");
        json_decref(value);
        http_answer_release(&answer);
    }
}

/* Last: the limits of the process are changed. */
static void test_file_limit_is_raised(void **state)
{
    http_fixture *fixture = *state;
    struct rlimit limit, now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 64;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    fixture->options.max_connections = 300;
    http_restart(fixture);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
    assert_true(now.rlim_cur >= 300 + 128);
    http_answer answer = http_get(fixture, "/hello");
    assert_int_equal(answer.http_status, 200);
    http_answer_release(&answer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, http_setup, http_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_json_is_replied),
        TEST(test_request_is_told),
        TEST(test_body_arrives_whole),
        TEST(test_refusals_are_error_objects),
        TEST(test_forms_are_parsed),
        TEST(test_limits_of_bodies),
        TEST(test_files),
        TEST(test_ranges_of_files),
        TEST(test_static_has_an_etag),
        TEST(test_keys),
        TEST(test_cors),
        TEST(test_reports),
        TEST(test_tls),
        TEST(test_hosts),
        TEST(test_file_limit_is_raised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
