/* The meeting of ranks: exchange, refusals, strangers, and how the end of a rank is heard. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "comm/rendezvous.h"
#include "comm_fixture.h"
#include "test.h"

enum { LONG_MS = 10000, SHORT_MS = 700, NOBODY = 65534 };

static dk_rendezvous_options meeting_of(const dk_transport_options *options, double ms)
{
    return (dk_rendezvous_options){.address = options->address,
                                   .key = options->key,
                                   .rank = options->rank,
                                   .ranks = options->ranks,
                                   .deadline_ms = dk_now_ms() + ms};
}

/* --- cases */

static unsigned char byte_of(int rank, size_t i, size_t round)
{
    return (unsigned char)((size_t)rank * 31 + i * 7 + round);
}

static dk_status check_exchange(dk_rendezvous *r, int rank, int ranks, size_t bytes,
                                dk_error *err)
{
    unsigned char *mine = dk_alloc(bytes), *all = dk_alloc(bytes * (size_t)ranks);
    for (size_t i = 0; i < bytes; i++) {
        mine[i] = byte_of(rank, i, bytes);
    }
    dk_status status = dk_rendezvous_exchange(r, all, mine, bytes, dk_now_ms() + LONG_MS, err);
    for (size_t i = 0; i < bytes * (size_t)ranks && status == DK_OK; i++) {
        if (all[i] != byte_of((int)(i / bytes), i % bytes, bytes)) {
            status = dk_fail(err, DK_MISMATCH, "byte %zu of %zu", i, bytes);
        }
    }
    dk_free(mine);
    dk_free(all);
    return status;
}

static dk_status exchange(const dk_transport_options *options, const char *argument,
                          dk_error *err)
{
    static const size_t sizes[] = {1, 0, 1000, DK_RENDEZVOUS_MOST_BYTES, 16};
    dk_rendezvous *r = NULL;
    dk_rendezvous_options meeting = meeting_of(options, LONG_MS);
    dk_status status;
    (void)argument;
    DK_TRY_DONE(dk_rendezvous_open(&r, &meeting, err));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        DK_TRY_DONE(check_exchange(r, options->rank, options->ranks, sizes[i], err));
    }
    unsigned char too_much = 0;
    if (dk_rendezvous_exchange(r, &too_much, &too_much, DK_RENDEZVOUS_MOST_BYTES + 1, 0,
                               NULL) != DK_INVALID) {
        status = dk_fail(err, DK_MISMATCH, "too many bytes are taken");
    }
done:
    dk_rendezvous_close(&r);
    return status;
}

/* Opens with what the argument changes: "key", "ranks", "twice", "short" or "nobody". */
static dk_status odd(const dk_transport_options *options, const char *argument, dk_error *err)
{
    dk_rendezvous *r = NULL;
    dk_rendezvous_options meeting = meeting_of(options, SHORT_MS);
    bool is_odd = options->rank == 1;
    meeting.key = is_odd && strcmp(argument, "key") == 0 ? "another" : meeting.key;
    meeting.ranks += is_odd && strcmp(argument, "ranks") == 0 ? 1 : 0;
    if (strcmp(argument, "nobody") == 0 && is_odd && setuid(NOBODY) != 0) {
        return dk_fail(err, DK_INTERNAL, "the user cannot be changed");
    }
    DK_TRY(dk_rendezvous_open(&r, &meeting, err));
    dk_rendezvous_close(&r);
    return DK_OK;
}

/* Different numbers of bytes. */
static dk_status odd_exchange(const dk_transport_options *options, const char *argument,
                              dk_error *err)
{
    dk_rendezvous *r = NULL;
    dk_rendezvous_options meeting = meeting_of(options, LONG_MS);
    unsigned char all[64], mine[16] = {0};
    (void)argument;
    DK_TRY(dk_rendezvous_open(&r, &meeting, err));
    dk_status status = dk_rendezvous_exchange(r, all, mine, options->rank == 1 ? 15 : 16,
                                              dk_now_ms() + LONG_MS, err);
    dk_rendezvous_close(&r);
    return status;
}

typedef struct heard {
    atomic_int times;
    int rank;
    char why[256];
} heard;

static void hear(void *context, int rank, const char *why)
{
    heard *h = context;
    h->rank = rank;
    snprintf(h->why, sizeof h->why, "%s", why);
    atomic_fetch_add(&h->times, 1);
}

static void cut_loopback(void)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "lo");
    request.ifr_flags = 0;
    if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) {
        abort();
    }
    close(fd);
}

/* Watches until a rank is lost, and tells which one; with "quits", rank 1 gives up; with
   "leaves" it leaves, nothing is to be heard for a while, then all leave; with "cut", rank 1
   pulls the cable. */
static dk_status watch(const dk_transport_options *options, const char *argument, dk_error *err)
{
    dk_rendezvous *r = NULL;
    heard h = {0};
    dk_rendezvous_options meeting = meeting_of(options, LONG_MS);
    bool leaves = strcmp(argument, "leaves") == 0, acts = options->rank == 1;
    double start;
    dk_status status;
    DK_TRY_DONE(dk_rendezvous_open(&r, &meeting, err));
    DK_TRY_DONE(check_exchange(r, options->rank, options->ranks, 16, err));
    DK_TRY_DONE(dk_rendezvous_watch(r, hear, &h, err));
    rank_is_ready();
    if (acts && strcmp(argument, "quits") == 0) {
        dk_rendezvous_abandon(r, "no more paper");
    } else if (acts && strcmp(argument, "cut") == 0) {
        cut_loopback();
    }
    start = dk_now_ms();
    while (atomic_load(&h.times) == 0 && !(acts && strcmp(argument, "quits") == 0) &&
           dk_now_ms() - start < (leaves ? acts ? 0 : 300 : LONG_MS)) {
        poll(NULL, 0, 1);
    }
done:
    dk_rendezvous_close(&r);
    if (status == DK_OK && atomic_load(&h.times) > 0) {
        status = dk_fail(err, DK_NETWORK, "%d times, rank %d: %s", atomic_load(&h.times),
                         h.rank, h.why);
    }
    return status;
}

static const rank_case cases[] = {
    {"exchange", exchange}, {"odd", odd}, {"odd exchange", odd_exchange}, {"watch", watch}};

/* --- tests */

/* A port that is free now. */
static void tcp_address(char *out, size_t size, bool v6)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_in four = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *at = v6 ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    socklen_t bytes = v6 ? sizeof six : sizeof four;
    assert_int_equal(bind(fd, at, bytes), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)(v6 ? (void *)&six : &four), &bytes),
                     0);
    close(fd);
    snprintf(out, size, v6 ? "[::1]:%d" : "127.0.0.1:%d",
             ntohs(v6 ? six.sin6_port : four.sin_port));
}

static void expect(const rank_end *end, dk_status status, const char *text)
{
    if (end->status != status || strstr(end->text, text) == NULL) {
        fail_msg("%s: '%s', expected %s: '%s'", dk_status_text(end->status), end->text,
                 dk_status_text(status), text);
    }
}

static void run_at(const char *name, int ranks, const char *argument, const char *address,
                   rank_end ends[MOST_RANKS])
{
    rank_set set;
    start_ranks(&set, name, ranks, argument, address);
    end_ranks(&set, ends);
}

static void test_exchange(void **state)
{
    rank_end ends[MOST_RANKS];
    char addresses[3][64] = {""};
    (void)state;
    tcp_address(addresses[1], sizeof addresses[1], false);
    tcp_address(addresses[2], sizeof addresses[2], true);
    for (int ranks = 1; ranks <= 6; ranks += ranks < 3 ? 1 : 3) {
        for (int a = 0; a < 3; a++) {
            run_at("exchange", ranks, "", a == 0 ? NULL : addresses[a], ends);
            for (int i = 0; i < ranks; i++) {
                expect(&ends[i], DK_OK, "");
            }
        }
    }
}

/* Rank 0 comes last. */
static void test_rank_0_last(void **state)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    char address[64];
    (void)state;
    tcp_address(address, sizeof address, false);
    for (int a = 0; a < 2; a++) {
        begin_set(&set, a == 0 ? NULL : address);
        start_rank(&set, "exchange", 1, 3, "");
        start_rank(&set, "exchange", 2, 3, "");
        usleep(200 * 1000);
        start_rank(&set, "exchange", 0, 3, "");
        end_ranks(&set, ends);
        for (int i = 0; i < 3; i++) {
            expect(&ends[i], DK_OK, "");
        }
    }
}

static void test_refusals(void **state)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    (void)state;
    run_at("odd", 2, "key", NULL, ends);
    expect(&ends[0], DK_INVALID, "1 came with another key, the last of them as rank 1");
    expect(&ends[1], DK_INVALID, "its key is not that of the meeting");
    run_at("odd", 2, "ranks", NULL, ends);
    expect(&ends[0], DK_INVALID, "rank 1 expects 3 ranks, rank 0 2");
    expect(&ends[1], DK_INVALID, "rank 1 expects 3 ranks, rank 0 2");
    begin_set(&set, NULL);
    start_rank(&set, "odd", 0, 3, "");
    start_rank(&set, "odd", 1, 3, "");
    start_rank(&set, "odd", 1, 3, "");
    end_ranks(&set, ends);
    for (int i = 0; i < 3; i++) {
        expect(&ends[i], DK_INVALID, "rank 1 is there twice");
        assert_true(ends[i].seconds < 0.5);
    }
    run_at("odd exchange", 3, "", NULL, ends);
    expect(&ends[0], DK_INVALID, "rank 1 brings 15 bytes, rank 0 16");
    expect(&ends[1], DK_NETWORK, "different numbers of bytes");
}

static void test_absent(void **state)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    (void)state;
    begin_set(&set, NULL);
    start_rank(&set, "odd", 0, 4, "");
    start_rank(&set, "odd", 1, 4, "");
    end_ranks(&set, ends);
    expect(&ends[0], DK_TIMEOUT, "ranks 2, 3 of 4 did not come in time");
    expect(&ends[1], DK_TIMEOUT, "ranks 2, 3 of 4 did not come in time");
    begin_set(&set, NULL);
    start_rank(&set, "odd", 1, 2, "");
    end_ranks(&set, ends);
    expect(&ends[0], DK_TIMEOUT, "rank 1 found no rank 0 in time");
}

static void test_other_user(void **state)
{
    rank_end ends[MOST_RANKS];
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    run_at("odd", 2, "nobody", NULL, ends);
    expect(&ends[0], DK_TIMEOUT, "rank 1 of 2 did not come in time");
    expect(&ends[1], DK_DENIED, "another user");
}

static void test_addresses(void **state)
{
    static const char *const wrong[] = {"",         "host",       "host:",    ":80",
                                        "host:0",   "host:65536", "host:8a",  "::1:80",
                                        "[::1:80",  "[]:80",      "unix:@",   "unix:/tmp/x",
                                        "h:000001", "host:-1",    "[::1]x:80"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        for (int rank = 0; rank < 2; rank++) {
            dk_rendezvous *r = NULL;
            dk_error err = {0};
            dk_rendezvous_options options = {.address = wrong[i],
                                             .rank = rank,
                                             .ranks = 2,
                                             .deadline_ms = dk_now_ms() + SHORT_MS};
            if (dk_rendezvous_open(&r, &options, &err) != DK_INVALID || err.message[0] == 0) {
                fail_msg("'%s' gave '%s'", wrong[i], err.message);
            }
        }
    }
    dk_rendezvous *r = NULL;
    dk_error err = {0};
    dk_rendezvous_options foreign = {
        .address = "192.0.2.1:5000", .ranks = 2, .deadline_ms = dk_now_ms() + SHORT_MS};
    assert_int_equal(dk_rendezvous_open(&r, &foreign, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "no address of this host"));
}

/* --- strangers */

static int connect_to(const char *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Says something that is no hello: random, or a beginning of one, or nothing. */
static void pester(int fd, uint32_t *choices)
{
    unsigned char bytes[200] = {'D', 'K', 'm', 'e', 'e', 't', '\r', '\n'};
    uint32_t kind = known_number(choices) % 4;
    size_t from = kind == 0 ? 0 : 8, size = 8 + known_number(choices) % (sizeof bytes - 8);
    for (size_t i = from; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)known_number(choices);
    }
    size = kind == 2 ? known_number(choices) % 8 : size;
    if (kind != 3) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent; /* it may have been thrown out already */
    }
}

/* Before and while three ranks meet, 300 connections come and stay. */
static void test_strangers(void **state)
{
    enum { COUNT = 300, FIRST = 150 };
    static int fds[COUNT];
    uint32_t choices = 3;
    rank_set set;
    rank_end ends[MOST_RANKS];
    char address[64];
    (void)state;
    tcp_address(address, sizeof address, false);
    begin_set(&set, address);
    start_rank(&set, "exchange", 0, 3, "");
    for (int i = 0; i < COUNT; i++) {
        double start = dk_now_ms();
        while ((fds[i] = connect_to(address)) < 0 && dk_now_ms() - start < SHORT_MS) {
            usleep(1000);
        }
        if (fds[i] >= 0) {
            pester(fds[i], &choices);
        }
        if (i == FIRST) {
            start_rank(&set, "exchange", 1, 3, "");
        }
    }
    start_rank(&set, "exchange", 2, 3, "");
    end_ranks(&set, ends);
    for (int i = 0; i < 3; i++) {
        expect(&ends[i], DK_OK, "");
        assert_true(ends[i].seconds < 4);
    }
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
}

/* Somebody else listens there. */
static void *answer(void *argument)
{
    int fd = accept(*(int *)argument, NULL, NULL);
    ssize_t sent = send(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
    (void)sent;
    poll(NULL, 0, 200);
    close(fd);
    return NULL;
}

static void test_no_meeting(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    pthread_t thread;
    char address[64];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    dk_rendezvous *r = NULL;
    dk_error err = {0};
    (void)state;
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    snprintf(address, sizeof address, "localhost:%d", ntohs(at.sin_port));
    pthread_create(&thread, NULL, answer, &listener);
    dk_rendezvous_options options = {
        .address = address, .rank = 1, .ranks = 2, .deadline_ms = dk_now_ms() + LONG_MS};
    assert_int_equal(dk_rendezvous_open(&r, &options, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "what answers there is no rank 0"));
    pthread_join(thread, NULL);
    close(listener);
}

/* --- the watch */

static void test_killed(void **state)
{
    char address[64], expected[64];
    (void)state;
    tcp_address(address, sizeof address, false);
    for (int i = 0; i < 6; i++) {
        rank_set set;
        rank_end ends[MOST_RANKS];
        int victim = i % 3;
        start_ranks(&set, "watch", 3, "", i < 3 ? NULL : address);
        assert_true(await_ready(&set));
        set.start_ms = dk_now_ms();
        kill(set.pids[victim], SIGKILL);
        end_ranks(&set, ends);
        snprintf(expected, sizeof expected, "1 times, rank %d: its connection ended", victim);
        for (int rank = 0; rank < 3; rank++) {
            if (rank != victim) {
                expect(&ends[rank], DK_NETWORK, expected);
                assert_true(ends[rank].seconds < 1);
            }
        }
    }
}

static void test_quits(void **state)
{
    rank_end ends[MOST_RANKS];
    (void)state;
    run_at("watch", 3, "quits", NULL, ends);
    expect(&ends[0], DK_NETWORK, "1 times, rank 1: no more paper");
    expect(&ends[1], DK_OK, "");
    expect(&ends[2], DK_NETWORK, "1 times, rank 1: no more paper");
}

static void test_leaves(void **state)
{
    rank_end ends[MOST_RANKS];
    (void)state;
    run_at("watch", 4, "leaves", NULL, ends);
    for (int i = 0; i < 4; i++) {
        expect(&ends[i], DK_OK, "");
    }
}

static bool bring_up_loopback(void)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    bool done = ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    close(fd);
    return done;
}

/* In a network of their own, whose only link is cut without a word. Last: the test moves there
   itself. */
static void test_cut(void **state)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    (void)state;
    if (unshare(CLONE_NEWNET) != 0 || !bring_up_loopback()) {
        skip(); /* not allowed here */
    }
    start_ranks(&set, "watch", 2, "cut", "127.0.0.1:5000");
    assert_true(await_ready(&set));
    set.start_ms = dk_now_ms();
    end_ranks(&set, ends);
    expect(&ends[0], DK_NETWORK, "1 times, rank 1: nothing comes through");
    expect(&ends[1], DK_NETWORK, "1 times, rank 0: nothing comes through");
    assert_true(ends[0].seconds < 8);
    assert_true(ends[1].seconds < 8);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),   cmocka_unit_test(test_rank_0_last),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_absent),
        cmocka_unit_test(test_other_user), cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_strangers),  cmocka_unit_test(test_no_meeting),
        cmocka_unit_test(test_killed),     cmocka_unit_test(test_quits),
        cmocka_unit_test(test_leaves),     cmocka_unit_test(test_cut),
    };
    int code;
    if (ran_as_rank(argc, argv, cases, sizeof cases / sizeof cases[0], &code)) {
        return code;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
