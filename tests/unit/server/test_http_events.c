/* Server-sent events, with readers that are quick, slow and gone. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "http_fixture.h"
#include "server/http/internal.h"

static const char request[] = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";

static void test_events_arrive(void **state)
{
    http_fixture *fixture = *state;
    int fd = http_dial(fixture);
    http_send(fd, request);
    dk_http_stream *stream = http_wait_stream(fixture);
    dk_string got = http_receive(fd, "\r\n\r\n", 5);
    assert_non_null(strstr(got.data, "Content-Type: text/event-stream"));
    assert_non_null(strstr(got.data, "Cache-Control: no-store"));
    dk_string_release(&got);
    assert_true(dk_http_stream_send(stream, "progress", "{\"step\": 1}", true));
    got = http_receive(fd, "\n\n\r\n", 5);
    assert_non_null(strstr(got.data, "event: progress\ndata: {\"step\": 1}\n\n"));
    dk_string_release(&got);
    assert_true(dk_http_stream_send(stream, NULL, "a\nb\r\nc\rd\n", false));
    got = http_receive(fd, "\n\n\r\n", 5);
    assert_non_null(strstr(got.data, "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"));
    assert_null(strstr(got.data, "event:"));
    dk_string_release(&got);
    assert_true(dk_http_stream_send(stream, "done", "last", false));
    dk_http_stream_end(&stream);
    assert_null(stream);
    got = http_receive(fd, "\r\n0\r\n\r\n", 5);
    assert_non_null(strstr(got.data, "event: done\ndata: last\n\n"));
    assert_non_null(strstr(got.data, "\r\n0\r\n\r\n"));
    dk_string_release(&got);
    /* The connection goes on. */
    http_send(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    got = http_receive(fd, "hello\"}", 5);
    assert_non_null(strstr(dk_string_text(&got), "hello"));
    dk_string_release(&got);
    close(fd);
    http_wait_reports(fixture, 2);
    dk_http_stream_end(&stream); /* NULL is fine */
}

static void test_large_event(void **state)
{
    http_fixture *fixture = *state;
    const size_t size = 3 * 1024 * 1024;
    char *data = dk_alloc(size + 1);
    memset(data, 'A', size);
    int fd = http_dial(fixture);
    http_send(fd, request);
    dk_http_stream *stream = http_wait_stream(fixture);
    /* A partial picture is on its way when the final one comes. */
    assert_true(dk_http_stream_send(stream, "partial", data, true));
    assert_true(dk_http_stream_send(stream, "final", data, false));
    dk_http_stream_end(&stream);
    dk_string got = http_receive(fd, "\r\n0\r\n\r\n", 20);
    size_t count = 0;
    for (size_t i = 0; i < got.length; i++) {
        count += got.data[i] == 'A';
    }
    assert_true(count >= 2 * size);
    dk_string_release(&got);
    dk_free(data);
    close(fd);
}

/* A reader that takes nothing: droppable events are left out, the others are kept up to a
   limit, then the stream is over for it. */
static void test_slow_reader(void **state)
{
    http_fixture *fixture = *state;
    char data[4097];
    memset(data, 'x', sizeof data - 1);
    data[sizeof data - 1] = '\0';
    int fd = http_dial(fixture);
    http_send(fd, request);
    dk_http_stream *stream = http_wait_stream(fixture);
    for (int i = 0; i < 20000; i++) { /* more than the sockets take */
        assert_true(dk_http_stream_send(stream, NULL, data, true));
    }
    int kept = 0;
    while (kept < 1000 && dk_http_stream_send(stream, NULL, data, false)) {
        kept++;
    }
    assert_in_range(kept, 40, 200); /* 256 KiB of 4 KiB, less what is on its way */
    assert_false(dk_http_stream_send(stream, NULL, "more", true));
    dk_http_stream_end(&stream);
    assert_true(http_is_closed(fd, 20));
    close(fd);
    http_wait_connections(fixture, 0);
}

static void test_gone_reader_is_found(void **state)
{
    http_fixture *fixture = *state;
    fixture->server->watch.comment_ms = 100;
    int fd = http_dial(fixture);
    http_send(fd, request);
    dk_http_stream *stream = http_wait_stream(fixture);
    dk_string got = http_receive(fd, ":\n\n\r\n", 5);
    assert_non_null(strstr(got.data, ":\n\n"));
    dk_string_release(&got);
    close(fd);
    http_wait_connections(fixture, 0); /* found by its comments alone */
    assert_false(dk_http_stream_send(stream, "progress", "x", false));
    dk_http_stream_end(&stream);
}

static void test_head_of_events(void **state)
{
    http_fixture *fixture = *state;
    http_answer answer = http_ask(fixture, "HEAD", "/events", NULL, NULL, 0);
    assert_int_equal(answer.http_status, 200);
    http_answer_release(&answer);
    dk_http_stream *stream = http_wait_stream(fixture);
    http_wait_reports(fixture, 1);
    dk_http_stream_end(&stream);
}

static void test_stop_ends_streams(void **state)
{
    http_fixture *fixture = *state;
    int fd = http_dial(fixture);
    http_send(fd, request);
    dk_http_stream *stream = http_wait_stream(fixture);
    assert_true(dk_http_stream_send(stream, NULL, "last words", false));
    dk_http_server_stop(&fixture->server);
    dk_string got = http_receive(fd, NULL, 5);
    assert_non_null(strstr(got.data, "last words\n\n\r\n0\r\n\r\n"));
    dk_string_release(&got);
    assert_false(dk_http_stream_send(stream, NULL, "too late", false));
    dk_http_stream_end(&stream);
    close(fd);
    http_start(fixture);
}

/* Producers, readers and ends at once. */
static void test_many_streams(void **state)
{
    enum { STREAMS = 50, EVENTS = 40 };
    http_fixture *fixture = *state;
    int fds[STREAMS];
    dk_http_stream *streams[STREAMS];
    fixture->server->watch.comment_ms = 1;
    for (int i = 0; i < STREAMS; i++) {
        fds[i] = http_dial(fixture);
        http_send(fds[i], request);
        streams[i] = http_wait_stream(fixture);
    }
    for (int n = 0; n < EVENTS; n++) {
        for (int i = 0; i < STREAMS; i++) {
            dk_http_stream_send(streams[i], "progress", "{}", n % 2 == 0);
        }
        if (n == EVENTS / 2) {
            close(fds[0]);
            dk_http_stream_end(&streams[1]);
            streams[1] = streams[2];
        }
    }
    streams[1] = NULL;
    for (int i = 0; i < STREAMS; i++) {
        dk_http_stream_end(&streams[i]);
    }
    for (int i = 1; i < STREAMS; i++) {
        dk_string got = http_receive(fds[i], "\r\n0\r\n\r\n", 10);
        assert_non_null(strstr(got.data, "\r\n0\r\n\r\n"));
        dk_string_release(&got);
        close(fds[i]);
    }
    http_wait_connections(fixture, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, http_setup, http_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_events_arrive),  TEST(test_large_event),
        TEST(test_slow_reader),    TEST(test_gone_reader_is_found),
        TEST(test_head_of_events), TEST(test_stop_ends_streams),
        TEST(test_many_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
