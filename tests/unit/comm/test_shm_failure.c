/* What goes wrong in a group, and that it leaves nothing behind. With "cycles N" behind the
   program's name: so many starts and stops of a group of four. */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "comm_fixture.h"
#include "test.h"

enum { LONG_MS = 20000, SHORT_MS = 300, BYTES = 300000 };

static dk_comm_at until(const char *what, double ms)
{
    return (dk_comm_at){.what = what, .deadline_ms = dk_now_ms() + ms};
}

static dk_status barrier(dk_transport *t, dk_error *err)
{
    dk_comm_at at = until("barrier of all", LONG_MS);
    return t->ops->barrier(t, &at, err);
}

/* --- cases */

/* Rank 1 makes another call than the others: what the argument says. */
static dk_status other_call(const dk_transport_options *options, const char *argument,
                            dk_error *err)
{
    dk_transport *t;
    float data[64] = {0};
    dk_comm_at reduce = until("all_reduce of all", LONG_MS);
    dk_comm_at other = until("broadcast of all", LONG_MS);
    DK_TRY(dk_transport_shm(&t, options, err));
    dk_status status = barrier(t, err);
    if (status == DK_OK && t->rank == 1 && strcmp(argument, "broadcast") == 0) {
        status = t->ops->broadcast(t, data, sizeof data, 0, &other, err);
    } else if (status == DK_OK) {
        bool other_size = t->rank == 1 && strcmp(argument, "size") == 0;
        bool other_type = t->rank == 1 && strcmp(argument, "type") == 0;
        status = t->ops->all_reduce(t, data, other_type ? DK_I32 : DK_F32, other_size ? 32 : 64,
                                    DK_REDUCE_SUM, &reduce, err);
    }
    t->ops->close(t);
    return status;
}

/* Rank 1 tells another size than the others know. */
static dk_status other_sizes(const dk_transport_options *options, const char *argument,
                             dk_error *err)
{
    dk_transport *t;
    unsigned char src[64] = {0}, dst[64];
    size_t sizes[MOST_RANKS], to[MOST_RANKS];
    dk_comm_at at = until(argument, LONG_MS);
    DK_TRY(dk_transport_shm(&t, options, err));
    for (int i = 0; i < t->ranks; i++) {
        sizes[i] = to[i] = 8;
    }
    if (t->rank == 1) {
        to[0] = 7;
    }
    dk_status status =
        strcmp(argument, "all_to_all") == 0
            ? t->ops->all_to_all(t, dst, sizes, src, to, &at, err)
            : t->ops->send_receive(t, src, to[0], 1 - t->rank, dst, 8, 1 - t->rank, &at, err);
    if (status == DK_OK) { /* rank 1 has sent; who notices ends the group */
        status = barrier(t, err);
    }
    t->ops->close(t);
    return status;
}

/* Rank 2 comes late to a call with a short deadline; the argument is the call. */
static dk_status late(const dk_transport_options *options, const char *argument, dk_error *err)
{
    dk_transport *t;
    float data[64] = {0};
    DK_TRY(dk_transport_shm(&t, options, err));
    dk_status status = barrier(t, err);
    if (t->rank == 2) {
        usleep(3 * SHORT_MS * 1000);
    }
    dk_comm_at at = until("all_reduce of all", SHORT_MS);
    if (status == DK_OK && strcmp(argument, "pair") == 0) {
        at.what = "shift of all";
        status =
            t->ops->send_receive(t, data, sizeof data, (t->rank + 1) % t->ranks, data,
                                 sizeof data, (t->rank + t->ranks - 1) % t->ranks, &at, err);
    } else if (status == DK_OK) {
        status = t->ops->all_reduce(t, data, DK_F32, 64, DK_REDUCE_SUM, &at, err);
    }
    t->ops->close(t);
    return status;
}

/* Rank 1 leaves, the others go on. */
static dk_status leaver(const dk_transport_options *options, const char *argument,
                        dk_error *err)
{
    dk_transport *t;
    (void)argument;
    DK_TRY(dk_transport_shm(&t, options, err));
    dk_status status = barrier(t, err);
    if (status == DK_OK && t->rank != 1) {
        status = barrier(t, err);
    }
    t->ops->close(t);
    return status;
}

static void *give_up(void *argument)
{
    dk_transport *t = argument;
    usleep(100 * 1000);
    t->ops->abandon(t, "the device is lost");
    return NULL;
}

/* A thread of the rank that the argument names gives up, while all wait for rank 0. */
static dk_status quitter(const dk_transport_options *options, const char *argument,
                         dk_error *err)
{
    dk_transport *t;
    pthread_t thread;
    bool quits = atoi(argument) == options->rank;
    DK_TRY(dk_transport_shm(&t, options, err));
    dk_status status = barrier(t, err);
    if (quits) {
        pthread_create(&thread, NULL, give_up, t);
    }
    if (t->rank == 0) {
        usleep(SHORT_MS * 1000);
    }
    if (status == DK_OK) {
        status = barrier(t, err);
    }
    if (quits) {
        pthread_join(thread, NULL);
    }
    t->ops->close(t);
    return status;
}

/* Calls without end: of the group, of a sub-group and of pairs. */
static dk_status busy(const dk_transport_options *options, const char *argument, dk_error *err)
{
    dk_transport *t, *sub = NULL;
    float *data = dk_alloc(BYTES), *more = dk_alloc(BYTES);
    dk_status status = dk_transport_shm(&t, options, err);
    (void)argument;
    if (status != DK_OK) {
        return status;
    }
    dk_comm_at at = until("split of all", LONG_MS);
    DK_TRY_DONE(t->ops->split(&sub, t, t->rank / 2, 0, &at, err));
    rank_is_ready();
    for (;;) {
        at = until("all_reduce of all", LONG_MS);
        DK_TRY_DONE(
            t->ops->all_reduce(t, data, DK_F32, BYTES / sizeof *data, DK_REDUCE_SUM, &at, err));
        at.what = "barrier of halves";
        DK_TRY_DONE(sub->ops->barrier(sub, &at, err));
        at.what = "shift of all";
        DK_TRY_DONE(t->ops->send_receive(t, data, BYTES, (t->rank + 1) % t->ranks, more, BYTES,
                                         (t->rank + t->ranks - 1) % t->ranks, &at, err));
    }
done:
    if (sub != NULL) {
        sub->ops->close(sub);
    }
    t->ops->close(t);
    dk_free(data);
    dk_free(more);
    return status;
}

/* Only the meeting, with a short deadline. */
static dk_status meet(const dk_transport_options *options, const char *argument, dk_error *err)
{
    dk_transport *t;
    dk_transport_options hurried = *options;
    (void)argument;
    hurried.deadline_ms = dk_now_ms() + 600;
    DK_TRY(dk_transport_shm(&t, &hurried, err));
    dk_status status = barrier(t, err);
    usleep(SHORT_MS * 1000);
    if (status == DK_OK) {
        status = barrier(t, err);
    }
    t->ops->close(t);
    return status;
}

/* Rank 0, which hears who dies, leaves first; then rank 1 is killed, and rank 2 waits for it.
 */
static dk_status centre_leaves(const dk_transport_options *options, const char *argument,
                               dk_error *err)
{
    dk_transport *t;
    char byte = 0;
    (void)argument;
    DK_TRY(dk_transport_shm(&t, options, err));
    dk_status status = barrier(t, err);
    if (t->rank == 0) {
        rank_is_ready();
        t->ops->close(t);
        return status;
    }
    usleep(200 * 1000);
    rank_is_ready();
    if (t->rank == 1) {
        pause();
    }
    dk_comm_at at = until("receive of all", LONG_MS);
    status = t->ops->send_receive(t, NULL, 0, -1, &byte, 1, 1, &at, err);
    t->ops->close(t);
    return status;
}

static int count_entries(const char *path)
{
    int count = 0;
    DIR *folder = opendir(path);
    while (folder != NULL && readdir(folder) != NULL) {
        count++;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return count;
}

/* Mappings of groups' memory in this process. */
static int count_segments(void)
{
    int count = 0;
    char line[512];
    FILE *file = fopen("/proc/self/maps", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        count += strstr(line, "memfd:darkroom-group") != NULL;
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static dk_status one_cycle(const dk_transport_options *options, dk_error *err)
{
    dk_transport *t, *sub;
    int32_t number = options->rank;
    dk_comm_at at = until("all_reduce of all", LONG_MS);
    dk_transport_options own = *options;
    own.deadline_ms = dk_now_ms() + LONG_MS;
    DK_TRY(dk_transport_shm(&t, &own, err));
    DK_TRY(t->ops->split(&sub, t, t->rank % 2, 0, &at, err));
    DK_TRY(sub->ops->barrier(sub, &at, err));
    DK_TRY(t->ops->all_reduce(t, &number, DK_I32, 1, DK_REDUCE_SUM, &at, err));
    sub->ops->close(sub);
    t->ops->close(t);
    return number == options->ranks * (options->ranks - 1) / 2
               ? DK_OK
               : dk_fail(err, DK_MISMATCH, "the sum is %d", number);
}

/* Groups that come and go in the same process, at the same address. */
static dk_status cycles(const dk_transport_options *options, const char *argument,
                        dk_error *err)
{
    DK_TRY(one_cycle(options, err)); /* a sanitizer starts a thread of its own meanwhile */
    int files = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    for (int i = atoi(argument); i > 1; i--) {
        DK_TRY(one_cycle(options, err));
    }
    double start = dk_now_ms();
    while (count_entries("/proc/self/task") > threads && dk_now_ms() - start < LONG_MS) {
        usleep(1000); /* a thread that has been joined may be listed for a moment */
    }
    if (count_entries("/proc/self/fd") > files || count_entries("/proc/self/task") > threads ||
        count_segments() > 0) {
        return dk_fail(err, DK_MISMATCH,
                       "%d descriptors, %d threads, %d groups' memories; before: %d, %d, 0",
                       count_entries("/proc/self/fd"), count_entries("/proc/self/task"),
                       count_segments(), files, threads);
    }
    return DK_OK;
}

/* --- tests */

static void check_end(const char *name, int rank, const rank_end *end, const char *expected)
{
    bool is_right =
        end->status == DK_NETWORK || end->status == DK_TIMEOUT || end->status == DK_INVALID;
    if (!is_right || strstr(end->text, expected) == NULL) {
        fail_msg("%s, rank %d: %s: '%s', expected '%s' in it", name, rank,
                 dk_status_text(end->status), end->text, expected);
    }
}

/* All ranks but `but` fail within some seconds and say what is expected. */
static void fails_everywhere(const char *name, int ranks, const char *argument, int but,
                             const char *expected, double seconds)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    start_ranks(&set, name, ranks, argument, NULL);
    end_ranks(&set, ends);
    for (int i = 0; i < ranks; i++) {
        if (i != but) {
            check_end(name, i, &ends[i], expected);
            assert_true(ends[i].seconds < seconds);
        }
    }
}

static void test_other_call(void **state)
{
    (void)state;
    fails_everywhere("other call", 3, "broadcast", -1, "broadcast of all", 3);
    fails_everywhere("other call", 3, "broadcast", -1, "rank 1", 3);
    fails_everywhere("other call", 3, "size", -1, "rank 1", 3);
    fails_everywhere("other call", 3, "type", -1, "rank 1", 3);
    fails_everywhere("other sizes", 2, "all_to_all", -1, "sends 7 bytes", 3);
    fails_everywhere("other sizes", 2, "send_receive", -1, "sends 7 bytes", 3);
}

static void test_late(void **state)
{
    (void)state;
    fails_everywhere("late", 3, "", -1, "rank 2", 3);
    fails_everywhere("late", 3, "pair", 1, "rank 2", 3); /* 1: sends to it, without waiting */
}

static void test_leaver(void **state)
{
    (void)state;
    fails_everywhere("leaver", 3, "", 1, "rank 1 is gone: it has left the group", 3);
}

static void test_quitter(void **state)
{
    (void)state;
    fails_everywhere("quitter", 3, "0", -1, "the device is lost", 3);
    fails_everywhere("quitter", 3, "2", -1, "the device is lost", 3);
}

static void test_killed(void **state)
{
    enum { TIMES = 16, RANKS = 4 };
    uint32_t choices = 7;
    (void)state;
    for (int i = 0; i < TIMES; i++) {
        rank_set set;
        rank_end ends[MOST_RANKS];
        char expected[32];
        int victim = i % RANKS;
        start_ranks(&set, "busy", RANKS, "", NULL);
        assert_true(await_ready(&set));
        usleep(known_number(&choices) % 20000);
        set.start_ms = dk_now_ms();
        assert_int_equal(kill(set.pids[victim], SIGKILL), 0);
        end_ranks(&set, ends);
        snprintf(expected, sizeof expected, "rank %d", victim);
        for (int r = 0; r < RANKS; r++) {
            assert_int_equal(ends[r].was_killed, r == victim);
            if (r != victim) {
                check_end("busy", r, &ends[r], expected);
                assert_true(ends[r].seconds < 2);
            }
        }
    }
}

/* At any moment of the meeting, too: the others fail, or the rank had done its part. */
static void test_killed_early(void **state)
{
    enum { TIMES = 6, RANKS = 3 };
    uint32_t choices = 11;
    (void)state;
    for (int i = 0; i < TIMES; i++) {
        rank_set set;
        rank_end ends[MOST_RANKS];
        char expected[32];
        int victim = i % RANKS;
        start_ranks(&set, "meet", RANKS, "", NULL);
        usleep(known_number(&choices) % 25000);
        assert_int_equal(kill(set.pids[victim], SIGKILL), 0);
        end_ranks(&set, ends);
        snprintf(expected, sizeof expected, "rank %d", victim);
        for (int r = 0; r < RANKS; r++) {
            if (r != victim) {
                check_end("meet", r, &ends[r], expected);
                assert_true(ends[r].seconds < 4);
            }
        }
    }
}

static void test_centre_leaves(void **state)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    (void)state;
    start_ranks(&set, "centre leaves", 3, "", NULL);
    assert_true(await_ready(&set));
    usleep(100 * 1000);
    kill(set.pids[1], SIGKILL);
    end_ranks(&set, ends);
    assert_int_equal(ends[0].status, DK_OK);
    check_end("centre leaves", 2, &ends[2], "rank 1 is gone: its process has ended");
    assert_true(ends[2].seconds < 3);
}

static void run_cycles(int times, const char *in_process)
{
    int shared = count_entries("/dev/shm"), files = count_entries("/proc/self/fd");
    run_ranks("cycles", 4, in_process);
    for (int i = 0; i < times; i++) {
        run_ranks("cycles", 4, "1");
    }
    /* Other programs come and go there too: a name left by each cycle would be seen. */
    assert_true(count_entries("/dev/shm") < shared + times);
    assert_int_equal(count_entries("/proc/self/fd"), files);
}

static void test_cycles(void **state)
{
    (void)state;
    run_cycles(20, "100");
}

static const rank_case cases[] = {
    {"other call", other_call},
    {"other sizes", other_sizes},
    {"late", late},
    {"leaver", leaver},
    {"quitter", quitter},
    {"busy", busy},
    {"meet", meet},
    {"centre leaves", centre_leaves},
    {"cycles", cycles},
};

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_call),    cmocka_unit_test(test_late),
        cmocka_unit_test(test_leaver),        cmocka_unit_test(test_quitter),
        cmocka_unit_test(test_killed),        cmocka_unit_test(test_killed_early),
        cmocka_unit_test(test_centre_leaves), cmocka_unit_test(test_cycles),
    };
    int code;
    if (ran_as_rank(argc, argv, cases, sizeof cases / sizeof cases[0], &code)) {
        return code;
    }
    if (argc == 3 && strcmp(argv[1], "cycles") == 0) {
        run_cycles(atoi(argv[2]), argv[2]);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
