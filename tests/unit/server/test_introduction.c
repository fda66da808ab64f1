/* What workers on other hosts are told: as text, as a file of one user, and which of several
   endpoints is taken. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "scratch.h"
#include "server/wire/introduction.h"
#include "test.h"

static void test_the_text_holds_no_key_of_the_scheduler(void **state)
{
    (void)state;
    dk_error err = {0};
    dk_introduction made, read;
    dk_string text = DK_STRING_EMPTY;
    assert_ok(dk_introduction_make(&made, &err), err);
    dk_introduction_add(&made, "tcp://10.0.0.1:29502");
    dk_introduction_add(&made, "tcp://[fd00::1]:29502");
    dk_introduction_write(&text, &made, false);
    assert_null(strstr(text.data, made.own));
    assert_ok(dk_introduction_read(&read, text.data, &err), err);
    assert_int_equal(read.endpoint_count, 2);
    assert_string_equal(read.endpoints[1], "tcp://[fd00::1]:29502");
    assert_string_equal(read.server, made.server);
    assert_string_equal(read.secret, made.secret);
    assert_string_equal(read.own, "");
    dk_string_release(&text);
}

static void test_texts_that_tell_too_little(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "endpoint=tcp://a:1\n", "server=x\nsecret=y\n",
                                        "endpoint=tcp://a:1\nserver=x", "\n\n=\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        dk_error err = {0};
        dk_introduction read;
        assert_int_equal(dk_introduction_read(&read, texts[i], &err), DK_FORMAT);
        assert_non_null(strstr(err.message, "endpoint"));
    }
}

static void test_many_and_long_endpoints(void **state)
{
    (void)state;
    dk_error err = {0};
    dk_introduction made, read;
    dk_string text = DK_STRING_EMPTY;
    char endpoint[1000];
    memset(endpoint, 'x', sizeof endpoint - 1);
    endpoint[sizeof endpoint - 1] = '\0';
    assert_ok(dk_introduction_make(&made, &err), err);
    for (int i = 0; i < 2 * DK_INTRODUCTION_ENDPOINTS; i++) {
        dk_introduction_add(&made, endpoint);
    }
    dk_introduction_write(&text, &made, true);
    assert_true(text.length < DK_INTRODUCTION_BYTES);
    assert_ok(dk_introduction_read(&read, text.data, &err), err);
    assert_int_equal(read.endpoint_count, DK_INTRODUCTION_ENDPOINTS);
    dk_string_release(&text);
}

static void test_the_file_is_of_one_user(void **state)
{
    (void)state;
    dk_error err = {0};
    dk_introduction made, read;
    bool is_empty = true;
    char *folder = scratch_create(), path[4096];
    snprintf(path, sizeof path, "%s/introduction", folder);
    assert_int_equal(dk_introduction_load(&read, &is_empty, path, &err), DK_IO);
    assert_ok(dk_introduction_make(&made, &err), err);
    dk_introduction_add(&made, "tcp://10.0.0.1:29502");
    assert_ok(dk_introduction_save(&made, path, &err), err);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_ok(dk_introduction_load(&read, &is_empty, path, &err), err);
    assert_false(is_empty);
    assert_string_equal(read.own, made.own);
    assert_string_equal(read.allowed, made.allowed);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(dk_introduction_load(&read, &is_empty, path, &err), DK_DENIED);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 0), 0);
    assert_ok(dk_introduction_load(&read, &is_empty, path, &err), err);
    assert_true(is_empty);
    scratch_remove(folder);
}

/* The first endpoints lead nowhere: a port that nobody has, and a name that is none. */
static void test_the_endpoint_that_answers_is_found(void **state)
{
    (void)state;
    dk_error err = {0};
    dk_introduction i;
    char found[DK_INTRODUCTION_ENDPOINT_BYTES];
    char endpoint[64];
    struct sockaddr_in own = {.sin_family = AF_INET,
                              .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof own;
    int closed = socket(AF_INET, SOCK_STREAM, 0), open = socket(AF_INET, SOCK_STREAM, 0);
    assert_ok(dk_introduction_make(&i, &err), err);
    assert_int_equal(bind(closed, (struct sockaddr *)&own, sizeof own), 0);
    assert_int_equal(getsockname(closed, (struct sockaddr *)&own, &size), 0);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", ntohs(own.sin_port));
    dk_introduction_add(&i, endpoint);
    dk_introduction_add(&i, "ipc:///nowhere");
    assert_int_equal(dk_introduction_find(found, &i, &err), DK_NETWORK);
    assert_non_null(strstr(err.message, "ipc:///nowhere"));
    own.sin_port = 0;
    assert_int_equal(bind(open, (struct sockaddr *)&own, sizeof own), 0);
    assert_int_equal(listen(open, 1), 0);
    assert_int_equal(getsockname(open, (struct sockaddr *)&own, &size), 0);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", ntohs(own.sin_port));
    dk_introduction_add(&i, endpoint);
    assert_ok(dk_introduction_find(found, &i, &err), err);
    assert_string_equal(found, endpoint);
    i.endpoint_count = 0; /* a name of two numbers, one of which nobody listens at */
    char named[64];
    snprintf(named, sizeof named, "tcp://localhost:%d", ntohs(own.sin_port));
    dk_introduction_add(&i, named);
    assert_ok(dk_introduction_find(found, &i, &err), err);
    assert_string_equal(found, endpoint);
    close(open);
    close(closed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_text_holds_no_key_of_the_scheduler),
        cmocka_unit_test(test_texts_that_tell_too_little),
        cmocka_unit_test(test_many_and_long_endpoints),
        cmocka_unit_test(test_the_file_is_of_one_user),
        cmocka_unit_test(test_the_endpoint_that_answers_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
