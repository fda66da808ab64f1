/* Pictures by URL, from a real server of this machine; and data: URLs. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "server/http/http.h"
#include "server/uploads/address.h"
#include "server/uploads/uploads.h"
#include "test.h"

enum { PICTURE_BYTES = 100000 };

typedef struct fixture {
    dk_http_server *server;
    int port;
    char entry[64];     /* "localhost:PORT" */
    char location[256]; /* of /redirect */
    dk_http_exchange *kept;
} fixture;

static void on_picture(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context, (void)request;
    char *bytes = dk_alloc(PICTURE_BYTES);
    memset(bytes, 'p', PICTURE_BYTES);
    dk_http_reply_bytes(e, 200, "image/png", bytes, PICTURE_BYTES);
}

static void on_redirect(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)request;
    fixture *f = context;
    dk_http_add_header(e, "Location", f->location);
    dk_http_reply_bytes(e, 302, "text/plain", dk_strdup("elsewhere"), 9);
}

static void on_stream(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)context, (void)request;
    dk_http_stream *stream = dk_http_reply_events(e);
    for (int i = 0; i < 10000 && dk_http_stream_send(stream, NULL, "0123456789", false); i++) {
    }
    dk_http_stream_end(&stream);
}

static void on_keep(void *context, dk_http_exchange *e, const dk_http_request *request)
{
    (void)request;
    ((fixture *)context)->kept = e;
}

static const dk_http_route routes[] = {
    {"GET", "/picture", 0, on_picture},
    {"GET", "/redirect", 0, on_redirect},
    {"GET", "/stream", 0, on_stream},
    {"GET", "/never", 0, on_keep},
};

static int setup(void **state)
{
    dk_error err;
    fixture *f = dk_alloc(sizeof *f);
    dk_http_options options;
    dk_http_options_init(&options);
    options.port = 0;
    options.routes = routes;
    options.route_count = 4;
    options.context = f;
    assert_ok(dk_http_server_start(&f->server, &options, &err), err);
    f->port = dk_http_server_port(f->server);
    snprintf(f->entry, sizeof f->entry, "localhost:%d", f->port);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dk_http_server_stop(&f->server);
    if (f->kept != NULL) {
        dk_http_reply_json(f->kept, 200, json_object());
    }
    dk_free(f);
    return 0;
}

static char *url_of(const fixture *f, const char *path)
{
    dk_string url = DK_STRING_EMPTY;
    dk_string_printf(&url, "http://localhost:%d%s", f->port, path);
    return dk_string_take(&url);
}

/* Fetches from a policy of one entry, with `private` addresses allowed. */
static dk_status fetch(dk_string *out, const char *url, const char *entry, bool private,
                       dk_error *err)
{
    const dk_fetch_policy policy = {.hosts = &entry,
                                    .host_count = entry != NULL ? 1 : 0,
                                    .max_bytes = PICTURE_BYTES,
                                    .seconds = 2,
                                    .allow_private = private};
    return dk_upload_fetch(out, url, &policy, err);
}

static void expect_refusal(const char *url, const char *entry, bool private, dk_status status,
                           const char *says)
{
    dk_error err = {0};
    dk_string out = DK_STRING_EMPTY;
    dk_string_puts(&out, "before");
    dk_status got = fetch(&out, url, entry, private, &err);
    if (got != status || strstr(err.message, says) == NULL) {
        fail_msg("%s: %d '%s', expected %d '%s'", url, (int)got, err.message, (int)status,
                 says);
    }
    assert_null(strstr(err.message, "secret"));
    assert_string_equal(out.data, "before");
    assert_int_equal(out.length, 6);
    dk_string_release(&out);
}

static void test_picture_is_fetched(void **state)
{
    fixture *f = *state;
    dk_error err;
    dk_string out = DK_STRING_EMPTY;
    char *url = url_of(f, "/picture?token=secret");
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* is not used */
    setenv("all_proxy", "http://127.0.0.1:1", 1);
    assert_ok(fetch(&out, url, f->entry, true, &err), err);
    assert_int_equal(out.length, PICTURE_BYTES);
    dk_string_clear(&out);
    snprintf(f->location, sizeof f->location, "%s", url);
    dk_free(url);
    url = url_of(f, "/redirect");
    dk_string_puts(&out, "before");
    assert_ok(fetch(&out, url, f->entry, true, &err), err);
    assert_int_equal(out.length, PICTURE_BYTES + 6);
    assert_memory_equal(out.data, "beforeppp", 9);
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    dk_free(url);
    dk_string_release(&out);
}

static void test_hosts_are_checked(void **state)
{
    fixture *f = *state;
    static const char *const others[] = {
        NULL, "", ".", "localhost", "localhost:1", "ocalhost", ".localhost", "example.org"};
    char *url = url_of(f, "/picture?secret");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        expect_refusal(url, others[i], true, DK_INVALID, "are not fetched");
    }
    dk_free(url);
    expect_refusal("https://example.org.evil.test/", ".example.org", false, DK_INVALID,
                   "are not fetched");
    expect_refusal("https://badexample.org/", ".example.org", false, DK_INVALID,
                   "are not fetched");
    expect_refusal("https://example.org/", ".example.org", false, DK_INVALID,
                   "are not fetched");
    expect_refusal("https://a.example.org:22/", ".example.org", false, DK_INVALID, "port 22");
    expect_refusal("https://user:secret@a.example.org/", ".example.org", false, DK_INVALID,
                   "without name and password");
    expect_refusal("file:///etc/passwd", "", true, DK_INVALID, "URL");
    expect_refusal("ftp://localhost/x", "localhost", true, DK_INVALID, "accepted are https:");
    expect_refusal("gopher://localhost/x", "localhost", true, DK_INVALID, "URL");
    expect_refusal("not a url", "localhost", true, DK_INVALID, "URL");
    expect_refusal("", "localhost", true, DK_INVALID, "URL");
}

static void test_addresses_are_checked(void **state)
{
    fixture *f = *state;
    char url[128], entry[64];
    static const char *const hosts[] = {"localhost",  "127.0.0.1",         "127.1",
                                        "0x7f000001", "2130706433",        "0.0.0.0",
                                        "[::1]",      "[::ffff:127.0.0.1]"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        dk_error err = {0};
        dk_string out = DK_STRING_EMPTY;
        snprintf(url, sizeof url, "http://%s:%d/picture", hosts[i], f->port);
        /* libcurl writes numbers as the address that they are. */
        bool is_number = hosts[i][0] != 'l' && hosts[i][0] != '[';
        const char *name = is_number && i != 5 ? "127.0.0.1" : hosts[i];
        snprintf(entry, sizeof entry, "%s:%d", name, f->port);
        assert_int_equal(fetch(&out, url, entry, false, &err), DK_INVALID);
        if (strstr(err.message, "not public") == NULL) {
            fail_msg("%s: %s", url, err.message);
        }
        dk_string_release(&out);
    }
}

static void test_redirects_are_checked(void **state)
{
    fixture *f = *state;
    char *url = url_of(f, "/redirect");
    snprintf(f->location, sizeof f->location, "http://127.0.0.1:%d/picture", f->port);
    expect_refusal(url, f->entry, true, DK_INVALID, "host '127.0.0.1'");
    snprintf(f->location, sizeof f->location, "file:///etc/passwd");
    expect_refusal(url, f->entry, true, DK_INVALID, "URL");
    snprintf(f->location, sizeof f->location, "http://a:secret@localhost:%d/picture", f->port);
    expect_refusal(url, f->entry, true, DK_INVALID, "without name and password");
    snprintf(f->location, sizeof f->location, "/redirect");
    expect_refusal(url, f->entry, true, DK_NETWORK, "more than 3 times");
    dk_free(url);
}

static void test_limits(void **state)
{
    fixture *f = *state;
    char *url = url_of(f, "/picture");
    const char *entry = f->entry;
    dk_error err = {0};
    dk_string out = DK_STRING_EMPTY;
    const dk_fetch_policy small = {.hosts = &entry,
                                   .host_count = 1,
                                   .max_bytes = PICTURE_BYTES - 1,
                                   .allow_private = true};
    assert_int_equal(dk_upload_fetch(&out, url, &small, &err), DK_FORMAT);
    assert_non_null(strstr(err.message, "99999 bytes"));
    dk_free(url);
    url = url_of(f, "/stream"); /* does not tell its length */
    assert_int_equal(dk_upload_fetch(&out, url, &small, &err), DK_FORMAT);
    dk_free(url);
    url = url_of(f, "/never");
    double start = dk_now_ms();
    expect_refusal(url, f->entry, true, DK_NETWORK, "in time");
    assert_true(dk_now_ms() - start < 10000);
    dk_free(url);
    url = url_of(f, "/none?secret");
    expect_refusal(url, f->entry, true, DK_NETWORK, "HTTP 404");
    dk_free(url);
    expect_refusal("http://localhost:1/", "localhost:1", true, DK_NETWORK, "cannot be fetched");
    dk_string_release(&out);
}

static void test_public_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *address;
        bool is_public;
    } cases[] = {
        {"1.1.1.1", true},
        {"8.8.8.8", true},
        {"172.15.255.255", true},
        {"172.32.0.0", true},
        {"100.63.255.255", true},
        {"100.128.0.0", true},
        {"223.255.255.255", true},
        {"169.253.0.1", true},
        {"0.0.0.0", false},
        {"10.1.2.3", false},
        {"100.64.0.1", false},
        {"127.255.0.1", false},
        {"169.254.169.254", false},
        {"172.16.0.1", false},
        {"172.31.255.255", false},
        {"192.0.0.1", false},
        {"192.0.2.1", false},
        {"192.168.255.1", false},
        {"198.18.0.1", false},
        {"198.19.255.255", false},
        {"198.51.100.1", false},
        {"203.0.113.9", false},
        {"224.0.0.1", false},
        {"239.1.1.1", false},
        {"240.0.0.1", false},
        {"255.255.255.255", false},
        {"2606:4700::1111", true},
        {"2a00:1450::1", true},
        {"2001:4860:4860::8888", true},
        {"::", false},
        {"::1", false},
        {"::ffff:127.0.0.1", false},
        {"::ffff:8.8.8.8", false},
        {"::8.8.8.8", false},
        {"64:ff9b::7f00:1", false},
        {"fc00::1", false},
        {"fd12::1", false},
        {"fe80::1", false},
        {"ff02::1", false},
        {"2001:db8::1", false},
        {"2001::1", false},
        {"2002:7f00:1::", false},
        {"3fff::1", false},
        {"4000::1", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sockaddr_storage storage = {0};
        struct sockaddr_in in = {.sin_family = AF_INET};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        if (inet_pton(AF_INET, cases[i].address, &in.sin_addr) == 1) {
            memcpy(&storage, &in, sizeof in);
        } else {
            assert_int_equal(inet_pton(AF_INET6, cases[i].address, &in6.sin6_addr), 1);
            memcpy(&storage, &in6, sizeof in6);
        }
        if (dk_address_is_public((struct sockaddr *)&storage) != cases[i].is_public) {
            fail_msg("%s", cases[i].address);
        }
    }
    const struct sockaddr other = {.sa_family = AF_UNIX};
    assert_false(dk_address_is_public(&other));
}

static void test_data_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        dk_status status;
        const char *expected;
    } cases[] = {
        {"data:image/png;base64,aGVsbG8=", DK_OK, "hello"},
        {"DATA:;Base64,aGVsbG8h", DK_OK, "hello!"},
        {"data:image/png;name=x;base64,aGVs\r\nbG8", DK_OK, "hello"},
        {"data:;base64,", DK_OK, ""},
        {"data:;base64,aA==", DK_OK, "h"},
        {"data:;base64,aA=", DK_INVALID, "base64"},
        {"data:;base64,a", DK_INVALID, "base64"},
        {"data:;base64,aGVsb", DK_INVALID, "base64"},
        {"data:;base64,aGV=bG8=", DK_INVALID, "base64"},
        {"data:;base64,aGVsbG8h=", DK_INVALID, "base64"},
        {"data:;base64,aA===", DK_INVALID, "base64"},
        {"data:;base64,=", DK_INVALID, "base64"},
        {"data:;base64,aGV%73", DK_INVALID, "base64"},
        {"data:text/plain,hello", DK_INVALID, "expected data:"},
        {"data:base64", DK_INVALID, "expected data:"},
        {"data:base64,aGVsbG8", DK_INVALID, "expected data:"},
        {"http://x/;base64,aA==", DK_INVALID, "expected data:"},
        {"data:;base64,aGVsbG8hIQ==", DK_FORMAT, "more than 6 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dk_error err = {0};
        dk_string out = DK_STRING_EMPTY;
        dk_status status = dk_upload_data_url(&out, cases[i].url, 6, &err);
        const char *got = status == DK_OK ? dk_string_text(&out) : err.message;
        if (status != cases[i].status || strstr(got, cases[i].expected) == NULL ||
            (status == DK_OK && strcmp(got, cases[i].expected) != 0) ||
            (status != DK_OK && out.length != 0)) {
            fail_msg("%s: %d '%s'", cases[i].url, (int)status, got);
        }
        dk_string_release(&out);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_picture_is_fetched),
        TEST(test_hosts_are_checked),
        TEST(test_addresses_are_checked),
        TEST(test_redirects_are_checked),
        TEST(test_limits),
        cmocka_unit_test(test_public_addresses),
        cmocka_unit_test(test_data_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
