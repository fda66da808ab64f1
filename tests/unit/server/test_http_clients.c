/* Clients that libcurl is not: late, slow, vanishing, many, pipelining, malformed. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "http_fixture.h"

/* Sends text on a socket of its own; the reply must contain `expected`. */
static void expect_reply(http_fixture *fixture, const char *text, const char *expected)
{
    int fd = http_dial(fixture);
    http_send(fd, text);
    dk_string got = http_receive(fd, expected, 5);
    if (strstr(dk_string_text(&got), expected) == NULL) {
        fail_msg("'%s': got '%s', expected '%s'", text, dk_string_text(&got), expected);
    }
    dk_string_release(&got);
    close(fd);
}

static void *answer_late(void *context)
{
    http_sleep_ms(50);
    dk_http_reply_json(context, 200, json_pack("{s:s}", "say", "late"));
    return NULL;
}

static void test_late_replies(void **state)
{
    http_fixture *fixture = *state;
    static const char *const paths[] = {"/keep", "/keep-inline"};
    for (int i = 0; i < 2; i++) {
        int fd = http_dial(fixture);
        dk_string request = DK_STRING_EMPTY;
        dk_string_printf(&request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[i]);
        http_send(fd, request.data);
        dk_string_release(&request);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, answer_late, http_wait_kept(fixture)),
                         0);
        dk_string got = http_receive(fd, "late\"}", 5);
        assert_non_null(strstr(dk_string_text(&got), "HTTP/1.1 200"));
        assert_non_null(strstr(dk_string_text(&got), "late"));
        dk_string_release(&got);
        pthread_join(thread, NULL);
        /* The connection goes on. */
        http_send(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        got = http_receive(fd, "hello", 5);
        assert_non_null(strstr(dk_string_text(&got), "hello"));
        dk_string_release(&got);
        close(fd);
    }
}

/* Answers from the other thread while the handler still runs, again and again: replies that
   come before the connection sleeps must not be lost. */
static void test_reply_races(void **state)
{
    http_fixture *fixture = *state;
    int fd = http_dial(fixture);
    for (int i = 0; i < 300; i++) {
        http_send(fd, i % 2 == 0 ? "GET /keep HTTP/1.1\r\nHost: x\r\n\r\n"
                                 : "GET /keep-inline HTTP/1.1\r\nHost: x\r\n\r\n");
        dk_http_reply_json(http_wait_kept(fixture), 200, json_pack("{s:i}", "n", i));
        dk_string got = http_receive(fd, "}", 5);
        assert_non_null(strstr(dk_string_text(&got), "HTTP/1.1 200"));
        dk_string_release(&got);
    }
    close(fd);
}

static void test_vanished_client(void **state)
{
    http_fixture *fixture = *state;
    /* libmicrohttpd may miss an end that comes together with the last bytes: then the idle
       time-out finds it. */
    fixture->options.idle_timeout_s = 2;
    http_restart(fixture);
    int fd = http_dial(fixture);
    http_send(fd, "GET /keep HTTP/1.1\r\nHost: x\r\n\r\n");
    dk_http_exchange *kept = http_wait_kept(fixture);
    const struct linger hard = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    http_sleep_ms(20);
    assert_string_equal(dk_http_request_of(kept)->path, "/keep");
    dk_http_reply_json(kept, 200, json_object());
    http_wait_reports(fixture, 1);
    http_wait_connections(fixture, 0);
    /* One that vanishes within its body. */
    fd = http_dial(fixture);
    http_send(fd, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    http_wait_connections(fixture, 1);
    close(fd);
    http_wait_connections(fixture, 0);
    http_wait_reports(fixture, 2);
    assert_int_equal(fixture->last.http_status, 0);
    http_answer answer = http_get(fixture, "/hello");
    assert_int_equal(answer.http_status, 200);
    http_answer_release(&answer);
}

static void test_pipelined_requests(void **state)
{
    http_fixture *fixture = *state;
    int fd = http_dial(fixture);
    http_send(fd, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
                  "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                  "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
                  "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    dk_string got = http_receive(fd, NULL, 5);
    static const char *const order[] = {"{}", "201 Created", "abc", "404 Not Found",
                                        "{\"say\":\"hello\"}"};
    const char *at = dk_string_text(&got);
    for (int i = 0; i < 5; i++) {
        at = strstr(at, order[i]);
        if (at == NULL) {
            fail_msg("'%s' is missing in: %s", order[i], dk_string_text(&got));
        }
    }
    dk_string_release(&got);
    close(fd);
}

static void test_malformed_requests(void **state)
{
    http_fixture *fixture = *state;
    expect_reply(fixture, "GET /hello HTTP/1.1\r\n\r\n", "400 Bad Request"); /* no Host */
    expect_reply(fixture, "GET hello HTTP/1.1\r\nHost: x\r\n\r\n", "begin with '/'");
    expect_reply(fixture, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "begin with '/'");
    expect_reply(fixture,
                 "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: "
                 "chunked\r\n\r\n0\r\n\r\n",
                 "HTTP/1.1 400");
    expect_reply(fixture,
                 "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n"
                 "\r\nabc",
                 "HTTP/1.1 400");
    expect_reply(fixture, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9x\r\n\r\nabc",
                 "HTTP/1.1 400");
    expect_reply(fixture,
                 "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 "HTTP/1.1 400");
    expect_reply(fixture,
                 "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: "
                 "99999999999999999999999999\r\n\r\n",
                 "HTTP/1.1 413");
    expect_reply(fixture, "GET http://host/hello HTTP/1.1\r\nHost: x\r\n\r\n", "hello\"}");
    expect_reply(fixture, "GET /hello HTTP/1.0\r\n\r\n", "hello\"}");
    dk_string huge = DK_STRING_EMPTY;
    dk_string_puts(&huge, "GET /hello HTTP/1.1\r\nHost: x\r\nX-Big: ");
    for (int i = 0; i < 40000; i++) {
        dk_string_putc(&huge, 'a');
    }
    dk_string_puts(&huge, "\r\n\r\n");
    expect_reply(fixture, huge.data, "HTTP/1.1 4");
    dk_string_release(&huge);
}

static void test_large_upload_is_refused_before_it_is_read(void **state)
{
    http_fixture *fixture = *state;
    fixture->options.max_body_bytes = 1000;
    http_restart(fixture);
    expect_reply(fixture,
                 "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
                 "Expect: 100-continue\r\n\r\n",
                 "HTTP/1.1 413");
}

static void test_slow_sender_is_cut(void **state)
{
    http_fixture *fixture = *state;
    fixture->options.request_timeout_s = 1;
    fixture->options.idle_timeout_s = 5;
    http_restart(fixture);
    double start = dk_now_ms();
    int slow = http_dial(fixture), silent = http_dial(fixture), kept = http_dial(fixture);
    http_send(slow, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    http_send(kept, "GET /keep HTTP/1.1\r\nHost: x\r\n\r\n");
    dk_http_exchange *exchange = http_wait_kept(fixture);
    for (int i = 0; i < 8; i++) { /* often enough for the idle time-out */
        http_sleep_ms(100);
        http_send(slow, "x");
    }
    dk_string got = http_receive(slow, NULL, 5);
    assert_non_null(strstr(dk_string_text(&got), "HTTP/1.1 408"));
    assert_non_null(strstr(dk_string_text(&got), "too long to arrive"));
    dk_string_release(&got);
    assert_true(http_is_closed(silent, 5));
    assert_true(dk_now_ms() - start < 4000);
    /* A request that has arrived may take any time. */
    dk_http_reply_json(exchange, 200, json_pack("{s:s}", "say", "patient"));
    got = http_receive(kept, "patient", 5);
    assert_non_null(strstr(dk_string_text(&got), "patient"));
    dk_string_release(&got);
    close(slow);
    close(silent);
    close(kept);
}

static void test_idle_connection_is_closed(void **state)
{
    http_fixture *fixture = *state;
    fixture->options.idle_timeout_s = 1;
    http_restart(fixture);
    int fd = http_dial(fixture);
    http_send(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    dk_string got = http_receive(fd, "hello\"}", 5);
    dk_string_release(&got);
    assert_true(http_is_closed(fd, 5));
    close(fd);
}

static void test_connections_above_the_limit_are_closed(void **state)
{
    http_fixture *fixture = *state;
    int held[4];
    fixture->options.max_connections = 4;
    http_restart(fixture);
    for (int i = 0; i < 4; i++) {
        held[i] = http_dial(fixture);
    }
    http_wait_connections(fixture, 4);
    for (int i = 0; i < 100; i++) {
        int fd = http_dial(fixture);
        assert_true(http_is_closed(fd, 5));
        close(fd);
    }
    http_send(held[3], "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    dk_string got = http_receive(held[3], "hello\"}", 5);
    assert_non_null(strstr(dk_string_text(&got), "hello"));
    dk_string_release(&got);
    for (int i = 0; i < 4; i++) {
        close(held[i]);
    }
    http_wait_connections(fixture, 0);
    http_answer answer = http_get(fixture, "/hello");
    assert_int_equal(answer.http_status, 200);
    http_answer_release(&answer);
}

/* Inline routes answer at once although many clients do nothing and all handlers are
   busy. */
static void test_idle_crowd(void **state)
{
    enum { CROWD = 1800, BUSY = 8, ASKED = 200 };
    http_fixture *fixture = *state;
    int crowd[CROWD], busy[BUSY];
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = http_dial(fixture);
        http_send(crowd[i], i % 2 == 0 ? "GET /hello HTTP/1.1\r\nHo" : "");
    }
    for (int i = 0; i < BUSY; i++) {
        busy[i] = http_dial(fixture);
        http_send(busy[i], "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    int fd = http_dial(fixture);
    double start = dk_now_ms();
    for (int i = 0; i < ASKED; i++) {
        http_send(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        dk_string got = http_receive(fd, "hello\"}", 5);
        assert_non_null(strstr(dk_string_text(&got), "hello"));
        dk_string_release(&got);
    }
    double each_ms = (dk_now_ms() - start) / ASKED;
    print_message("%.3f ms for each inline reply\n", each_ms);
    assert_true(each_ms < 20);
    close(fd);
    for (int i = 0; i < BUSY; i++) {
        dk_string got = http_receive(busy[i], "{}", 10);
        assert_non_null(strstr(dk_string_text(&got), "{}"));
        dk_string_release(&got);
        close(busy[i]);
    }
    for (int i = 0; i < CROWD; i++) {
        close(crowd[i]);
    }
}

static void test_quiesce_and_stop(void **state)
{
    http_fixture *fixture = *state;
    int open = http_dial(fixture), slow = http_dial(fixture);
    http_wait_connections(fixture, 2);
    http_send(slow, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait_slow(fixture, 1);
    dk_http_server_quiesce(fixture->server);
    dk_http_server_quiesce(fixture->server);
    http_send(open, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    dk_string got = http_receive(open, "hello\"}", 5);
    assert_non_null(strstr(dk_string_text(&got), "hello"));
    dk_string_release(&got);
    http_answer answer = http_get(fixture, "/hello");
    assert_int_equal(answer.http_status, 0);
    http_answer_release(&answer);
    /* The running handler's reply still arrives. */
    dk_http_server_stop(&fixture->server);
    got = http_receive(slow, NULL, 5);
    if (strstr(dk_string_text(&got), "{}") == NULL) {
        fail_msg("got '%s'", dk_string_text(&got));
    }
    dk_string_release(&got);
    assert_true(http_is_closed(open, 5));
    close(open);
    close(slow);
    http_start(fixture);
}

static void test_unanswered_exchange_survives_the_stop(void **state)
{
    http_fixture *fixture = *state;
    int fd = http_dial(fixture);
    http_send(fd, "GET /keep HTTP/1.1\r\nHost: x\r\n\r\n");
    dk_http_exchange *kept = http_wait_kept(fixture);
    dk_http_server_stop(&fixture->server);
    assert_true(http_is_closed(fd, 5));
    assert_string_equal(dk_http_request_of(kept)->path, "/keep");
    dk_http_reply_json(kept, 200, json_object());
    close(fd);
    http_start(fixture);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, http_setup, http_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_late_replies),
        TEST(test_reply_races),
        TEST(test_vanished_client),
        TEST(test_pipelined_requests),
        TEST(test_malformed_requests),
        TEST(test_large_upload_is_refused_before_it_is_read),
        TEST(test_slow_sender_is_cut),
        TEST(test_idle_connection_is_closed),
        TEST(test_connections_above_the_limit_are_closed),
        TEST(test_idle_crowd),
        TEST(test_quiesce_and_stop),
        TEST(test_unanswered_exchange_survives_the_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
