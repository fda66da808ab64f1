/* Messages and the pipe between scheduler and worker: through real sockets, with descriptors,
   in pieces, and with garbage. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "server/wire/pipe.h"
#include "server/wire/prepare.h"
#include "test.h"

static dk_status decode(const char *text, uint64_t sizes[DK_MESSAGE_MAX_BLOBS], int *count)
{
    dk_error err = {0};
    dk_message message;
    dk_status status = dk_message_decode(&message, text, strlen(text), sizes, count, &err);
    if (status == DK_OK) {
        dk_message_release(&message);
    } else {
        assert_true(strlen(err.message) > 10);
    }
    return status;
}

static void test_headers(void **state)
{
    (void)state;
    uint64_t sizes[DK_MESSAGE_MAX_BLOBS];
    int count;
    assert_int_equal(decode("{\"v\": 1, \"type\": \"x\"}", sizes, &count), DK_OK);
    assert_int_equal(count, 0);
    assert_int_equal(decode("{\"v\":1,\"type\":\"x\",\"blobs\":[0,4294967296]}", sizes, &count),
                     DK_OK);
    assert_int_equal(count, 2);
    assert_true(sizes[0] == 0 && sizes[1] == 4294967296u);
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "7",
        "null",
        "{}",
        "{\"v\": 1}",
        "{\"type\": \"x\"}",
        "{\"v\": 2, \"type\": \"x\"}",
        "{\"v\": \"1\", \"type\": \"x\"}",
        "{\"v\": 1, \"type\": 1}",
        "{\"v\": 1, \"type\": \"x\", \"blobs\": 1}",
        "{\"v\": 1, \"type\": \"x\", \"blobs\": [1, 2, 3]}",
        "{\"v\": 1, \"type\": \"x\", \"blobs\": [-1]}",
        "{\"v\": 1, \"type\": \"x\", \"blobs\": [1.0]}",
        "{\"v\": 1, \"type\": \"x\", \"blobs\": [\"1\"]}",
        "{\"v\": 1, \"type\": \"x\", \"blobs\": [4294967297]}",
        "{\"v\": 1, \"type\": \"x\", \"blobs\": [9223372036854775807, 1]}",
        "{\"v\": 1, \"type\": \"x\", \"type\": \"y\"}",
        "{\"v\": 1, \"type\": \"\xff\"}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (decode(bad[i], sizes, &count) != DK_FORMAT) {
            fail_msg("'%s' is a message", bad[i]);
        }
    }
}

static void test_members(void **state)
{
    (void)state;
    dk_message message;
    dk_message_pack(&message, "event", "{s:s, s:i, s:f}", "text", "ü", "whole", 7, "real", 0.5);
    assert_string_equal(dk_message_type(&message), "event");
    assert_string_equal(dk_message_text(&message, "text"), "ü");
    assert_string_equal(dk_message_text(&message, "whole"), "");
    assert_string_equal(dk_message_text(&message, "none"), "");
    assert_int_equal((int)dk_message_number(&message, "whole", 1), 7);
    assert_int_equal((int)dk_message_number(&message, "text", 3), 3);
    assert_int_equal((int)(dk_message_number(&message, "real", 3) * 2), 1);
    dk_message_release(&message);
    dk_message_release(&message);
    dk_message zeroed = {0};
    dk_message_release(&zeroed); /* closes no descriptor 0 */
    assert_int_not_equal(fcntl(0, F_GETFD), -1);
}

static void test_headers_that_are_too_long(void **state)
{
    (void)state;
    dk_message message;
    dk_error err;
    char *text, *long_text = dk_alloc(DK_MESSAGE_HEADER_BYTES + 1);
    size_t size;
    uint64_t sizes[DK_MESSAGE_MAX_BLOBS];
    int count;
    memset(long_text, 'a', DK_MESSAGE_HEADER_BYTES);
    dk_message_pack(&message, "x", "{s:s}", "text", long_text);
    assert_int_equal(dk_message_encode(&message, &text, &size, &err), DK_INTERNAL);
    dk_message_release(&message);
    assert_int_equal(dk_message_decode(&message, long_text, DK_MESSAGE_HEADER_BYTES + 1, sizes,
                                       &count, &err),
                     DK_FORMAT);
    dk_free(long_text);
}

/* Two ends: `near` as the scheduler's, `far` as given. */
typedef struct ends {
    dk_pipe *near, *far;
} ends;

static ends make_pipe(bool far_blocks)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return (ends){.near = dk_pipe_create(fds[0], false),
                  .far = dk_pipe_create(fds[1], far_blocks)};
}

static void close_pipe(ends *e)
{
    dk_pipe_destroy(&e->near);
    dk_pipe_destroy(&e->far);
    assert_null(e->near);
}

static void send_text(dk_pipe *pipe, const char *text, int fd)
{
    dk_message message;
    dk_error err;
    dk_message_pack(&message, "text", "{s:s}", "text", text);
    message.fd = fd;
    assert_ok(dk_pipe_send(pipe, &message, &err), err);
    assert_int_equal(message.fd, -1);
    dk_message_release(&message);
}

static bool receive(dk_pipe *pipe, dk_message *out)
{
    bool received = false;
    dk_error err;
    assert_ok(dk_pipe_receive(pipe, out, &received, &err), err);
    return received;
}

static void test_messages_arrive_in_order(void **state)
{
    (void)state;
    ends e = make_pipe(true);
    dk_message message;
    assert_false(receive(e.near, &message));
    for (int i = 0; i < 50; i++) {
        char text[24];
        snprintf(text, sizeof text, "number %d", i);
        send_text(e.far, text, -1);
    }
    for (int i = 0; i < 50; i++) {
        char text[24];
        snprintf(text, sizeof text, "number %d", i);
        assert_true(receive(e.near, &message));
        assert_string_equal(dk_message_type(&message), "text");
        assert_string_equal(dk_message_text(&message, "text"), text);
        assert_int_equal(message.fd, -1);
        dk_message_release(&message);
    }
    assert_false(receive(e.near, &message));
    close_pipe(&e);
}

static int make_file(const char *text)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int fd = fcntl(fileno(file), F_DUPFD_CLOEXEC, 0);
    fclose(file);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    return fd;
}

static void assert_file(int fd, const char *text)
{
    char found[32] = "";
    assert_true(fd >= 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(pread(fd, found, sizeof found - 1, 0), strlen(text));
    assert_string_equal(found, text);
}

/* Descriptors go with their own message, whatever lies between them. */
static void test_descriptors(void **state)
{
    (void)state;
    ends e = make_pipe(true);
    dk_message message;
    send_text(e.far, "a", make_file("file a"));
    send_text(e.far, "b", -1);
    send_text(e.far, "c", make_file("file c"));
    static const char *const files[] = {"file a", NULL, "file c"};
    for (int i = 0; i < 3; i++) {
        assert_true(receive(e.near, &message));
        if (files[i] != NULL) {
            assert_file(message.fd, files[i]);
        } else {
            assert_int_equal(message.fd, -1);
        }
        dk_message_release(&message);
    }
    send_text(e.far, "not read", make_file("x"));
    assert_true(receive(e.near, &message));
    int fd = message.fd;
    dk_message_release(&message);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* release closes it */
    close_pipe(&e);
}

static void *big(size_t size, unsigned seed)
{
    unsigned char *bytes = dk_alloc(size);
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(seed >> 24);
    }
    return bytes;
}

static void add_blobs(dk_message *message, size_t first, size_t second)
{
    dk_message_init(message, "result");
    dk_message_add_blob(message, big(first, 1), first);
    dk_message_add_blob(message, big(second, 2), second);
}

static void assert_blobs(const dk_message *message, size_t first, size_t second)
{
    const size_t sizes[] = {first, second};
    assert_int_equal(message->blob_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        void *wanted = big(sizes[i], i + 1);
        assert_int_equal(message->blobs[i].size, sizes[i]);
        assert_int_equal(memcmp(message->blobs[i].data, wanted, sizes[i]), 0);
        dk_free(wanted);
    }
}

enum { BIG = 20 * 1024 * 1024 };

static void *send_big(void *pipe)
{
    dk_message message;
    dk_error err;
    add_blobs(&message, BIG, 0);
    assert_ok(dk_pipe_send(pipe, &message, &err), err);
    dk_message_release(&message);
    return NULL;
}

/* The worker's end blocks until everything is read. */
static void test_big_blobs_to_a_slow_reader(void **state)
{
    (void)state;
    ends e = make_pipe(true);
    pthread_t thread;
    dk_message message;
    assert_int_equal(pthread_create(&thread, NULL, send_big, e.far), 0);
    while (!receive(e.near, &message)) {
        usleep(1000);
    }
    pthread_join(thread, NULL);
    assert_blobs(&message, BIG, 0);
    dk_message_release(&message);
    close_pipe(&e);
}

/* The scheduler's end never blocks: what the socket does not take waits in the pipe. */
static void test_what_does_not_fit_waits(void **state)
{
    (void)state;
    ends e = make_pipe(true);
    dk_message message;
    dk_error err;
    add_blobs(&message, BIG, 1000);
    message.fd = make_file("late");
    assert_ok(dk_pipe_send(e.near, &message, &err), err);
    dk_message_release(&message);
    assert_true(dk_pipe_wants_write(e.near));
    send_text(e.near, "behind it", -1);
    while (!receive(e.far, &message)) {
        assert_ok(dk_pipe_flush(e.near, &err), err);
    }
    assert_blobs(&message, BIG, 1000);
    assert_file(message.fd, "late");
    dk_message_release(&message);
    assert_ok(dk_pipe_flush(e.near, &err), err);
    assert_false(dk_pipe_wants_write(e.near));
    assert_true(receive(e.far, &message));
    assert_string_equal(dk_message_text(&message, "text"), "behind it");
    dk_message_release(&message);
    close_pipe(&e);
}

/* The bytes that dk_pipe_send puts on a socket. Owned. */
static char *bytes_of_a_message(size_t *size)
{
    int fds[2];
    char *bytes = dk_alloc(65536);
    dk_message message;
    dk_error err;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    dk_pipe *pipe = dk_pipe_create(fds[0], true);
    add_blobs(&message, 300, 40);
    assert_ok(dk_pipe_send(pipe, &message, &err), err);
    dk_message_release(&message);
    dk_pipe_destroy(&pipe);
    *size = 0;
    for (ssize_t got; (got = read(fds[1], bytes + *size, 65536 - *size)) > 0;) {
        *size += (size_t)got;
    }
    close(fds[1]);
    return bytes;
}

static void test_messages_in_pieces(void **state)
{
    (void)state;
    size_t size;
    int fds[2];
    char *bytes = bytes_of_a_message(&size);
    dk_message message;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    dk_pipe *pipe = dk_pipe_create(fds[0], false);
    for (size_t i = 0; i < 2 * size; i++) {
        assert_int_equal(write(fds[1], &bytes[i % size], 1), 1);
        bool whole = (i + 1) % size == 0;
        assert_int_equal(receive(pipe, &message), whole);
        if (whole) {
            assert_blobs(&message, 300, 40);
            dk_message_release(&message);
        }
    }
    close(fds[1]);
    bool received;
    dk_error err;
    assert_int_equal(dk_pipe_receive(pipe, &message, &received, &err), DK_IO);
    assert_false(received);
    dk_pipe_destroy(&pipe);
    dk_free(bytes);
}

/* Writes bytes, closes, and returns what a receiver says last. */
static dk_status status_of_bytes(const void *bytes, size_t size)
{
    int fds[2];
    dk_error err = {0};
    dk_message message;
    bool received = true;
    dk_status status = DK_OK;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    dk_pipe *pipe = dk_pipe_create(fds[0], false);
    assert_int_equal(write(fds[1], bytes, size), size);
    close(fds[1]);
    while (status == DK_OK && received) {
        status = dk_pipe_receive(pipe, &message, &received, &err);
        if (status == DK_OK && received) {
            dk_message_release(&message);
        }
    }
    dk_pipe_destroy(&pipe);
    return status;
}

static void test_garbage(void **state)
{
    (void)state;
    size_t size;
    char *bytes = bytes_of_a_message(&size);
    assert_int_equal(status_of_bytes(bytes, size), DK_IO); /* read, then the end */
    assert_int_equal(status_of_bytes(bytes, size - 1), DK_IO);
    assert_int_equal(status_of_bytes("GET / HTTP/1.1\r\n\r\n", 18), DK_FORMAT);
    static const struct {
        size_t at;
        char byte;
    } faults[] = {{0, 'X'}, {7, 0x7f}, {8, 3}, {8, 0}, {12, 1}, {16, '['}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char before = bytes[faults[i].at];
        bytes[faults[i].at] = faults[i].byte;
        if (status_of_bytes(bytes, size) != DK_FORMAT) {
            fail_msg("byte %zu may be %d", faults[i].at, faults[i].byte);
        }
        bytes[faults[i].at] = before;
    }
    dk_free(bytes);
}

/* A message that promises a descriptor that did not come has none. */
static void test_a_promised_descriptor(void **state)
{
    (void)state;
    ends e = make_pipe(true);
    dk_message message;
    dk_error err;
    dk_message_pack(&message, "x", "{s:b}", "with_fd", 1);
    assert_ok(dk_pipe_send(e.far, &message, &err), err);
    dk_message_release(&message);
    assert_true(receive(e.near, &message));
    assert_int_equal(message.fd, -1);
    dk_message_release(&message);
    close_pipe(&e);
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) != -1;
    }
    return count;
}

/* Descriptors that nobody takes are closed: those kept, and those above what is kept. */
static void test_descriptors_do_not_leak(void **state)
{
    (void)state;
    int before = open_descriptors();
    ends e = make_pipe(false);
    dk_message message;
    for (int i = 0; i < 20; i++) {
        send_text(e.far, "x", make_file("x"));
    }
    assert_true(receive(e.near, &message)); /* and 19 more were read with it */
    dk_message_release(&message);
    add_blobs(&message, BIG, 0);
    message.fd = make_file("never sent");
    dk_error err;
    assert_ok(dk_pipe_send(e.far, &message, &err), err);
    dk_message_release(&message);
    close_pipe(&e);
    assert_int_equal(open_descriptors(), before);
}

static void test_the_other_end_is_gone(void **state)
{
    (void)state;
    ends e = make_pipe(true);
    dk_error err;
    dk_message message;
    dk_pipe_destroy(&e.near);
    dk_message_init(&message, "x");
    message.fd = make_file("x");
    assert_int_equal(dk_pipe_send(e.far, &message, &err), DK_IO);
    assert_non_null(strstr(err.message, "gone"));
    dk_message_release(&message);
    dk_pipe_destroy(&e.far);
}

enum { SENDERS = 4, SENT = 500 };

static void *send_many(void *pipe)
{
    for (int i = 0; i < SENT; i++) {
        dk_message message;
        dk_error err;
        add_blobs(&message, 1000, (size_t)i);
        assert_ok(dk_pipe_send(pipe, &message, &err), err);
        dk_message_release(&message);
    }
    return NULL;
}

/* The blocking form may be called from several threads: messages stay whole. */
static void test_many_senders(void **state)
{
    (void)state;
    ends e = make_pipe(true);
    pthread_t threads[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, e.far), 0);
    }
    for (int i = 0; i < SENDERS * SENT;) {
        dk_message message;
        if (receive(e.near, &message)) {
            assert_blobs(&message, 1000, message.blobs[1].size);
            dk_message_release(&message);
            i++;
        }
    }
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    close_pipe(&e);
}

/* Only what a prompt's embedding needs goes to a worker, and only in bounds. */
static void test_prepare(void **state)
{
    (void)state;
    dk_message message;
    json_t *request =
        json_pack("{s:s, s:s, s:f, s:i, s:s}", "prompt", "a cat", "negative_prompt", "",
                  "guidance_scale", 4.0, "width", 64, "image_path", "/a/picture");
    assert_true(dk_prepare_pack(&message, request));
    const json_t *read = dk_prepare_request(&message);
    assert_int_equal(json_object_size(read), 3);
    assert_string_equal(json_string_value(json_object_get(read, "prompt")), "a cat");
    dk_message_release(&message);
    char *text = dk_alloc(DK_PREPARE_TEXT_BYTES + 2);
    memset(text, 'x', DK_PREPARE_TEXT_BYTES + 1);
    json_object_set_new(request, "prompt", json_string(text));
    assert_false(dk_prepare_pack(&message, request));
    text[DK_PREPARE_TEXT_BYTES] = '\0';
    json_object_set_new(request, "prompt", json_string(text));
    assert_true(dk_prepare_pack(&message, request));
    assert_non_null(dk_prepare_request(&message));
    dk_message_release(&message);
    dk_free(text);
    json_decref(request);
    static const char *const malformed[] = {
        "{}",
        "{\"request\": []}",
        "{\"request\": {}}",
        "{\"request\": {\"prompt\": 1}}",
        "{\"request\": {\"prompt\": null}}",
        "{\"request\": {\"prompt\": \"\", \"negative_prompt\": []}}",
        "{\"request\": {\"prompt\": \"\", \"guidance_scale\": \"4\"}}",
        "{\"request\": {\"prompt\": \"\", \"image_path\": \"/etc/passwd\"}}",
    };
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        dk_message_init(&message, "prepare");
        json_t *members = json_loads(malformed[i], 0, NULL);
        json_object_update(message.header, members);
        json_decref(members);
        assert_null(dk_prepare_request(&message));
        dk_message_release(&message);
    }
    request = json_pack("{s:i}", "prompt", 1);
    assert_false(dk_prepare_pack(&message, request));
    json_decref(request);
}

/* As frames go to another host, and become a file there. */
static void test_frames_as_bytes(void **state)
{
    (void)state;
    dk_error err = {0};
    dk_message message;
    dk_message_pack(&message, "result", "{}");
    assert_int_equal(dk_message_put_out(&message, &err), DK_FORMAT);
    dk_message_add_blob(&message, memset(dk_alloc(70000), 'f', 70000), 70000);
    assert_ok(dk_message_put_out(&message, &err), err);
    assert_int_equal(message.blob_count, 0);
    assert_true(message.fd >= 0);
    assert_ok(dk_message_take_in(&message, &err), err);
    assert_int_equal(message.fd, -1);
    assert_int_equal(message.blob_count, 1);
    assert_int_equal(message.blobs[0].size, 70000);
    assert_int_equal(((const char *)message.blobs[0].data)[69999], 'f');
    dk_message_release(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_prepare),
        cmocka_unit_test(test_headers_that_are_too_long),
        cmocka_unit_test(test_messages_arrive_in_order),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_big_blobs_to_a_slow_reader),
        cmocka_unit_test(test_what_does_not_fit_waits),
        cmocka_unit_test(test_messages_in_pieces),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_a_promised_descriptor),
        cmocka_unit_test(test_descriptors_do_not_leak),
        cmocka_unit_test(test_the_other_end_is_gone),
        cmocka_unit_test(test_many_senders),
        cmocka_unit_test(test_frames_as_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
