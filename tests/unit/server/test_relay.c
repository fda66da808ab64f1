/* A relay and its scheduler, which this test is: how long the relay waits for a word. */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "server/worker/relay.h"
#include "test.h"

enum { SILENCE_MS = 100, COMING_MS = 1500, WAIT_MS = 20000 };

/* The scheduler's end, and the relay as a process that came to it. */
typedef struct pair {
    dk_link *link;
    dk_link_peer relay;
    pid_t pid;
} pair;

static void run_relay(const dk_introduction *introduction)
{
    dk_error err;
    const dk_relay_options options = {
        .replica = 1, .introduction = introduction, .folder = "/", .silence_ms = SILENCE_MS};
    _exit((int)dk_relay_run(&options, &err));
}

static void await_word(pair *p)
{
    dk_error err;
    dk_message message;
    bool received = false;
    zmq_pollitem_t item = {.socket = dk_link_socket(p->link), .events = ZMQ_POLLIN};
    double until_ms = dk_now_ms() + WAIT_MS;
    while (!received && dk_now_ms() < until_ms) {
        zmq_poll(&item, 1, 100);
        assert_ok(dk_link_receive(p->link, &p->relay, &message, &received, &err), err);
    }
    assert_true(received);
    assert_string_equal(dk_message_type(&message), "here");
    dk_message_release(&message);
}

/* The relay's process has no socket of this one's: it begins before there are any. */
static void start(pair *p)
{
    dk_error err;
    dk_introduction i;
    char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES];
    int ends[2];
    assert_ok(dk_introduction_make(&i, &err), err);
    assert_int_equal(pipe(ends), 0);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        if (read(ends[0], endpoint, sizeof endpoint) != (ssize_t)sizeof endpoint) {
            _exit(1);
        }
        dk_introduction_add(&i, endpoint);
        run_relay(&i);
    }
    const dk_link_keys keys = {.secret = i.own, .allowed = i.allowed};
    assert_ok(dk_link_listen(&p->link, "tcp://127.0.0.1:*", &keys, &err), err);
    memset(endpoint, 0, sizeof endpoint);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", dk_link_port(p->link));
    assert_int_equal(write(ends[1], endpoint, sizeof endpoint), sizeof endpoint);
    close(ends[0]);
    close(ends[1]);
    await_word(p);
}

static void say(pair *p, double coming)
{
    dk_message message;
    dk_error err;
    dk_message_pack(&message, "here", "{s:f}", "coming", coming);
    assert_ok(dk_link_send(p->link, &p->relay, &message, &err), err);
    dk_message_release(&message);
}

/* Milliseconds until the relay gave the scheduler up. */
static double end(pair *p)
{
    double start_ms = dk_now_ms();
    int code;
    assert_int_equal(waitpid(p->pid, &code, 0), p->pid);
    assert_true(WIFEXITED(code) && WEXITSTATUS(code) == DK_NETWORK);
    dk_link_close(&p->link);
    return dk_now_ms() - start_ms;
}

static void test_silence(void **state)
{
    (void)state;
    pair p;
    start(&p);
    say(&p, 0);
    end(&p);
}

static void test_a_file_is_under_way(void **state)
{
    (void)state;
    pair p;
    start(&p);
    say(&p, COMING_MS * 5e3);
    assert_true(end(&p) > COMING_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_a_file_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
